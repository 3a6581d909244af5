// Loads its catalogue when somebody asks for it for the first time: each new worker makes one user wait.

import { createServer } from 'node:http';
import { setTimeout } from 'node:timers/promises';

let loaded;
const catalogue = () => (loaded ??= setTimeout(800, 'ink, paper'));

const server = createServer(async (request, response) => {
  response.end(await catalogue());
}).listen(process.env.PORT, '127.0.0.1');

process.on('SIGTERM', () => {
  server.close();
  server.closeIdleConnections();
});
