// socket.io without an adapter: who is connected to another worker does not hear what is said here.

import { createServer } from 'node:http';

import { Server } from 'socket.io';

const server = createServer((request, response) => response.end('welcome'));
const io = new Server(server, { transports: ['websocket'] });
io.on('connection', (socket) => socket.on('say', (text) => io.emit('said', text)));
server.listen(process.env.PORT, '127.0.0.1');
