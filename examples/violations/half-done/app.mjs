// Notes that there is an order before its lines are written: who is killed in between leaves an order that is done and has nothing in it.

import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

const store = process.env.STORE;
const read = (path) => fetch(store + path);
const write = (path, body) => fetch(store + path, { method: 'PUT', body });

createServer(async (request, response) => {
  if (request.method === 'PUT') {
    const lines = await text(request);
    if (!(await read('/ordered' + request.url)).ok) {
      await write('/ordered' + request.url, 'yes');
      await write('/lines' + request.url, lines);
    }
    response.end('ordered');
  } else if (request.url === '/') {
    response.end('welcome');
  } else {
    const lines = await read('/lines' + request.url);
    response.writeHead(lines.status).end(lines.ok ? await lines.text() : 'an order of nothing');
  }
}).listen(process.env.PORT, '127.0.0.1');
