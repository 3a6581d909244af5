"""Lets each user make three requests, and counts them in a store beside: three, however many workers there are."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

LIMIT = 3
STORE = os.environ["STORE"]


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with urlopen(Request(STORE + self.path, data=b"", method="POST")) as answer:
            allowed = int(answer.read()) <= LIMIT
        body = b"here you are" if allowed else b"too many requests"
        self.send_response(200 if allowed else 429)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
