// Lets each user make three requests, and counts them in a store beside: three, however many workers there are.

import { createServer } from 'node:http';

const limit = 3;
const store = process.env.STORE;

createServer(async (request, response) => {
  const counted = await fetch(store + request.url, { method: 'POST' });
  const allowed = Number(await counted.text()) <= limit;
  response.writeHead(allowed ? 200 : 429).end(allowed ? 'here you are' : 'too many requests');
}).listen(process.env.PORT, '127.0.0.1');
