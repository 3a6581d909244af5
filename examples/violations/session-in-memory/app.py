"""Keeps who has signed in in a variable: the next request may come to another worker, which does not know."""

import os
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

sessions = {}


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
        session = secrets.token_hex(16)
        sessions[session] = form["name"][0]
        self.answer(303, "", [("Set-Cookie", f"session={session}; HttpOnly"), ("Location", "/me")])

    def do_GET(self):
        if self.path == "/":
            return self.answer(200, "welcome")
        session = self.headers.get("Cookie", "").removeprefix("session=")
        name = sessions.get(session)
        self.answer(200, f"hello {name}") if name else self.answer(401, "sign in first")

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
