"""The same with a secret that comes from the environment, so that all workers have one."""

import hashlib
import hmac
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

SECRET = os.environ.get("SECRET", "only for this example").encode()


def signed(name):
    return name + "." + hmac.new(SECRET, name.encode(), hashlib.sha256).hexdigest()


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, text, headers=()):
        body = text.encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        cookie = f"session={signed(form['name'][0])}; HttpOnly"
        self.answer(303, "", [("Set-Cookie", cookie), ("Location", "/me")])

    def do_GET(self):
        if self.path == "/":
            return self.answer(200, "welcome")
        session = self.headers.get("Cookie", "").removeprefix("session=")
        name = session.partition(".")[0]
        known = hmac.compare_digest(session, signed(name))
        self.answer(200, f"hello {name}") if known else self.answer(401, "sign in first")

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
