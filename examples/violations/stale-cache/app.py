"""Keeps prices in a store beside, and what it has read in a variable: it never hears that another worker has changed one."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

STORE = os.environ["STORE"]
cache = {}


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        price = self.rfile.read(int(self.headers["Content-Length"]))
        urlopen(Request(STORE + self.path, data=price, method="PUT")).close()
        cache[self.path] = price
        self.answer(204)

    def do_GET(self):
        if self.path not in cache:
            try:
                with urlopen(STORE + self.path) as price:
                    cache[self.path] = price.read()
            except HTTPError:
                cache[self.path] = b"no price yet"
        self.answer(200, cache[self.path])

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
