"""A worker that begins to listen late, and notes how long its first request then took to come."""

import os
import socket
import time

time.sleep(float(os.environ.get("LATE_WORKER_DELAY_S", "0")))
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(os.environ["PORT"])))
listener.listen()
listening = time.monotonic()
first = True
while True:
    connection, _ = listener.accept()
    with connection:
        # The readiness probe connects and sends nothing.
        if not connection.recv(65536):
            continue
        if first and (notes := os.environ.get("LATE_WORKER_NOTES")):
            with open(notes, "a") as file:
                file.write(f"{(time.monotonic() - listening) * 1000:.3f}\n")
        first = False
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
