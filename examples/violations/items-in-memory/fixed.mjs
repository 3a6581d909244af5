// Keeps items in a store beside, which all workers have.

import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';

const store = process.env.STORE;

async function write(id, item) {
  await fetch(`${store}/items/${id}`, { method: 'PUT', body: JSON.stringify(item) });
}

async function read(id) {
  const item = await fetch(`${store}/items/${id}`);
  return item.ok ? item.json() : undefined;
}

createServer(async (request, response) => {
  const answer = (status, value) =>
    response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));
  if (request.method === 'POST') {
    const item = { ...(await json(request)), id: randomBytes(8).toString('hex') };
    await write(item.id, item);
    return answer(201, item);
  }
  const id = request.url.replace('/items/', '');
  const item = await read(id);
  if (!item) return answer(404, { error: 'no such item' });
  if (request.method === 'DELETE') {
    await write(id, null);
    return response.writeHead(204).end();
  }
  if (request.method === 'PUT') {
    Object.assign(item, await json(request));
    await write(id, item);
  }
  answer(200, item);
}).listen(process.env.PORT, '127.0.0.1');
