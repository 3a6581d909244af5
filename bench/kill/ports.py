"""Ports to listen on and to wait for."""

import random
import socket
import time

# Below the range from which the kernel takes the ports of outgoing connections: in the moment in which a worker is
# away, a connection of somebody else could otherwise take its port.
FIXED = range(20_000, 30_000)
WAIT_S = 20


def free_ports(count):
    """Ports that nobody listens on, below the kernel's own range."""
    found = []
    while len(found) < count:
        port = random.choice(FIXED)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def listens(port):
    """Whether a connection to it is taken now."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def connect_when_listening(port, alive=lambda: True):
    """Returns as soon as something listens. TimeoutError if nothing does, or if `alive` says that nothing will."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and alive():
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.005)
    raise TimeoutError(f"nothing listens on port {port}")
