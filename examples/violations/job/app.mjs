// Does a job in the background and keeps its result in a variable: another worker never hears of it.

import { createServer } from 'node:http';

const results = new Map();

createServer((request, response) => {
  if (request.method === 'POST') {
    setImmediate(() => results.set(request.url, '42'));
    response.writeHead(202).end('begun');
  } else {
    const result = results.get(request.url);
    response.writeHead(result ? 200 : 404).end(result ?? 'not yet');
  }
}).listen(process.env.PORT, '127.0.0.1');
