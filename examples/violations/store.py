"""A store beside the workers, in memory: PUT and GET of objects, POST of counters, DELETE of all. A PUT with `If-None-Match: *` is refused with
412 if the object is there (RFC 9110, section 13.1.2), so that of several one wins. It stands for the object store or Redis that a
real service has; the port is its argument, or the system's choice, which it prints."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

objects, counters, lock = {}, {}, Lock()


class Store(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_PUT(self):
        body = self.body()
        with lock:
            is_refused = self.headers.get("If-None-Match") == "*" and self.path in objects
            if not is_refused:
                objects[self.path] = body
        self.answer(412 if is_refused else 204)

    def do_GET(self):
        with lock:
            body = objects.get(self.path)
        self.answer(404) if body is None else self.answer(200, body)

    def do_POST(self):
        self.body()
        with lock:
            counters[self.path] = counters.get(self.path, 0) + 1
            count = counters[self.path]
        self.answer(200, str(count).encode())

    def do_DELETE(self):
        with lock:
            objects.clear()
            counters.clear()
        self.answer(204)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), Store)
print(server.server_port, flush=True)
server.serve_forever()
