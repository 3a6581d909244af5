"""News as server-sent events: what is posted goes to those alone who listen at the same worker."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

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
        tell(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
