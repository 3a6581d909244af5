// Looks at its start whether the tables are there, and makes them if not. Of several workers that start at once, all find that they are
// not there, and all but one fail to make them.

import { createServer } from 'node:http';

const tables = process.env.STORE + '/tables';

async function make() {
  // As CREATE TABLE does, this fails if they are there by now.
  const made = await fetch(tables, { method: 'PUT', body: 'version 1', headers: { 'If-None-Match': '*' } });
  if (!made.ok) throw new Error(`the tables cannot be made: ${made.status}`);
}

if (!(await fetch(tables)).ok) await make();
createServer(async (request, response) => {
  response.end(await (await fetch(tables)).text());
}).listen(process.env.PORT, '127.0.0.1');
