// Sends bills each second, in the worker that is the first to say so in the store: one of them, however many there are.

import { createServer } from 'node:http';

const store = process.env.STORE;

async function sendBills() {
  const second = Math.floor(Date.now() / 1000);
  const turn = await fetch(`${store}/turns/${second}`, { method: 'PUT', headers: { 'If-None-Match': '*' } });
  if (turn.ok) await fetch(store + '/bills', { method: 'POST' });
}

createServer((request, response) => response.end('welcome')).listen(process.env.PORT, '127.0.0.1', () => {
  sendBills();
  setInterval(sendBills, 1000);
});
