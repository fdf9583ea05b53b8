"""Remote procedure calls of the reference (slimrpc): both of their ends.

Each of the four kinds of call has a method that tells what it was given, so that the
caller can tell whether everything went there and back in order.
"""

import slim_bindings as slim

SERVICE = "Echo"

# What a stream carries, in each direction.
STREAM = [f"item {number}".encode() for number in range(20)]


async def received(stream):
    """All that comes, up to the end of the stream."""
    items = []
    while True:
        message = await stream.next_async()
        if message.is_end():
            return items
        if message.is_error():
            raise RuntimeError(f"stream: {message[0]}")
        items.append(message[0])


class Unary(slim.UnaryUnaryHandler):
    async def handle(self, request, context):
        return b"echo " + request


class ServerStream(slim.UnaryStreamHandler):
    async def handle(self, request, context, sink):
        for item in STREAM:
            await sink.send_async(request + b" " + item)
        await sink.close_async()


class ClientStream(slim.StreamUnaryHandler):
    async def handle(self, stream, context):
        return b", ".join(await received(stream))


class BothStream(slim.StreamStreamHandler):
    async def handle(self, stream, context, sink):
        while not (message := await stream.next_async()).is_end():
            await sink.send_async(b"echo " + message[0])
        await sink.close_async()


async def serve(app, name, is_ready):
    """Answers calls, for ever."""
    server = slim.Server(app, name)
    server.register_unary_unary(SERVICE, "unary", Unary())
    server.register_unary_stream(SERVICE, "server", ServerStream())
    server.register_stream_unary(SERVICE, "client", ClientStream())
    server.register_stream_stream(SERVICE, "both", BothStream())
    is_ready()
    await server.serve_async()


async def call(app, peer, tell):
    """One call of each kind. Tells whether its answer is right."""
    channel = slim.Channel(app, peer)

    answer = await channel.call_unary_async(SERVICE, "unary", b"request", None, None)
    tell("unary", answer == b"echo request")

    stream = await channel.call_unary_stream_async(SERVICE, "server", b"request", None, None)
    tell("server", await received(stream) == [b"request " + item for item in STREAM])

    writer = channel.call_stream_unary(SERVICE, "client", None, None)
    for item in STREAM:
        await writer.send_async(item)
    tell("client", await writer.finalize_stream_async() == b", ".join(STREAM))

    both = channel.call_stream_stream(SERVICE, "both", None, None)
    for item in STREAM:
        await both.send_async(item)
    await both.close_send_async()
    answers = []
    while not (message := await both.recv_async()).is_end():
        answers.append(message[0])
    tell("both", answers == [b"echo " + item for item in STREAM])
    await channel.close_async(None)
