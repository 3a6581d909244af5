"""Sends bills at each full hour, in each worker: three workers send each bill three times. Nothing is seen of it for an hour."""

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

STORE = os.environ["STORE"]


def send_bills():
    while True:
        time.sleep(3600 - time.time() % 3600)
        urlopen(Request(STORE + "/bills", data=b"", method="POST")).close()


class App(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            text = urlopen(STORE + "/welcome").read()
        except HTTPError:
            text = b"welcome"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App)
threading.Thread(target=send_bills, daemon=True).start()
server.serve_forever()
