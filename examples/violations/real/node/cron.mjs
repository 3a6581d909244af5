// node-cron in each worker: what should happen once happens as often as there are workers.

import { createServer } from 'node:http';

import cron from 'node-cron';
import { createClient } from 'redis';

const client = await createClient({ url: process.env.REDIS_URL }).connect();
cron.schedule('* * * * * *', () => client.incr('bills sent'));
createServer((request, response) => response.end('welcome')).listen(process.env.PORT, '127.0.0.1');
