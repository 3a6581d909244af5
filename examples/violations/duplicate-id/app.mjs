// Numbers orders by a variable: users of different workers are given the same number, and one's order takes the place of the other's.

import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';

const store = process.env.STORE;
let last = 0;

async function nextNumber() {
  return ++last;
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
