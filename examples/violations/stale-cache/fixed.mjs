// Keeps prices in a store beside, and asks it each time.

import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

const store = process.env.STORE;

async function read(path) {
  const price = await fetch(store + path);
  return price.ok ? price.text() : 'no price yet';
}

createServer(async (request, response) => {
  if (request.method === 'PUT') {
    await fetch(store + request.url, { method: 'PUT', body: await text(request) });
    response.writeHead(204).end();
  } else {
    response.end(await read(request.url));
  }
}).listen(process.env.PORT, '127.0.0.1');
