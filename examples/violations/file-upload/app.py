"""Keeps uploaded photos in a folder beside itself: a worker on another machine does not have them."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

UPLOADS = Path(__file__).parent / "uploads"


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        UPLOADS.mkdir(exist_ok=True)
        (UPLOADS / Path(self.path).name).write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(201)

    def do_GET(self):
        if self.path == "/":
            return self.answer(200, b"welcome")
        photo = UPLOADS / Path(self.path).name
        self.answer(200, photo.read_bytes()) if photo.exists() else self.answer(404)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
