// express-rate-limit with the store that it has when none is given: each worker counts for itself.

import express from 'express';
import { rateLimit } from 'express-rate-limit';

const app = express();
app.use(rateLimit({ windowMs: 3_600_000, limit: 3, keyGenerator: (request) => request.path, legacyHeaders: false }));
app.get('/answers/:name', (request, response) => response.send('42'));
app.listen(process.env.PORT, '127.0.0.1');
