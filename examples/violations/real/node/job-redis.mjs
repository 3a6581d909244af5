// bullmq carries jobs to any worker, and Redis keeps what comes of them, which all workers can ask for.

import { Queue, Worker } from 'bullmq';
import express from 'express';

const { hostname, port } = new URL(process.env.REDIS_URL);
const connection = { host: hostname, port: Number(port), maxRetriesPerRequest: null };
const queue = new Queue('squares', { connection });
// A job whose worker was killed is another one's after a second: with the 30 s that it is otherwise, its user would see that.
new Worker('squares', async () => 'done', { connection, lockDuration: 1000, stalledInterval: 500 });

const app = express();
app.get('/', (request, response) => response.send('welcome'));
app.post('/jobs/:name', async (request, response) => {
  await queue.add('square', {}, { jobId: `square-${request.params.name}` });
  response.sendStatus(202);
});
app.get('/jobs/:name', async (request, response) => {
  const job = await queue.getJob(`square-${request.params.name}`);
  const result = job?.returnvalue;
  response.status(result ? 200 : 404).send(result ?? '');
});
app.listen(process.env.PORT, '127.0.0.1');
