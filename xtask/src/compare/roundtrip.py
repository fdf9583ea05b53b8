"""A client of the reference, as it comes, for `cargo xtask compare`.

    roundtrip.py echo URL     answers calls and sends back what it gets
    roundtrip.py call URL     calls it; for each number on stdin, so many round trips
    roundtrip.py connect URL  so many links that connect, subscribe and go

Prints `ready`, and for each number a line of JSON: p50 and p90 in milliseconds, from
the publish until the answer is here; or links and seconds.
"""

import asyncio
import datetime
import json
import os
import statistics
import sys
import time

import slim_bindings as slim

# The wheel logs on stdout.
OUTPUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

SECRET = "the-secret-of-a-conversation-that-everybody-may-hear"
ECHO = "compare/ns/echo"


async def connect(name, url):
    service = slim.create_service(name.replace("/", "-"))
    app = service.create_app_with_secret(slim.Name.from_string(name), SECRET)
    config = slim.new_insecure_client_config(url)
    connection = await service.connect_async(config)
    await app.subscribe_async(app.name(), connection)
    return service, app


async def echo(url):
    _service, app = await connect(ECHO, url)
    print("ready", file=OUTPUT, flush=True)
    session = await app.listen_for_session_async(timeout=None)
    while True:
        message = await session.get_message_async(timeout=None)
        await session.publish_async(message.payload, None, {})


async def links(url):
    print("ready", file=OUTPUT, flush=True)
    total = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        count = int(float(line))
        started_at = time.perf_counter()
        for number in range(total, total + count):
            service, app = await connect(f"compare/ns/link-{number}", url)
            await service.shutdown_async()
        total += count
        print(json.dumps({"links": count, "seconds": time.perf_counter() - started_at}),
              file=OUTPUT, flush=True)


async def call(url):
    _service, app = await connect("compare/ns/caller", url)
    config = slim.SessionConfig(session_type=slim.SessionType.POINT_TO_POINT, max_retries=5,
                                interval=datetime.timedelta(seconds=5), metadata={},
                                mls_settings=None)
    session = await app.create_session_and_wait_async(config, slim.Name.from_string(ECHO))
    print("ready", file=OUTPUT, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        times = []
        for number in range(int(float(line))):
            payload = b"%032d" % number
            started_at = time.perf_counter()
            handle = await session.publish_async(payload, None, {})
            answer = await session.get_message_async(timeout=datetime.timedelta(seconds=10))
            times.append(1000 * (time.perf_counter() - started_at))
            assert answer.payload == payload, answer.payload
            await handle.wait_async()
        p90 = sorted(times)[int(0.9 * len(times))]
        print(json.dumps({"p50_ms": statistics.median(times), "p90_ms": p90}), file=OUTPUT,
              flush=True)


def main():
    role, url = sys.argv[1:]
    tracing = slim.new_tracing_config()
    tracing.log_level = "off"
    slim.initialize_with_configs(
        slim.new_runtime_config(), tracing, [slim.new_service_config()])
    try:
        asyncio.run({"echo": echo, "call": call, "connect": links}[role](url))
    except Exception as error:
        # The node has ended, which is how the echo ends.
        sys.exit(f"{role}: {error}")


if __name__ == "__main__":
    main()
