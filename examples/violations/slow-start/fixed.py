"""Loads its catalogue before it listens: nobody is sent to a worker that does not have it."""

import functools
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@functools.cache
def catalogue():
    time.sleep(0.8)
    return b"ink, paper"


class App(BaseHTTPRequestHandler):
    def do_GET(self):
        body = catalogue()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # Threads that are at work are waited for.
    daemon_threads = False


catalogue()
server = Server(("127.0.0.1", int(os.environ["PORT"])), App)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
