// bullmq carries jobs to any worker, but what comes of one is kept in the memory of the worker that did it.

import { Queue, Worker } from 'bullmq';
import express from 'express';

const { hostname, port } = new URL(process.env.REDIS_URL);
const connection = { host: hostname, port: Number(port), maxRetriesPerRequest: null };
const results = new Map();
const queue = new Queue('squares', { connection });
// As in its twin: with 30 s, what is half done when a worker is killed would be a violation of its own.
new Worker('squares', async (job) => results.set(job.data.name, 'done'), { connection, lockDuration: 1000, stalledInterval: 500 });

const app = express();
app.get('/', (request, response) => response.send('welcome'));
app.post('/jobs/:name', async (request, response) => {
  await queue.add('square', { name: request.params.name });
  response.sendStatus(202);
});
app.get('/jobs/:name', (request, response) => response.status(results.has(request.params.name) ? 200 : 404).send(results.get(request.params.name)));
app.listen(process.env.PORT, '127.0.0.1');
