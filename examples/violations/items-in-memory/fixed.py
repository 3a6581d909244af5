"""Keeps items in a store beside, which all workers have."""

import json
import os
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

STORE = os.environ["STORE"]


def write(name, item):
    urlopen(Request(f"{STORE}/items/{name}", data=json.dumps(item).encode(), method="PUT")).close()


def read(name):
    try:
        with urlopen(f"{STORE}/items/{name}") as item:
            return json.loads(item.read())
    except HTTPError:
        return None


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, value=None):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_POST(self):
        item = self.body() | {"id": secrets.token_hex(8)}
        write(item["id"], item)
        self.answer(201, item)

    def item(self):
        """The item that is asked for; answers itself if there is none."""
        item = read(self.path.removeprefix("/items/"))
        if item is None:
            self.answer(404, {"error": "no such item"})
        return item

    def do_GET(self):
        if item := self.item():
            self.answer(200, item)

    def do_PUT(self):
        body = self.body()
        if item := self.item():
            item |= body
            write(item["id"], item)
            self.answer(200, item)

    def do_DELETE(self):
        if item := self.item():
            write(item["id"], None)
            self.answer(204)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
