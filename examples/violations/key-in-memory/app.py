"""Takes a payment once for each Idempotency-Key, and remembers the keys in a variable: sent again to another worker, it is taken twice."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

STORE = os.environ["STORE"]


def read(path, otherwise):
    try:
        with urlopen(STORE + path) as answer:
            return json.loads(answer.read())
    except HTTPError:
        return otherwise


def write(path, value):
    urlopen(Request(STORE + path, data=json.dumps(value).encode(), method="PUT")).close()


taken = set()


class App(BaseHTTPRequestHandler):
    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer({"paid": read(self.path, 0)})

    def do_POST(self):
        amount = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["amount"]
        key = self.headers["Idempotency-Key"]
        if key not in taken:
            taken.add(key)
            write(self.path, read(self.path, 0) + amount)
        self.answer({"paid": read(self.path, 0)})

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
