// socket.io with its adapter for Redis: all workers hear what is said at any of them.

import { createServer } from 'node:http';

import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';

const tell = await createClient({ url: process.env.REDIS_URL }).connect();
const hear = await tell.duplicate().connect();
const server = createServer((request, response) => response.end('welcome'));
const io = new Server(server, { transports: ['websocket'], adapter: createAdapter(tell, hear) });
io.on('connection', (socket) => socket.on('say', (text) => io.emit('said', text)));
server.listen(process.env.PORT, '127.0.0.1');
