// Keeps uploaded photos in a folder beside itself: a worker on another machine does not have them.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { basename, join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

const uploads = fileURLToPath(new URL('uploads', import.meta.url));

createServer(async (request, response) => {
  const photo = join(uploads, basename(request.url));
  if (request.method === 'PUT') {
    mkdirSync(uploads, { recursive: true });
    writeFileSync(photo, await buffer(request));
    response.writeHead(201).end();
  } else if (request.url === '/') {
    response.end('welcome');
  } else {
    try {
      response.end(readFileSync(photo));
    } catch {
      response.writeHead(404).end();
    }
  }
}).listen(process.env.PORT, '127.0.0.1');
