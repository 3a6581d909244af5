"""What is done to a proxy in a row of the comparison, and what is seen then."""

import json
import pathlib
import re
import resource
import socket
import subprocess
import time
from dataclasses import dataclass

from measure import TARGET, wrk

OPEN_LOAD = TARGET / "release" / "examples" / "open_load"
POST = pathlib.Path(__file__).resolve().parent / "post.lua"
POST_BYTES = 1024
STREAMS = 10
IDLE = 10_000
# Lethe keeps a descriptor towards a worker free for each client; some are for other things.
OPEN_FILES_PER_CLIENT, SPARE = 2, 500
WARM_SECONDS = 1
SETTLE_SECONDS = 1.5


@dataclass
class Row:
    """One kind of load."""
    name: str
    title: str
    # Requests per second at which the latency is measured: well below what the slowest peer reaches here.
    rate: int = 0
    connections: int = 32
    protocol: str = "h1"
    path: str = "/"
    post: bool = False
    close: bool = False


ROWS = [
    Row("get-4", "GET, 512 bytes, 4 connections kept alive", 4000, connections=4),
    Row("get-32", "GET, 512 bytes, 32 connections kept alive", 4000),
    Row("get-512", "GET, 512 bytes, 512 connections kept alive", 4000, connections=512),
    Row("body-64k", "GET, 64 KiB, 32 connections kept alive", 2000, path="/64k"),
    Row("post-1k", "POST, 1 KiB, 32 connections kept alive", 4000, post=True),
    Row("connect", "GET, 512 bytes, a new connection for each, 32 at a time", 2000, close=True),
    Row("tls", "GET, 512 bytes, TLS 1.3, 32 connections kept alive", 4000, protocol="tls"),
    Row("h2", "GET, 512 bytes, HTTP/2 over TLS 1.3, 32 connections of 10 streams", 4000, protocol="h2"),
    Row("h2c", "GET, 512 bytes, HTTP/2 without TLS, 32 connections of 10 streams", 4000, protocol="h2c"),
]


def raise_open_files():
    """Lets the proxies have the open files that the rows need, and these the clients'."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_PER_CLIENT * (IDLE + SPARE)
    if hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, wanted))
        except (ValueError, OSError):
            print(f"the limit of open files (ulimit -Hn) is {hard}: {idle_clients():,} idle connections, not {IDLE:,}")


def idle_clients():
    """How many there can be: as many as are wanted, or as there are files for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(IDLE, hard // OPEN_FILES_PER_CLIENT - SPARE)


def warm(row, proxy):
    closed_loop(row, proxy, WARM_SECONDS)


def measured(row, proxy, certificate, seconds):
    """The figures of one proxy in one round of a row: first as fast as it goes, then at a fixed rate."""
    before = proxy.cpu_seconds()
    closed = closed_loop(row, proxy, seconds)
    between = proxy.cpu_seconds()
    opened = open_model(row, proxy, certificate, seconds)
    after = proxy.cpu_seconds()
    return {
        "cpu_us": round((between - before) / closed["requests"] * 1e6, 2),
        "requests_per_s": closed["requests_per_s"],
        "p50_ms": opened["p50_ms"], "p99_ms": opened["p99_ms"], "p999_ms": opened["p999_ms"],
        "cpu_us_at_rate": round((after - between) / opened["requests"] * 1e6, 2),
        "resident_mib": round(proxy.resident_bytes() / 2**20, 1),
    }


def closed_loop(row, proxy, seconds):
    url = proxy.url(row.protocol, row.path)
    if row.protocol in ("h2", "h2c"):
        return h2load(url, seconds, "-t2", f"-c{row.connections}", f"-m{STREAMS}")
    options = (["-s", str(POST)] if row.post else []) + (["-H", "Connection: close"] if row.close else [])
    return wrk(url, row.connections, seconds, *options)


def open_model(row, proxy, certificate, seconds):
    """Each of the connections has one request at a time here, with HTTP/2 too: at these rates few are under way."""
    command = [OPEN_LOAD, f"127.0.0.1:{proxy.port_for(row.protocol)}", row.path, "--rate", row.rate,
               "--seconds", seconds, "--connections", row.connections]
    command += ["--post", POST_BYTES] if row.post else []
    command += ["--close"] if row.close else []
    command += ["--tls", certificate.chain] if row.protocol in ("tls", "h2") else []
    command += ["--h2"] if row.protocol in ("h2", "h2c") else []
    figures = json.loads(subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout)
    if figures["failed"]:
        raise ValueError(f"{figures['failed']} requests failed at the fixed rate, the first: {figures['failure']}")
    return figures | {"requests": figures["due"] - figures["never_sent"]}


def h2load(url, seconds, *options):
    command = ["h2load", "-D", f"{seconds}s", *options, url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    done, failed, errored, timed_out = map(int, re.search(
        r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text).groups())
    if failed or errored or timed_out or not done:
        raise ValueError("the load met errors:\n" + text)
    return {"requests": done, "requests_per_s": round(done / seconds)}


def idle_connections(proxy):
    """What a kept-alive connection costs that has had one request and does nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    exchange_on(proxy, "127.0.0.1").close()
    before = settled(proxy)
    clients = []
    try:
        for number in range(idle_clients()):
            clients.append(exchange_on(proxy, f"127.0.0.{2 + number % 4}"))
        after = settled(proxy)
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return {"resident_mib_before": round(before / 2**20, 1), "resident_mib_after": round(after / 2**20, 1),
            "connections": len(clients), "bytes_per_connection": round((after - before) / len(clients))}


def exchange_on(proxy, source):
    client = socket.create_connection(("127.0.0.1", proxy.port), 5, source_address=(source, 0))
    client.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
    answer = b""
    while not answer.endswith(b"x" * 512):
        part = client.recv(4096)
        if not part:
            raise ValueError(f"{proxy.name} closed a connection that was to be kept: {answer[:100]}")
        answer += part
    return client


def settled(proxy):
    """Its memory, once it has had time to give back what it does not need."""
    time.sleep(SETTLE_SECONDS)
    return proxy.resident_bytes()
