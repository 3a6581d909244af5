"""Keeps uploaded photos in a store beside, which all workers have."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

STORE = os.environ["STORE"]


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        urlopen(Request(STORE + self.path, data=body, method="PUT")).close()
        self.answer(201)

    def do_GET(self):
        if self.path == "/":
            return self.answer(200, b"welcome")
        try:
            with urlopen(STORE + self.path) as photo:
                self.answer(200, photo.read())
        except HTTPError as error:
            self.answer(error.code)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
