// Keeps uploaded photos in a store beside, which all workers have.

import { createServer } from 'node:http';
import { buffer } from 'node:stream/consumers';

const store = process.env.STORE;

createServer(async (request, response) => {
  if (request.method === 'PUT') {
    await fetch(store + request.url, { method: 'PUT', body: await buffer(request) });
    response.writeHead(201).end();
  } else if (request.url === '/') {
    response.end('welcome');
  } else {
    const photo = await fetch(store + request.url);
    response.writeHead(photo.status).end(Buffer.from(await photo.arrayBuffer()));
  }
}).listen(process.env.PORT, '127.0.0.1');
