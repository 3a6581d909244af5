"""A room whose messages are in a store beside. How far a reader has come is in the cursor that it is given and sends again, so that it may
poll at any worker."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

STORE = os.environ["STORE"]


def say(room, text):
    """At the first free place: of several that try at once, one gets it."""
    number = 0
    while not put(f"{STORE}{room}/{number}", text):
        number += 1


def put(url, text):
    try:
        urlopen(Request(url, data=text, method="PUT", headers={"If-None-Match": "*"})).close()
        return True
    except HTTPError as error:
        if error.code != 412:
            raise
        return False


def said(room, since):
    """All messages from this place on."""
    messages = []
    while True:
        try:
            with urlopen(f"{STORE}{room}/{since + len(messages)}") as message:
                messages.append(message.read().decode())
        except HTTPError:
            return messages


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        since = parse_qs(url.query).get("cursor")
        if since:
            position = int(since[0])
            messages = said(url.path, position)
            position += len(messages)
        else:
            messages, position = [], len(said(url.path, 0))
        self.answer(200, json.dumps({"messages": messages, "cursor": str(position)}).encode())

    def do_POST(self):
        say(self.path, self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(201, b"")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
