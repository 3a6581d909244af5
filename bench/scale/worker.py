"""A worker of a known capacity: it holds each request for SERVICE_S, and notes when it began, listened and was first asked.
The gateway gives it `concurrency` requests at a time, so that a worker answers `concurrency / SERVICE_S` a second."""

import time

BEGAN = time.monotonic()

import asyncio
import json
import os

SERVICE_S = float(os.environ["SERVICE_S"])
NOTES = os.environ["NOTES"]
INSTANCE = os.environ["LETHE_INSTANCE"]


def note(what):
    with open(NOTES, "a") as file:
        file.write(json.dumps({"instance": INSTANCE, "what": what, "at": time.monotonic(), "began": BEGAN}) + "\n")


asked = False


async def serve(reader, writer):
    global asked
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            if not asked:
                asked = True
                note("asked")
            await asyncio.sleep(SERVICE_S)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PORT"]))
    note("listening")
    await server.serve_forever()


asyncio.run(main())
