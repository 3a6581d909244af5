"""Asks the store for the number of an order: no other one has it, whichever worker its user was sent to."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

STORE = os.environ["STORE"]


def next_number():
    with urlopen(Request(f"{STORE}/numbers", data=b"", method="POST")) as number:
        return int(number.read())


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"]))) | {"id": next_number()}
        body = json.dumps(order).encode()
        urlopen(Request(f"{STORE}/orders/{order['id']}", data=body, method="PUT")).close()
        self.answer(201, body)

    def do_GET(self):
        if self.path == "/":
            return self.answer(200, b'"welcome"')
        with urlopen(STORE + self.path) as order:
            self.answer(200, order.read())

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
