// The same with a secret that comes from the environment, so that all workers have one.

import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

const secret = process.env.SECRET ?? 'only for this example';
const signed = (name) => `${name}.${createHmac('sha256', secret).update(name).digest('hex')}`;

createServer(async (request, response) => {
  if (request.method === 'POST') {
    const form = new URLSearchParams(await text(request));
    response.writeHead(303, { 'Set-Cookie': `session=${signed(form.get('name'))}; HttpOnly`, Location: '/me' }).end();
  } else if (request.url === '/') {
    response.end('welcome');
  } else {
    const session = (request.headers.cookie ?? '').replace('session=', '');
    const [name] = session.split('.');
    const known = session === signed(name);
    response.writeHead(known ? 200 : 401).end(known ? `hello ${name}` : 'sign in first');
  }
}).listen(process.env.PORT, '127.0.0.1');
