// A small service: answers at once, or writes a file and reads it back, or adds a line to a log, or asks something beside.

import { createServer } from 'node:http';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';

const beside = process.env.BESIDE;
let count = 0;

const answers = {
  '/': () => 'welcome',
  '/file': () => {
    const name = `session-${count++ % 100}.txt`;
    writeFileSync(name, 'ada');
    return readFileSync(name, 'utf8');
  },
  '/log': () => {
    appendFileSync('app.log', 'a line\n');
    return 'noted';
  },
  '/random': () => crypto.randomUUID(),
  '/beside': async () => (await fetch(beside)).text(),
};

createServer(async (request, response) => response.end(await answers[request.url]())).listen(process.env.PORT, '127.0.0.1');
