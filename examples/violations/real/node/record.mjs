// Signs in at a service with Chromium, and keeps what Playwright records of it: node record.mjs FILE COMMAND…
import { execFileSync, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { chromium } from 'playwright-core';

const [file, command, ...words] = process.argv.slice(2);
const port = await new Promise((known) => {
  const free = createServer().listen(0, '127.0.0.1', () => {
    const { port } = free.address();
    free.close(() => known(port));
  });
});
const service = spawn(command, words, { env: { ...process.env, PORT: port }, stdio: 'inherit' });
service.once('exit', () => process.exit(1));
process.once('exit', () => service.kill('SIGKILL'));
setTimeout(() => {
  console.error('the browser has recorded nothing for a minute');
  process.exit(1);
}, 60_000).unref();
const listens = () => new Promise((said) => {
  const socket = connect(port, '127.0.0.1', () => said(true)).once('error', () => said(false));
  socket.unref();
});
while (!(await listens())) await new Promise((later) => setTimeout(later, 20));

const executablePath = execFileSync('sh', ['-c', 'command -v chromium'], { encoding: 'utf8' }).trim();
const browser = await chromium.launch({ executablePath, args: process.getuid() === 0 ? ['--no-sandbox'] : [] });
rmSync(file, { force: true });
const context = await browser.newContext({ recordHar: { path: file } });
const page = await context.newPage();
await page.goto(`http://127.0.0.1:${port}/`);
// The services have no forms: what a form of this page would send.
await page.evaluate(() => {
  const form = Object.assign(document.createElement('form'), { method: 'post', action: '/sign-in' });
  form.append(Object.assign(document.createElement('input'), { name: 'name', value: 'ada' }));
  document.body.append(form);
  form.submit();
});
await page.waitForURL('**/me');
await page.reload();
await context.close();
await browser.close();
process.exit(0);
