// Reads its configuration whenever it needs it: who changes it has changed it for all workers.

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';

createServer(async (request, response) => {
  const config = JSON.parse(await readFile('config.json', 'utf8'));
  response.end(`ink: 4 ${config.currency}`);
}).listen(process.env.PORT, '127.0.0.1');
