// Keeps each deposit by its name, and adds them up when it is asked: the same PUT twice is one deposit.

import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';

const store = process.env.STORE;

async function read(path, otherwise) {
  const found = await fetch(store + path);
  return found.ok ? found.json() : otherwise;
}

createServer(async (request, response) => {
  const [account, name] = request.url.split('/deposits/');
  const deposits = await read(account, {});
  if (request.method === 'PUT') {
    deposits[name] = (await json(request)).amount;
    await fetch(store + account, { method: 'PUT', body: JSON.stringify(deposits) });
  }
  const balance = Object.values(deposits).reduce((sum, amount) => sum + amount, 0);
  response.setHeader('Content-Type', 'application/json').end(JSON.stringify({ balance }));
}).listen(process.env.PORT, '127.0.0.1');
