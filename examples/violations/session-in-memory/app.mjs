// Keeps who has signed in in a variable: the next request may come to another worker, which does not know.

import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

const sessions = new Map();

createServer(async (request, response) => {
  if (request.method === 'POST') {
    const form = new URLSearchParams(await text(request));
    const session = randomBytes(16).toString('hex');
    sessions.set(session, form.get('name'));
    response.writeHead(303, { 'Set-Cookie': `session=${session}; HttpOnly`, Location: '/me' }).end();
  } else if (request.url === '/') {
    response.end('welcome');
  } else {
    const name = sessions.get((request.headers.cookie ?? '').replace('session=', ''));
    response.writeHead(name ? 200 : 401).end(name ? `hello ${name}` : 'sign in first');
  }
}).listen(process.env.PORT, '127.0.0.1');
