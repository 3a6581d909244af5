// multer with its storage on the disk, which only this worker has.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import express from 'express';
import multer from 'multer';

const folder = join(import.meta.dirname, 'uploads');
mkdirSync(folder, { recursive: true });
const storage = multer.diskStorage({ destination: folder, filename: (request, file, done) => done(null, request.params.name) });
const app = express();
app.get('/', (request, response) => response.send('welcome'));
app.post('/photos/:name', multer({ storage }).single('photo'), (request, response) => response.sendStatus(201));
app.get('/photos/:name', (request, response) => response.sendFile(request.params.name, { root: folder }));
app.listen(process.env.PORT, '127.0.0.1');
