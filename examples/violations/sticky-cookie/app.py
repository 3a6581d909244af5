"""Sets a cookie that names its worker, so that whatever is in front may send users back there."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import gethostname


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Set-Cookie", f"route={gethostname()}; Path=/; HttpOnly")
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"welcome")

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
