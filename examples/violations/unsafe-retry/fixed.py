"""Keeps each deposit by its name, and adds them up when it is asked: the same PUT twice is one deposit."""

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
        self.answer({"balance": sum(read(self.path, {}).values())})

    def do_PUT(self):
        amount = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["amount"]
        account, name = self.path.split("/deposits/")
        deposits = {**read(account, {}), name: amount}
        write(account, deposits)
        self.answer({"balance": sum(deposits.values())})

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
