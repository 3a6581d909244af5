// Looks at its start whether the tables are there, and makes them if not; that another worker was faster is as good.

import { createServer } from 'node:http';

const tables = process.env.STORE + '/tables';

async function make() {
  // As CREATE TABLE IF NOT EXISTS does, this leaves alone what is there by now.
  const made = await fetch(tables, { method: 'PUT', body: 'version 1', headers: { 'If-None-Match': '*' } });
  if (!made.ok && made.status !== 412) throw new Error(`the tables cannot be made: ${made.status}`);
}

if (!(await fetch(tables)).ok) await make();
createServer(async (request, response) => {
  response.end(await (await fetch(tables)).text());
}).listen(process.env.PORT, '127.0.0.1');
