// Sends bills each second, in each worker: three workers send each bill three times.

import { createServer } from 'node:http';

const store = process.env.STORE;
const sendBills = () => fetch(store + '/bills', { method: 'POST' });

createServer((request, response) => response.end('welcome')).listen(process.env.PORT, '127.0.0.1', () => {
  sendBills();
  setInterval(sendBills, 1000);
});
