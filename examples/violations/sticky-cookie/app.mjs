// Sets a cookie that names its worker, so that whatever is in front may send users back there.

import { createServer } from 'node:http';
import { hostname } from 'node:os';

createServer((request, response) => {
  response.writeHead(200, { 'Set-Cookie': `route=${hostname()}; Path=/; HttpOnly` }).end('welcome');
}).listen(process.env.PORT, '127.0.0.1');
