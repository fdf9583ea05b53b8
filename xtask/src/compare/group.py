"""A group of the reference's clients, all in this process, for `cargo xtask compare`.

    group.py URL MEMBERS MESSAGES

Tells the same as `slim bench channel --output json`: a line when all have joined, and
one when all that the moderator published is acknowledged and delivered. 512 bytes, 32
in flight, MLS.
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
SIZE = 512
IN_FLIGHT = 32


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), file=OUTPUT, flush=True)


async def connect(number, url):
    name = f"compare/ns/client-{number}"
    service = slim.create_service(name.replace("/", "-"))
    app = service.create_app_with_secret(slim.Name.from_string(name), SECRET)
    config = slim.new_insecure_client_config(url)
    config.require_header_mac = True
    connection = await service.connect_async(config)
    await app.subscribe_async(app.name(), connection)
    return service, app


async def hear(session, count, latencies):
    """All messages of the moderator, as one member gets them."""
    for _ in range(count):
        message = await session.get_message_async(timeout=datetime.timedelta(seconds=60))
        sent_at = int.from_bytes(message.payload[:8], "little")
        latencies.append(time.perf_counter_ns() - sent_at)


async def publish(session, count):
    limit = asyncio.Semaphore(IN_FLIGHT)

    async def outcome(handle):
        await handle.wait_async()
        limit.release()

    outcomes = []
    for _ in range(count):
        await limit.acquire()
        payload = time.perf_counter_ns().to_bytes(8, "little") + bytes(SIZE - 8)
        handle = await session.publish_async(payload, None, {})
        outcomes.append(asyncio.ensure_future(outcome(handle)))
    await asyncio.gather(*outcomes)


async def main(url, members, messages):
    clients = [await connect(number, url) for number in range(members)]
    moderator, others = clients[0][1], [app for _, app in clients[1:]]
    mls = slim.MlsSettings(header_integrity_validation_percent=100,
                           max_seen_control_message_ids_size=None)
    config = slim.SessionConfig(session_type=slim.SessionType.GROUP, max_retries=5,
                                interval=datetime.timedelta(seconds=5), metadata={},
                                mls_settings=mls)
    channel = slim.Name.from_string("compare/ns/channel")
    session = await moderator.create_session_and_wait_async(config, channel)
    listening = [asyncio.ensure_future(app.listen_for_session_async(timeout=None))
                 for app in others]
    started_at = time.perf_counter()
    await asyncio.gather(*(session.invite_and_wait_async(app.name()) for app in others))
    sessions = await asyncio.gather(*listening)
    tell("joined", join_seconds=time.perf_counter() - started_at)
    latencies = []
    cpu, started_at = time.process_time(), time.perf_counter()
    await asyncio.gather(publish(session, messages),
                         *(hear(member, messages, latencies) for member in sessions))
    seconds = time.perf_counter() - started_at
    latencies = sorted(latency / 1000 for latency in latencies) or [0]
    tell("bench", delivered=messages * len(others), lost=0, seconds=seconds,
         cpu_seconds=time.process_time() - cpu,
         latency_us={"p50": statistics.median(latencies),
                     "p99": latencies[int(0.99 * len(latencies))]})
    # Its services do not end by themselves.
    OUTPUT.close()
    os._exit(0)


if __name__ == "__main__":
    tracing = slim.new_tracing_config()
    tracing.log_level = "error"
    slim.initialize_with_configs(
        slim.new_runtime_config(), tracing, [slim.new_service_config()])
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
