// Keeps prices in a store beside, and what it has read in a variable: it never hears that another worker has changed one.

import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

const store = process.env.STORE;
const cache = new Map();

async function read(path) {
  const price = await fetch(store + path);
  return price.ok ? price.text() : 'no price yet';
}

createServer(async (request, response) => {
  if (request.method === 'PUT') {
    const price = await text(request);
    await fetch(store + request.url, { method: 'PUT', body: price });
    cache.set(request.url, price);
    response.writeHead(204).end();
  } else {
    if (!cache.has(request.url)) cache.set(request.url, await read(request.url));
    response.end(cache.get(request.url));
  }
}).listen(process.env.PORT, '127.0.0.1');
