// News as server-sent events: what is posted goes to those alone who listen at the same worker.

import { createServer } from 'node:http';

const listening = new Set();

function tell(text) {
  for (const response of listening) response.write(`data: ${text}\n\n`);
}

async function body(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts);
}

const server = createServer(async (request, response) => {
  if (request.method === 'POST') {
    await tell(await body(request));
    response.writeHead(202).end();
    return;
  }
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  response.flushHeaders();
  listening.add(response);
  response.on('close', () => listening.delete(response));
});
server.listen(process.env.PORT, '127.0.0.1');
