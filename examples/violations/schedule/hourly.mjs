// Sends bills at each full hour, as cron's `0 * * * *`, in each worker: three workers send each bill three times.

import { createServer } from 'node:http';

const store = process.env.STORE;
let last = new Date().getHours();

// As node-cron does: looks at the clock again and again.
setInterval(() => {
  const now = new Date();
  if (now.getHours() === last) return;
  last = now.getHours();
  fetch(store + '/bills', { method: 'POST' });
}, 250);

createServer(async (request, response) => {
  const text = await fetch(store + '/welcome');
  response.end(text.ok ? await text.text() : 'welcome');
}).listen(process.env.PORT, '127.0.0.1');
