"""Makes reports, which takes half a second; at SIGTERM it takes no more requests, and ends when all reports are made."""

import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class App(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/reports/"):
            time.sleep(0.5)
        body = ("welcome to " + self.path).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # Threads that are at work are waited for.
    daemon_threads = False


server = Server(("127.0.0.1", int(os.environ["PORT"])), App)
# It waits for the loop that this interrupts, so it needs a thread of its own.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
