"""Lets each user make three requests, and counts them in a variable: with three workers it is nine."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LIMIT = 3
counts = {}


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        counts[self.path] = counts.get(self.path, 0) + 1
        allowed = counts[self.path] <= LIMIT
        body = b"here you are" if allowed else b"too many requests"
        self.send_response(200 if allowed else 429)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
