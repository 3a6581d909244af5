// Takes a payment once for each Idempotency-Key, and remembers the keys in a variable: sent again to another worker, it is taken twice.

import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';

const store = process.env.STORE;
const taken = new Set();

async function read(path, otherwise) {
  const found = await fetch(store + path);
  return found.ok ? found.json() : otherwise;
}

createServer(async (request, response) => {
  let paid = await read(request.url, 0);
  const key = request.headers['idempotency-key'];
  if (request.method === 'POST' && !taken.has(key)) {
    taken.add(key);
    paid += (await json(request)).amount;
    await fetch(store + request.url, { method: 'PUT', body: JSON.stringify(paid) });
  }
  response.setHeader('Content-Type', 'application/json').end(JSON.stringify({ paid }));
}).listen(process.env.PORT, '127.0.0.1');
