"""Takes a payment once for each Idempotency-Key, and writes the key together with the payment into the store that all workers share."""

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


class App(BaseHTTPRequestHandler):
    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer({"paid": sum(read(self.path, {}).values())})

    def do_POST(self):
        amount = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["amount"]
        payments = read(self.path, {})
        payments.setdefault(self.headers["Idempotency-Key"], amount)
        write(self.path, payments)
        self.answer({"paid": sum(payments.values())})

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
