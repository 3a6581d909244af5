// express-session with the store that it has when none is given: the memory of one worker.

import express from 'express';
import session from 'express-session';

const app = express();
app.use(session({ secret: 'only for this example', resave: false, saveUninitialized: false }));
app.use(express.urlencoded());
app.get('/', (request, response) => response.send('welcome'));
app.post('/sign-in', (request, response) => {
  request.session.name = request.body.name;
  response.redirect(303, '/me');
});
app.get('/me', (request, response) =>
  request.session.name ? response.send(`hello ${request.session.name}`) : response.status(401).send('sign in first'),
);
app.listen(process.env.PORT, '127.0.0.1');
