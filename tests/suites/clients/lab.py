"""A grpcio server and client over raw bytes, and a WebSocket pair: the far ends of the client suite.

usage: lab.py grpc-server PORT | grpc PORT SCENARIO | ws-server PORT | ws PORT
"""

import asyncio
import sys
import threading
import time
from concurrent import futures

import grpc
import websockets.asyncio.client
import websockets.asyncio.server

SERVICE = "lab.Lab"
BIG = b"x" * (4 * 1024 * 1024 - 1024)
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
cancelled = threading.Semaphore(0)


def unary(request, context):
    return request


def server_stream(request, context):
    for number in range(5):
        yield request + str(number).encode()


def client_stream(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def bidi(requests, context):
    for request in requests:
        yield request


def sleep(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    if ended.wait(10):
        cancelled.release()
    return b""


def saw_cancel(request, context):
    return b"yes" if cancelled.acquire(timeout=5) else b"no"


def fail(request, context):
    context.set_trailing_metadata((("grpc-status-details-bin", b"\x00\x01details\xff"), ("x-why", "because")))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no good: ü%")


def metadata(request, context):
    sent = [(k, v) for k, v in context.invocation_metadata() if k.startswith("lab-")]
    context.send_initial_metadata(sent)
    context.set_trailing_metadata([("trail-" + k, v) for k, v in sent])
    return request


def grpc_server(port):
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
        "SawCancel": grpc.unary_unary_rpc_method_handler(saw_cancel),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=OPTIONS)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r:.200}, want {want!r:.200}")


def fails_with(call, code):
    try:
        call()
    except grpc.RpcError as error:
        equal(error.code(), code)
        return error
    raise AssertionError(f"the call succeeded, want {code}")


class Scenarios:
    def __init__(self, channel):
        self.channel = channel

    def call(self, name, kind="unary_unary"):
        return getattr(self.channel, kind)(f"/{SERVICE}/{name}")

    def unary(self):
        for number in range(50):
            equal(self.call("Unary")(str(number).encode()), str(number).encode())

    def server_stream(self):
        got = list(self.call("ServerStream", "unary_stream")(b"n"))
        equal(got, [b"n0", b"n1", b"n2", b"n3", b"n4"])

    def client_stream(self):
        equal(self.call("ClientStream", "stream_unary")(iter([b"ab", b"", b"cde"])), b"5")

    def bidi(self):
        sent = [str(number).encode() * 1000 for number in range(20)]
        equal(list(self.call("Bidi", "stream_stream")(iter(sent))), sent)

    def deadline(self):
        started = time.monotonic()
        fails_with(lambda: self.call("Sleep")(b"", timeout=0.3), grpc.StatusCode.DEADLINE_EXCEEDED)
        if time.monotonic() - started > 3:
            raise AssertionError("the deadline came late")
        equal(self.call("SawCancel")(b""), b"yes")

    def cancellation(self):
        pending = self.call("Sleep").future(b"")
        time.sleep(0.2)
        pending.cancel()
        equal(self.call("SawCancel")(b""), b"yes")

    def big_message(self):
        equal(self.call("Unary")(BIG), BIG)

    def metadata(self):
        sent = (("lab-text", "value"), ("lab-many", "1"), ("lab-many", "2"), ("lab-bytes-bin", b"\x00\xff"))
        _, call = self.call("Metadata").with_call(b"", metadata=sent)
        initial = [(k, v) for k, v in call.initial_metadata() if k in dict(sent)]
        trailing = [(k, v) for k, v in call.trailing_metadata() if k.startswith("trail-lab")]
        equal(sorted(initial), sorted(sent))
        equal(sorted(trailing), sorted(("trail-" + k, v) for k, v in sent))

    def status_details(self):
        error = fails_with(lambda: self.call("Fail")(b""), grpc.StatusCode.FAILED_PRECONDITION)
        equal(error.details(), "no good: ü%")
        trailers = dict(error.trailing_metadata())
        equal(trailers["grpc-status-details-bin"], b"\x00\x01details\xff")
        equal(trailers["x-why"], "because")


def grpc_client(port, scenario):
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        getattr(Scenarios(channel), scenario)()


async def ws_server(port):
    async def echo(socket):
        async for message in socket:
            await socket.send(message)

    async with websockets.asyncio.server.serve(echo, "127.0.0.1", port):
        await asyncio.Future()


async def ws_client(port):
    async with websockets.asyncio.client.connect(f"ws://127.0.0.1:{port}/chat", proxy=None) as socket:
        for message in ["hello", b"\x00\xff", "x" * 500_000]:
            await socket.send(message)
            equal(await socket.recv(), message)
        await (await socket.ping())


def main():
    what, port = sys.argv[1], int(sys.argv[2])
    if what == "grpc-server":
        grpc_server(port)
    elif what == "grpc":
        grpc_client(port, sys.argv[3])
    elif what == "ws-server":
        asyncio.run(ws_server(port))
    else:
        asyncio.run(ws_client(port))


main()
