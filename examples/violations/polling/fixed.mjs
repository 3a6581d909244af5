// A room whose messages are in a store beside. How far a reader has come is in the cursor that it is given and sends again, so that it may
// poll at any worker.

import { createServer } from 'node:http';

const store = process.env.STORE;

// At the first free place: of several that try at once, one gets it.
async function say(room, text) {
  for (let number = 0; ; number += 1) {
    const added = await fetch(`${store}${room}/${number}`, { method: 'PUT', body: text, headers: { 'If-None-Match': '*' } });
    if (added.status !== 412) return;
  }
}

// All messages from this place on.
async function said(room, since) {
  const messages = [];
  for (;;) {
    const message = await fetch(`${store}${room}/${since + messages.length}`);
    const text = await message.text();
    if (!message.ok) return messages;
    messages.push(text);
  }
}

async function body(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts);
}

createServer(async (request, response) => {
  const url = new URL(request.url, 'http://localhost');
  if (request.method === 'POST') {
    await say(url.pathname, await body(request));
    response.writeHead(201).end();
    return;
  }
  const cursor = url.searchParams.get('cursor');
  const messages = await said(url.pathname, Number(cursor));
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify({ messages: cursor ? messages : [], cursor: String(Number(cursor) + messages.length) }));
}).listen(process.env.PORT, '127.0.0.1');
