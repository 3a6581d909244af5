// Lets each user make three requests, and counts them in a variable: with three workers it is nine.

import { createServer } from 'node:http';

const limit = 3;
const counts = new Map();

createServer((request, response) => {
  const count = (counts.get(request.url) ?? 0) + 1;
  counts.set(request.url, count);
  const allowed = count <= limit;
  response.writeHead(allowed ? 200 : 429).end(allowed ? 'here you are' : 'too many requests');
}).listen(process.env.PORT, '127.0.0.1');
