"""gRPC's own client and server, with a gateway between: unary, streaming each way, errors, deadlines, cancelling.

python3 -m venv /tmp/grpc && /tmp/grpc/bin/pip install grpcio
/tmp/grpc/bin/python grpc_calls.py COMMAND...

COMMAND is a gateway. It finds in BRIDGE_LISTEN where to listen and in BRIDGE_WORKER where the worker is (h2c), and is
ended when all is done.
"""

import os
import queue
import socket
import subprocess
import sys
import threading
from concurrent import futures

import grpc

SERVICE = "lab.Lab"
cancelled = queue.Queue()


def echo(request, context):
    context.set_trailing_metadata((("x-trailer", "unary"),))
    return request


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def join(requests, context):
    return b"".join(requests)


def chat(requests, context):
    for request in requests:
        yield request.upper()


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "there is none")


def wait(request, context):
    ended = threading.Event()
    # Without a callback it has ended already.
    if not context.add_callback(ended.set):
        ended.set()
    yield b"begun"
    ended.wait()
    cancelled.put(True)


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Join": grpc.stream_unary_rpc_method_handler(join),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Wait": grpc.unary_stream_rpc_method_handler(wait),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def calls(channel):
    path = f"/{SERVICE}/".__add__

    reply, call = channel.unary_unary(path("Echo")).with_call(b"hello", wait_for_ready=True)
    assert reply == b"hello"
    assert dict(call.trailing_metadata())["x-trailer"] == "unary"

    large = bytes(range(256)) * 12_000
    assert channel.unary_unary(path("Echo"))(large) == large

    assert list(channel.unary_stream(path("Count"))(b"5000")) == [str(n).encode() for n in range(5000)]
    assert channel.stream_unary(path("Join"))(iter([b"x" * 1000] * 3000)) == b"x" * 3_000_000

    # Each answer comes before the next question is asked.
    questions = queue.Queue()
    answers = channel.stream_stream(path("Chat"))(iter(questions.get, None))
    for word in [b"one", b"two", b"three"]:
        questions.put(word)
        assert next(answers) == word.upper()
    questions.put(None)
    assert list(answers) == [] and answers.code() is grpc.StatusCode.OK

    try:
        channel.unary_unary(path("Fail"))(b"")
        raise AssertionError("it works")
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND and error.details() == "there is none"

    call = channel.unary_stream(path("Wait"))(b"")
    assert next(call) == b"begun"
    call.cancel()
    assert cancelled.get(timeout=10)

    try:
        list(channel.unary_stream(path("Wait"))(b"", timeout=0.3))
        raise AssertionError("it ends")
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert cancelled.get(timeout=10)

    failed = []

    def many():
        for number in range(100):
            try:
                text = str(number).encode()
                assert channel.unary_unary(path("Echo"))(text) == text
            except BaseException as error:
                failed.append(error)

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed[0]


def main():
    server, worker = serve()
    listen = free_port()
    addresses = {"BRIDGE_LISTEN": f"127.0.0.1:{listen}", "BRIDGE_WORKER": f"127.0.0.1:{worker}"}
    gateway = subprocess.Popen(sys.argv[1:], env=os.environ | addresses)
    try:
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(addresses["BRIDGE_LISTEN"], options=options) as channel:
            calls(channel)
        print("all calls are as they are without a gateway")
    finally:
        gateway.kill()
        server.stop(None)


main()
