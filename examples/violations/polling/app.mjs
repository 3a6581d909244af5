// A room whose messages are in a store beside; but how far each reader has come is in a variable. Who polls at another worker is taken for
// somebody new, who hears what is said from now on, and misses what was said before.

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

const store = process.env.STORE;
// How many messages each cursor has read.
const positions = new Map();

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
  const cursor = url.searchParams.get('cursor') ?? randomUUID();
  const since = positions.get(cursor);
  const messages = await said(url.pathname, since ?? 0);
  positions.set(cursor, (since ?? 0) + messages.length);
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify({ messages: since === undefined ? [] : messages, cursor }));
}).listen(process.env.PORT, '127.0.0.1');
