//! A git server over HTTP that asks for a login: git's own `http-backend`, behind a few lines of Python.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context;

/// The login, as it stands in a URL and as it is sent (RFC 7617).
const LOGIN: &str = "me:hunter2";
const BASIC: &str = "Basic bWU6aHVudGVyMg==";

/// Answers for the repositories in a folder; prints its port first. Its file `asked` gets a line for each question.
const PROGRAM: &str = "\
import http.server, os, subprocess, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def answer(self, status, fields, body):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        got = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        if self.headers.get('Authorization') != sys.argv[2]:
            return self.answer(401, [('WWW-Authenticate', 'Basic realm=\"git\"')], b'')
        print(self.command, self.path, file=open('asked', 'a'), flush=True)
        path, _, query = self.path.partition('?')
        env = dict(os.environ, GIT_PROJECT_ROOT=sys.argv[1], GIT_HTTP_EXPORT_ALL='1', PATH_INFO=path,
            QUERY_STRING=query, REQUEST_METHOD=self.command, CONTENT_LENGTH=str(len(got)), REMOTE_USER='me',
            CONTENT_TYPE=self.headers.get('Content-Type', ''), GIT_PROTOCOL=self.headers.get('Git-Protocol', ''),
            HTTP_CONTENT_ENCODING=self.headers.get('Content-Encoding', ''))
        output = subprocess.run(['git', 'http-backend'], input=got, env=env, stdout=subprocess.PIPE).stdout
        head, _, body = output.partition(b'\\r\\n\\r\\n')
        fields = [line.split(': ', 1) for line in head.decode().split('\\r\\n')]
        status = int(dict(fields).get('Status', '200').split()[0])
        self.answer(status, [field for field in fields if field[0] != 'Status'], body)

    do_POST = do_GET

    def log_message(self, *arguments):
        pass

server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
";

/// A running server; killed when dropped.
pub struct GitServer {
    child: Child,
    port: u16,
}

impl GitServer {
    /// Serves the repositories in `folder`.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut python = Command::new("python3");
        python.arg("-c").arg(PROGRAM).arg(folder).arg(BASIC).current_dir(folder);
        let mut child = python.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        Ok(Self { child, port: line.trim().parse().context("it prints its port")? })
    }

    /// The URL of a repository, with the login in it.
    pub fn url(&self, repository: &str) -> String {
        format!("http://{LOGIN}@127.0.0.1:{}/{repository}", self.port)
    }

    /// What nobody may see.
    pub const PASSWORD: &str = "hunter2";
}

impl Drop for GitServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
