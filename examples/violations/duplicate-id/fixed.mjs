// Asks the store for the number of an order: no other one has it, whichever worker its user was sent to.

import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';

const store = process.env.STORE;

async function nextNumber() {
  const number = await fetch(`${store}/numbers`, { method: 'POST' });
  return Number(await number.text());
}

createServer(async (request, response) => {
  if (request.method === 'POST') {
    const order = JSON.stringify({ ...(await json(request)), id: await nextNumber() });
    await fetch(`${store}/orders/${JSON.parse(order).id}`, { method: 'PUT', body: order });
    response.writeHead(201, { 'Content-Type': 'application/json' }).end(order);
  } else if (request.url === '/') {
    response.end('welcome');
  } else {
    const order = await fetch(store + request.url);
    response.writeHead(order.status, { 'Content-Type': 'application/json' }).end(await order.text());
  }
}).listen(process.env.PORT, '127.0.0.1');
