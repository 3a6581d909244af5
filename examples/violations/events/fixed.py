"""News as server-sent events: what is posted is added to a log beside, which all workers read, and pass on to those who listen."""

import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

LOG = os.environ["STORE"] + "/news"

listening, lock = [], Lock()


def tell(text):
    """To all who listen here."""
    with lock:
        for file in listening:
            try:
                file.write(b"data: " + text + b"\n\n")
                file.flush()
            except OSError:
                pass  # It has gone, and its own thread takes it off the list.


def add(text):
    """At the first free place of the log: of several that try at once, one gets it."""
    number = 1
    while not put(f"{LOG}/{number}", text):
        number += 1


def put(url, text):
    try:
        urlopen(Request(url, data=text, method="PUT", headers={"If-None-Match": "*"})).close()
        return True
    except HTTPError as error:
        if error.code != 412:
            raise
        return False


def follow():
    """Tells what comes into the log."""
    number = 1
    while True:
        try:
            with urlopen(f"{LOG}/{number}") as entry:
                tell(entry.read())
            number += 1
        except HTTPError:
            time.sleep(0.05)


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        # Nothing is told between the answer and the list: who has the answer hears all that is told from then on.
        with lock:
            self.end_headers()
            listening.append(self.wfile)
        # Nothing more is said by who listens, until it has gone.
        self.rfile.read(1)
        with lock:
            listening.remove(self.wfile)

    def do_POST(self):
        add(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


Thread(target=follow, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
