// Keeps items in a variable: the next request may come to another worker, which does not have them.

import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';

const items = new Map();

async function write(id, item) {
  items.set(id, item);
}

async function read(id) {
  return items.get(id);
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
