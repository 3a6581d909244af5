// Writes the lines of an order before it notes that the order is there: who is killed in between leaves nothing that anybody sees.

import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

const store = process.env.STORE;
const read = (path) => fetch(store + path);
const write = (path, body) => fetch(store + path, { method: 'PUT', body });

createServer(async (request, response) => {
  if (request.method === 'PUT') {
    const lines = await text(request);
    if (!(await read('/ordered' + request.url)).ok) {
      await write('/lines' + request.url, lines);
      await write('/ordered' + request.url, 'yes');
    }
    response.end('ordered');
  } else if (request.url === '/') {
    response.end('welcome');
  } else {
    const lines = await read('/lines' + request.url);
    response.writeHead(lines.status).end(lines.ok ? await lines.text() : 'an order of nothing');
  }
}).listen(process.env.PORT, '127.0.0.1');
