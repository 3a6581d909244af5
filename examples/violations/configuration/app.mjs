// Reads its configuration when it starts: who changes it has workers with the old one beside workers with the new one.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const config = JSON.parse(readFileSync('config.json', 'utf8'));

createServer((request, response) => {
  response.end(`ink: 4 ${config.currency}`);
}).listen(process.env.PORT, '127.0.0.1');
