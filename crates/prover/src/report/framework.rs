//! What a service is made with, as far as its command and its folder show it, and how a finding is mended there.

use std::{fs::File, io::Read, path::Path};

use crate::finding::Kind;

/// Most bytes of a file that are looked at.
const READ_BYTES_MAX: u64 = 256 << 10;

/// Something that services are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    /// Express, on Node.js.
    Express,
    /// socket.io, on Node.js.
    SocketIo,
    /// Flask, on Python.
    Flask,
    /// Django, on Python.
    Django,
    /// PHP itself.
    Php,
}

/// Files that name what a service needs.
const LISTS: [&str; 4] = ["package.json", "requirements.txt", "pyproject.toml", "Pipfile"];

impl Framework {
    /// All of them, in the order in which they are looked for.
    pub const ALL: [Self; 5] = [Self::Express, Self::SocketIo, Self::Flask, Self::Django, Self::Php];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Express => "Express",
            Self::SocketIo => "socket.io",
            Self::Flask => "Flask",
            Self::Django => "Django",
            Self::Php => "PHP",
        }
    }

    /// Recognises it by the program, by the files that the command names, and by what the folder says that is needed.
    pub fn recognise(command: &[String], folder: &Path) -> Option<Self> {
        let program = Path::new(command.first()?).file_name()?.to_string_lossy().into_owned();
        if program.starts_with("php") || command.iter().any(|word| word.ends_with(".php")) {
            return Some(Self::Php);
        }
        let of_command = command.iter().skip(1).map(String::as_str).filter(|word| word.contains('.'));
        let files = of_command.chain(LISTS).map(|name| beginning(&folder.join(name)));
        let texts: Vec<String> = files.flatten().collect();
        Self::ALL.into_iter().find(|framework| texts.iter().any(|text| framework.is_used_in(text)))
    }

    fn is_used_in(self, text: &str) -> bool {
        let signs: &[&str] = match self {
            Self::Express => &[
                "\"express\":",
                "from 'express'",
                "from \"express\"",
                "require('express')",
                "require(\"express\")",
            ],
            Self::SocketIo => &[
                "\"socket.io\":",
                "from 'socket.io'",
                "from \"socket.io\"",
                "require('socket.io')",
                "require(\"socket.io\")",
            ],
            Self::Flask => &["from flask ", "import flask", "\nflask=", "\nflask\n", "\"flask"],
            Self::Django => &[
                "from django",
                "import django",
                "\ndjango=",
                "\ndjango\n",
                "\"django",
                "django_settings_module",
            ],
            Self::Php => &[],
        };
        signs.iter().any(|sign| text.contains(sign))
    }

    /// Lines that mend what a finding of this kind is about.
    pub fn snippet(self, kind: Kind) -> Option<&'static str> {
        Some(match (self, kind) {
            (Self::Express, Kind::Memory) => EXPRESS_SESSION,
            (Self::Express, Kind::File) => EXPRESS_UPLOAD,
            (Self::Express, Kind::BootSecret) => {
                "app.use(session({ secret: process.env.SESSION_SECRET, … }))"
            }
            (Self::Express, Kind::RateLimit) => EXPRESS_LIMIT,
            (Self::Express, Kind::Drain) => EXPRESS_DRAIN,
            (Self::Express, Kind::EventStream) => EXPRESS_EVENTS,
            (Self::Express | Self::SocketIo, Kind::Websocket) => SOCKET_IO_ADAPTER,
            (Self::SocketIo, Kind::Memory) => SOCKET_IO_TRANSPORT,
            (Self::Flask, Kind::Websocket) => FLASK_SOCKET_IO,
            (Self::Flask, Kind::EventStream) => FLASK_EVENTS,
            (Self::Django, Kind::Websocket) => DJANGO_CHANNELS,
            (Self::Flask, Kind::Memory) => FLASK_SESSION,
            (Self::Flask, Kind::File) => PYTHON_UPLOAD,
            (Self::Flask, Kind::BootSecret) => "app.secret_key = os.environ[\"SECRET_KEY\"]",
            (Self::Flask, Kind::RateLimit) => FLASK_LIMIT,
            (Self::Django, Kind::Memory) => "SESSION_ENGINE = \"django.contrib.sessions.backends.db\"",
            (Self::Django, Kind::File) => DJANGO_UPLOAD,
            (Self::Django, Kind::BootSecret) => "SECRET_KEY = os.environ[\"SECRET_KEY\"]",
            (Self::Django, Kind::RateLimit | Kind::StaleCache) => DJANGO_CACHE,
            (Self::Php, Kind::File | Kind::Memory) => PHP_SESSION,
            _ => return None,
        })
    }
}

const EXPRESS_DRAIN: &str = "\
const server = app.listen(process.env.PORT)
process.on('SIGTERM', () => {
  server.close()
  server.closeIdleConnections()
})";

const EXPRESS_EVENTS: &str = "\
const hear = await createClient({ url: process.env.REDIS_URL }).connect()
const tell = await hear.duplicate().connect()
const listening = new Set()
await hear.subscribe('news', (text) => listening.forEach((res) => res.write(`data: ${text}\\n\\n`)))
app.get('/events', (req, res) => {
  res.set('Content-Type', 'text/event-stream').flushHeaders()
  listening.add(res)
  res.on('close', () => listening.delete(res))
})
app.post('/news', async (req, res) => {
  await tell.publish('news', req.body.text)
  res.sendStatus(202)
})";

