// Does a job before it says that it was begun, and writes the result to a store beside, where all workers read it.

import { createServer } from 'node:http';

const store = process.env.STORE;

createServer(async (request, response) => {
  if (request.method === 'POST') {
    await fetch(store + request.url, { method: 'PUT', body: '42' });
    response.writeHead(202).end('begun');
  } else {
    const result = await fetch(store + request.url);
    response.writeHead(result.status).end(result.ok ? await result.text() : 'not yet');
  }
}).listen(process.env.PORT, '127.0.0.1');
