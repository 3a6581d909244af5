// Sends bills at each full hour, as cron's `0 * * * *`, in the worker that is the first to say so in the store: one of them, however many
// there are.

import { createServer } from 'node:http';

const store = process.env.STORE;
const hourOf = (now) => Math.floor(now / 3_600_000);
let last = hourOf(Date.now());

async function sendBills(hour) {
  const turn = await fetch(`${store}/turns/${hour}`, { method: 'PUT', headers: { 'If-None-Match': '*' } });
  if (turn.ok) await fetch(store + '/bills', { method: 'POST' });
}

// As node-cron does: looks at the clock again and again.
setInterval(() => {
  const hour = hourOf(Date.now());
  if (hour === last) return;
  last = hour;
  sendBills(hour);
}, 250);

createServer(async (request, response) => {
  const text = await fetch(store + '/welcome');
  response.end(text.ok ? await text.text() : 'welcome');
}).listen(process.env.PORT, '127.0.0.1');
