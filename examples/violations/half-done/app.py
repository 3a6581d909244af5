"""Notes that there is an order before its lines are written: who is killed in between leaves an order that is done and has nothing in it."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

STORE = os.environ["STORE"]


def read(path):
    try:
        with urlopen(STORE + path) as answer:
            return answer.read()
    except HTTPError:
        return None


def write(path, body):
    urlopen(Request(STORE + path, data=body, method="PUT")).close()


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/":
            return self.answer(200, b"welcome")
        lines = read("/lines" + self.path)
        self.answer(404, b"an order of nothing") if lines is None else self.answer(200, lines)

    def do_PUT(self):
        lines = self.rfile.read(int(self.headers["Content-Length"]))
        if read("/ordered" + self.path) is None:
            write("/ordered" + self.path, b"yes")
            write("/lines" + self.path, lines)
        self.answer(200, b"ordered")

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
