// Takes a payment once for each Idempotency-Key, and writes the key together with the payment into the store that all workers share.

import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';

const store = process.env.STORE;

async function read(path, otherwise) {
  const found = await fetch(store + path);
  return found.ok ? found.json() : otherwise;
}

createServer(async (request, response) => {
  const payments = await read(request.url, {});
  if (request.method === 'POST') {
    payments[request.headers['idempotency-key']] ??= (await json(request)).amount;
    await fetch(store + request.url, { method: 'PUT', body: JSON.stringify(payments) });
  }
  const paid = Object.values(payments).reduce((sum, amount) => sum + amount, 0);
  response.setHeader('Content-Type', 'application/json').end(JSON.stringify({ paid }));
}).listen(process.env.PORT, '127.0.0.1');
