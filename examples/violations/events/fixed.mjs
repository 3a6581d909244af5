// News as server-sent events: what is posted is added to a log beside, which all workers read, and pass on to those who listen.

import { createServer } from 'node:http';

const LOG = `${process.env.STORE}/news`;

const listening = new Set();

function tell(text) {
  for (const response of listening) response.write(`data: ${text}\n\n`);
}

// At the first free place of the log: of several that try at once, one gets it.
async function add(text) {
  for (let number = 1; ; number += 1) {
    const added = await fetch(`${LOG}/${number}`, { method: 'PUT', body: text, headers: { 'If-None-Match': '*' } });
    if (added.status !== 412) return;
  }
}

// Tells what comes into the log.
async function follow() {
  for (let number = 1; ; ) {
    const entry = await fetch(`${LOG}/${number}`);
    const text = Buffer.from(await entry.arrayBuffer());
    if (entry.ok) {
      tell(text);
      number += 1;
    } else {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

async function body(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts);
}

const server = createServer(async (request, response) => {
  if (request.method === 'POST') {
    await add(await body(request));
    response.writeHead(202).end();
    return;
  }
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  response.flushHeaders();
  listening.add(response);
  response.on('close', () => listening.delete(response));
});
server.listen(process.env.PORT, '127.0.0.1');
follow();
