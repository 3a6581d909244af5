// socket.io as it comes: clients begin with long polling, whose sessions are in one worker alone.

import { createServer } from 'node:http';

import { Server } from 'socket.io';

const server = createServer((request, response) => response.end('welcome'));
new Server(server);
server.listen(process.env.PORT, '127.0.0.1');
