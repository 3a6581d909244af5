// Makes reports, which takes half a second; at SIGTERM it takes no more requests, and ends when all reports are made.

import { createServer } from 'node:http';
import { setTimeout } from 'node:timers/promises';

const server = createServer(async (request, response) => {
  if (request.url.startsWith('/reports/')) await setTimeout(500);
  response.end('welcome to ' + request.url);
}).listen(process.env.PORT, '127.0.0.1');

process.on('SIGTERM', () => {
  server.close();
  server.closeIdleConnections();
});