const SOCKET_IO_ADAPTER: &str = "\
import { createAdapter } from '@socket.io/redis-adapter'
import { createClient } from 'redis'

const tell = await createClient({ url: process.env.REDIS_URL }).connect()
const hear = await tell.duplicate().connect()
const io = new Server(server, { adapter: createAdapter(tell, hear) })";

const SOCKET_IO_TRANSPORT: &str = "\
// Sessions of long polling are in one worker alone; a WebSocket stays with its own. The same for clients.
const io = new Server(server, { transports: ['websocket'] })";

const EXPRESS_SESSION: &str = "\
import session from 'express-session'
import { RedisStore } from 'connect-redis'
import { createClient } from 'redis'

const client = await createClient({ url: process.env.REDIS_URL }).connect()
app.use(session({
  store: new RedisStore({ client }),
  secret: process.env.SESSION_SECRET,
  resave: false,
  saveUninitialized: false,
}))";

const EXPRESS_UPLOAD: &str = "\
import multer from 'multer'
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3'

const s3 = new S3Client()
const upload = multer({ storage: multer.memoryStorage() })
app.post('/photos/:name', upload.single('photo'), async (req, res) => {
  await s3.send(new PutObjectCommand({ Bucket: process.env.BUCKET, Key: req.params.name, Body: req.file.buffer }))
  res.sendStatus(201)
})";

const EXPRESS_LIMIT: &str = "\
import { rateLimit } from 'express-rate-limit'
import { RedisStore } from 'rate-limit-redis'

app.use(rateLimit({ limit: 100, store: new RedisStore({ sendCommand: (...words) => client.sendCommand(words) }) }))";

const FLASK_SESSION: &str = "\
from flask_session import Session

app.config.update(SESSION_TYPE=\"redis\", SESSION_REDIS=redis.from_url(os.environ[\"REDIS_URL\"]))
Session(app)";

const FLASK_SOCKET_IO: &str = "socketio = SocketIO(app, message_queue=os.environ[\"REDIS_URL\"])";

const FLASK_EVENTS: &str = "\
store = redis.from_url(os.environ[\"REDIS_URL\"])

@app.get(\"/events\")
def events():
    hear = store.pubsub(ignore_subscribe_messages=True)
    hear.subscribe(\"news\")
    return Response((f\"data: {each['data'].decode()}\\n\\n\" for each in hear.listen()), mimetype=\"text/event-stream\")

@app.post(\"/news\")
def news():
    store.publish(\"news\", request.get_data())
    return \"\", 202";

const DJANGO_CHANNELS: &str = "\
CHANNEL_LAYERS = {
    \"default\": {
        \"BACKEND\": \"channels_redis.core.RedisChannelLayer\",
        \"CONFIG\": {\"hosts\": [os.environ[\"REDIS_URL\"]]},
    },
}";

const FLASK_LIMIT: &str = "\
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

limiter = Limiter(get_remote_address, app=app, storage_uri=os.environ[\"REDIS_URL\"])";

const PYTHON_UPLOAD: &str = "\
s3 = boto3.client(\"s3\")
s3.upload_fileobj(request.files[\"photo\"], os.environ[\"BUCKET\"], name)";

const DJANGO_UPLOAD: &str = "\
STORAGES = {
    \"default\": {\"BACKEND\": \"storages.backends.s3.S3Storage\", \"OPTIONS\": {\"bucket_name\": os.environ[\"BUCKET\"]}},
    \"staticfiles\": {\"BACKEND\": \"django.contrib.staticfiles.storage.StaticFilesStorage\"},
}";

const DJANGO_CACHE: &str = "\
CACHES = {
    \"default\": {\"BACKEND\": \"django.core.cache.backends.redis.RedisCache\", \"LOCATION\": os.environ[\"REDIS_URL\"]},
}";

const PHP_SESSION: &str = "\
; php.ini, with the extension redis
session.save_handler = redis
session.save_path = \"tcp://redis:6379\"";

/// The beginning of a file in lower case, after a line end; `None` if there is none.
fn beginning(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    // A pipe or a device could keep its reader waiting.
    if !path.is_file() {
        return None;
    }
    File::open(path).ok()?.take(READ_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(format!("\n{}", String::from_utf8_lossy(&bytes).to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_is_known_by_its_command_or_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let recognise = |command: &[&str]| {
            let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            Framework::recognise(&command, folder.path())
        };
        assert_eq!(recognise(&["/usr/bin/php8.2", "-S", "127.0.0.1:8000"]), Some(Framework::Php));
        assert_eq!(recognise(&["python3", "app.py"]), None);
        fs::write(folder.path().join("app.py"), "from flask import Flask\n").unwrap();
        assert_eq!(recognise(&["python3", "app.py"]), Some(Framework::Flask));
        assert_eq!(recognise(&["node", "server.js"]), None);
        fs::write(folder.path().join("requirements.txt"), "Django==5.2\n").unwrap();
        assert_eq!(recognise(&["gunicorn", "site"]), Some(Framework::Django));
        fs::write(folder.path().join("package.json"), r#"{"dependencies": {"express": "^5"}}"#).unwrap();
        assert_eq!(recognise(&["node", "server.js"]), Some(Framework::Express));
        assert_eq!(recognise(&[]), None);
    }

    #[test]
    fn what_most_services_get_wrong_has_a_snippet_everywhere() {
        for framework in Framework::ALL {
            assert!(framework.snippet(Kind::Memory).is_some(), "{framework:?}");
            assert!(framework.snippet(Kind::Elsewhere).is_none(), "{framework:?}");
        }
    }
}
