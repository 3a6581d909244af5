"""Does a job before it says that it was begun, and writes the result to a store beside, where all workers read it."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

STORE = os.environ["STORE"]


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        urlopen(Request(STORE + self.path, data=b"42", method="PUT")).close()
        self.answer(202, b"begun")

    def do_GET(self):
        try:
            with urlopen(STORE + self.path) as result:
                self.answer(200, result.read())
        except HTTPError:
            self.answer(404, b"not yet")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
