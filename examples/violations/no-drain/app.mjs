// Makes reports, which takes half a second, and ends at once at SIGTERM: who waits for a report then gets none.

import { createServer } from 'node:http';
import { setTimeout } from 'node:timers/promises';

createServer(async (request, response) => {
  if (request.url.startsWith('/reports/')) await setTimeout(500);
  response.end('welcome to ' + request.url);
}).listen(process.env.PORT, '127.0.0.1');
