"""A room whose messages are in a store beside; but how far each reader has come is in a variable. Who polls at another worker is taken for
somebody new, who hears what is said from now on, and misses what was said before."""

import json
import os
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

STORE = os.environ["STORE"]

# How many messages each cursor has read.
positions = {}


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
        cursor = parse_qs(url.query).get("cursor", [secrets.token_hex(8)])[0]
        if cursor in positions:
            messages = said(url.path, positions[cursor])
            positions[cursor] += len(messages)
        else:
            messages = []
            positions[cursor] = len(said(url.path, 0))
        self.answer(200, json.dumps({"messages": messages, "cursor": cursor}).encode())

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
