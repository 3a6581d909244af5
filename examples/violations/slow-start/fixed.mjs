// Loads its catalogue before it listens: nobody is sent to a worker that does not have it.

import { createServer } from 'node:http';
import { setTimeout } from 'node:timers/promises';

let loaded;
const catalogue = () => (loaded ??= setTimeout(800, 'ink, paper'));

await catalogue();
const server = createServer(async (request, response) => {
  response.end(await catalogue());
}).listen(process.env.PORT, '127.0.0.1');

process.on('SIGTERM', () => {
  server.close();
  server.closeIdleConnections();
});
