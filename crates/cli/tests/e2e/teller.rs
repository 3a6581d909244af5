//! A service in plain Python that tells who answers: its service, its worker, the variable `WORD`, and what it got. It
//! listens where it is told to, on a port or on a unix socket.

use crate::visitor::Page;

/// The program. On a unix socket, 5 connections may wait to be accepted.
pub const PROGRAM: &str = "\
import http.server, os, socketserver

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        got = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        names = ' '.join(os.environ.get(key, '-') for key in ['LETHE_SERVICE', 'LETHE_INSTANCE', 'WORD'])
        body = names.encode() + b' ' + got
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *arguments):
        pass

class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

if 'SOCKET' in os.environ:
    assert 'PORT' not in os.environ
    server = UnixServer(os.environ['SOCKET'], Handler)
else:
    server = http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler)
server.serve_forever()
";

/// What one of its pages says.
#[derive(Debug)]
pub struct Told<'a> {
    pub service: &'a str,
    pub word: &'a str,
    pub got: &'a str,
}

impl<'a> Told<'a> {
    pub fn by(page: &'a Page) -> anyhow::Result<Self> {
        let words: Vec<&str> = page.text().splitn(4, ' ').collect();
        let &[service, _, word, got] = &words[..] else { anyhow::bail!("{page:?}") };
        Ok(Self { service, word, got })
    }
}
