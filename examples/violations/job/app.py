"""Does a job in the background and keeps its result in a variable: another worker never hears of it."""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

results = {}


def work(path):
    results[path] = b"42"


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        threading.Thread(target=work, args=[self.path]).start()
        self.answer(202, b"begun")

    def do_GET(self):
        result = results.get(self.path)
        self.answer(200 if result else 404, result or b"not yet")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
