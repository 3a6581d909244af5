// Sets a cookie that says what its user likes, and nothing of the worker.

import { createServer } from 'node:http';

createServer((request, response) => {
  response.writeHead(200, { 'Set-Cookie': 'theme=dark; Path=/' }).end('welcome');
}).listen(process.env.PORT, '127.0.0.1');
