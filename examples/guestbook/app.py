"""One worker of the guestbook: listens on 127.0.0.1:$PORT, and leaves without cutting anybody off at SIGTERM."""

import os
import signal
import socket
import sys
import threading
from http.server import ThreadingHTTPServer

from guestbook import Guestbook, Handler
from state import State

CONNECTIONS_MAX = 256


class Server(ThreadingHTTPServer):
    """A thread for each connection, up to a bound; further connections wait to be accepted."""

    request_queue_size = 128
    daemon_threads = False

    def __init__(self, address, guestbook):
        super().__init__(address, Handler)
        self.guestbook = guestbook
        self.draining = False
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._idle = set()
        self._lock = threading.Lock()

    def process_request(self, request, client_address):
        self._places.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def idle(self, connection, is_idle):
        """Notes that a connection waits for its next request, or that one has begun."""
        with self._lock:
            if not is_idle:
                self._idle.discard(connection)
            elif self.draining:
                _end(connection)
            else:
                self._idle.add(connection)

    def drain(self):
        """Stops accepting, ends connections that wait, and lets requests that run finish."""
        with self._lock:
            self.draining = True
            for connection in self._idle:
                _end(connection)
        self.shutdown()


def _end(connection):
    """Ends the reading side alone: a request that has just arrived is still read and answered."""
    try:
        connection.shutdown(socket.SHUT_RD)
    except OSError:
        pass  # The other end was faster.


def main():
    guestbook = Guestbook(State.from_env(), os.environ.get("LETHE_INSTANCE", "alone"))
    server = Server(("127.0.0.1", int(os.environ.get("PORT", "3000"))), guestbook)
    # `shutdown` waits for `serve_forever`, which this thread is in: so it is another thread that calls it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.drain).start())
    print(f"the guestbook is open on port {server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever(poll_interval=0.05)
    server.server_close()  # Waits for the threads of requests that still run.


if __name__ == "__main__":
    main()
