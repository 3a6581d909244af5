// Chat over WebSockets: what one says goes to those alone who are connected to the same worker.

import { createHash } from 'node:crypto';
import { createServer } from 'node:http';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const CLOSE = 8;

const connected = new Set();

// Messages are short: a length of more than 125 bytes has another form.
function tell(text) {
  for (const socket of connected) socket.write(Buffer.concat([Buffer.from([0x81, text.length]), text]));
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
      tell(masked.map((byte, at) => byte ^ mask[at % 4]));
    }
  });
});
server.listen(process.env.PORT, '127.0.0.1');
