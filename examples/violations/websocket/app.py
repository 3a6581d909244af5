"""Chat over WebSockets: what one says goes to those alone who are connected to the same worker."""

import base64
import hashlib
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE = 1, 8

connected, lock = [], Lock()


def tell(text):
    """To all who are connected here. Messages are short: a length of more than 125 bytes has another form."""
    with lock:
        for file in connected:
            try:
                file.write(bytes([0x80 | TEXT, len(text)]) + text)
                file.flush()
            except OSError:
                pass  # It has gone, and its own thread takes it off the list.


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/chat":
            self.chat()
        else:
            self.send_response(200)
            self.send_header("Content-Length", "7")
            self.end_headers()
            self.wfile.write(b"welcome")

    def chat(self):
        digest = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + GUID).encode()).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.close_connection = True
        # Nothing is told between the answer and the list: who has the answer hears all that is told from then on.
        with lock:
            self.end_headers()
            connected.append(self.wfile)
        try:
            self.listen()
        except OSError:
            pass
        finally:
            with lock:
                connected.remove(self.wfile)

    def listen(self):
        while head := self.rfile.read(2):
            mask, text = self.rfile.read(4), self.rfile.read(head[1] & 0x7F)
            if head[0] & 0x0F == CLOSE:
                return
            tell(bytes(byte ^ mask[at % 4] for at, byte in enumerate(text)))

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
