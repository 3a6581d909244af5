// Chat over WebSockets: what one says is added to a log beside, which all workers read, and pass on to those who are connected.

import { createHash } from 'node:crypto';
import { createServer } from 'node:http';

const LOG = `${process.env.STORE}/chat`;
const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const CLOSE = 8;

const connected = new Set();

// Messages are short: a length of more than 125 bytes has another form.
function tell(text) {
  for (const socket of connected) socket.write(Buffer.concat([Buffer.from([0x81, text.length]), text]));
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

const server = createServer((request, response) => response.end('welcome'));
server.on('upgrade', (request, socket) => {
  const accept = createHash('sha1').update(request.headers['sec-websocket-key'] + GUID).digest('base64');
  const fields = ['Upgrade: websocket', 'Connection: Upgrade', `Sec-WebSocket-Accept: ${accept}`];
  socket.write(`HTTP/1.1 101 Switching Protocols\r\n${fields.join('\r\n')}\r\n\r\n`);
  connected.add(socket);
  socket.on('close', () => connected.delete(socket));
  socket.on('error', () => socket.destroy());
  let bytes = Buffer.alloc(0);
  socket.on('data', (more) => {
    bytes = Buffer.concat([bytes, more]);
    while (bytes.length >= 2 && bytes.length >= 6 + (bytes[1] & 0x7f)) {
      const end = 6 + (bytes[1] & 0x7f);
      const [kind, mask, masked] = [bytes[0] & 0x0f, bytes.subarray(2, 6), bytes.subarray(6, end)];
      bytes = bytes.subarray(end);
      if (kind === CLOSE) return socket.end();
      add(masked.map((byte, at) => byte ^ mask[at % 4]));
    }
  });
});
server.listen(process.env.PORT, '127.0.0.1');
follow();
