"""Sends bills each second, in each worker: three workers send each bill three times."""

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

STORE = os.environ["STORE"]


def send_bills():
    while True:
        urlopen(Request(STORE + "/bills", data=b"", method="POST")).close()
        time.sleep(1)


class App(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"welcome")

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App)
threading.Thread(target=send_bills, daemon=True).start()
server.serve_forever()
