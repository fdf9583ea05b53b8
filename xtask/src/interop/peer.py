"""The reference implementation as a program that behaves like `slim --output json`.

The same options, the same lines on stdin and the same events on stdout, so that a
case of `cargo xtask interop` is written once, whoever plays whom:

    peer.py node  --listen HOST:PORT
    peer.py group --local org/ns/app --slim URL [--remote CHANNEL --invites NAME...] [--enable-mls]
    peer.py p2p   --local org/ns/app --slim URL [--remote PEER] [--enable-mls] [--no-echo]
    peer.py rpc   --local org/ns/app --slim URL [--remote PEER]

The shared secret is in SLIM_SHARED_SECRET, or there are `--identity KEY --subject NAME
--algorithm ALG --trust JWKS --audience NAME`, and tokens are signed, or `--spire-socket
PATH --spiffe-id ID --audience NAME`, and a SPIFFE agent has them. On stdin each line is published, and
there are `/invite NAME`, `/remove NAME`, `/publish {JSON}` (without "to"), `/who`,
`/away` (soft close), `/back` (rejoin) and `/leave`. Instead of `/to NAME TEXT` there is

    /reply TEXT  to whom the last message came from, and nobody else

`rpc` calls one method of each kind at its peer, or answers such calls; with
`--config FILE` a node is as that file says; `--best-effort` is a session in which
nothing is acknowledged or repeated.

Where the reference does not tell as much as `slim`, the event says less: `closed`
has the text of the error, `delivered` no members, and presence is not told.
"""

import argparse
import asyncio
import base64
import datetime
import json
import os
import signal
import sys

import slim_bindings as slim

import rpc

# The wheel logs on stdout. Only events belong there, so its log goes to stderr.
EVENTS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

# A line of input is at most this long.
MAX_LINE = 8 << 20

# Entries that the protocol adds to an application's metadata.
PROTOCOL_METADATA = {"slim-payload-sig", "slim-peer-subject", "PUBLISH_TO"}


def emit(kind, /, **fields):
    now = datetime.datetime.now(datetime.timezone.utc).isoformat()
    print(json.dumps({"event": kind, "time": now, **fields}), file=EVENTS, flush=True)


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", default="info")
    roles = parser.add_subparsers(dest="role", required=True)
    node_options = roles.add_parser("node")
    node_options.add_argument("--listen", required=True)
    node_options.add_argument("--config")
    for role in ("group", "p2p", "rpc"):
        options = roles.add_parser(role)
        options.add_argument("--local", required=True)
        options.add_argument("--slim", required=True)
        options.add_argument("--remote")
        options.add_argument("--invites", action="append", default=[])
        options.add_argument("--enable-mls", action="store_true")
        options.add_argument("--timeout", type=float, default=5.0)
        options.add_argument("--max-retries", type=int, default=5)
        options.add_argument("--no-echo", action="store_true")
        options.add_argument("--best-effort", action="store_true")
        for option in ("--identity", "--subject", "--algorithm", "--trust", "--audience",
                       "--spire-socket", "--spiffe-id"):
            options.add_argument(option)
    return parser.parse_args()


def full(name):
    """A name with its id, as `slim` writes it."""
    return "/".join([*name.components(), name.id()])


def reason(error):
    """The text of an error, without the type around it."""
    return getattr(error, "message", None) or str(error)


async def node(args):
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if args.config:
        service = slim.get_services()[0]
    else:
        service = slim.create_service("node")
        await service.run_server_async(slim.new_insecure_server_config(args.listen))
    print(f"listening on {args.listen}", file=EVENTS, flush=True)
    await stop.wait()
    service.stop_server(args.listen)
    return 0


class Conversation:
    """One session and what is typed into it."""

    def __init__(self, args, app, session):
        self.args, self.app, self.session = args, app, session
        # A session that is over no longer tells its id.
        self.session_id = session.session_id()
        self.lines = 0
        self.outcomes = set()
        self.is_leaving = False
        self.last_heard = None
        self.reading = asyncio.ensure_future(self.read())

    def tell(self, kind, /, **fields):
        emit(kind, session_id=self.session_id, **fields)

    async def read(self):
        """Tells what arrives, until the session is over."""
        while True:
            try:
                message = await self.session.get_message_async(timeout=None)
            except Exception as error:
                text = reason(error)
                if "participant disconnected: " in text:
                    # The name stands at the end of the first line.
                    name = text.split("participant disconnected: ", 1)[1].split()[0]
                    self.tell("participant", name=name, change="left")
                elif "closed" in text:
                    self.tell("closed", reason="left" if self.is_leaving else text)
                    return
                else:
                    self.tell("missed", reason=text)
                continue
            await self.hear(message)

    async def hear(self, message):
        context, payload = message.context, message.payload
        self.last_heard = context
        try:
            content = {"payload": payload.decode()}
        except UnicodeDecodeError:
            content = {"payload_base64": base64.b64encode(payload).decode()}
        metadata = {k: v for k, v in context.metadata.items() if k not in PROTOCOL_METADATA}
        to_me = self.args.role == "p2p" or "PUBLISH_TO" in context.metadata
        self.tell("message", source=full(context.source_name), payload_type=context.payload_type,
                  metadata=metadata, to_me=to_me, **content)
        if self.args.role == "p2p" and not self.args.remote and not self.args.no_echo:
            await self.session.publish_async(payload, context.payload_type, metadata)

    async def publish(self, payload, payload_type=None, metadata=None, to=None):
        line, self.lines = self.lines, self.lines + 1
        try:
            if to:
                handle = await self.session.publish_to_async(to, payload, payload_type, metadata)
            else:
                handle = await self.session.publish_async(payload, payload_type, metadata)
        except Exception as error:
            return self.tell("lost", line=line, members=[], reason=reason(error))
        outcome = asyncio.ensure_future(self.outcome(line, handle))
        self.outcomes.add(outcome)
        outcome.add_done_callback(self.outcomes.discard)

    async def outcome(self, line, handle):
        try:
            await handle.wait_async()
            self.tell("delivered", line=line)
        except Exception as error:
            self.tell("lost", line=line, members=[], reason=reason(error))

    async def invite(self, name):
        try:
            await self.session.invite_and_wait_async(slim.Name.from_string(name))
            self.tell("invite", name=name, outcome="joined", reason="joined")
        except Exception as error:
            text = reason(error)
            outcome = "no_answer" if "retries exhausted" in text else "refused"
            self.tell("invite", name=name, outcome=outcome, reason=text)

    async def remove(self, name):
        try:
            await self.session.remove_and_wait_async(slim.Name.from_string(name))
            self.tell("removed", name=name)
        except Exception as error:
            self.tell("error", code="not_removed", message=reason(error))

    async def who(self):
        members = await self.session.participants_list_async()
        self.tell("who", members=[
            {"name": full(member.name), "online": member.status == slim.ParticipantStatus.ONLINE}
            for member in members])

    async def leave(self):
        # Outcomes are not waited for: if the last member that is missing leaves, the
        # reference never tells them. They fail with the end of the session.
        self.is_leaving = True
        try:
            await self.app.delete_session_and_wait_async(self.session)
        except Exception as error:
            self.tell("error", code="not_left", message=reason(error))
        await self.reading

    async def act(self, line):
        """Does what a line says; False: it was the last one."""
        command, _, rest = line.partition(" ")
        if command == "/leave" or line in ("exit", "quit"):
            await self.leave()
            return False
        if command == "/invite":
            await self.invite(rest)
        elif command == "/remove":
            await self.remove(rest)
        elif command == "/who":
            await self.who()
        elif command == "/publish":
            wanted = json.loads(rest)
            if "payload" in wanted:
                payload = wanted["payload"].encode()
            else:
                payload = base64.b64decode(wanted["payload_base64"])
            await self.publish(payload, wanted.get("payload_type"), wanted.get("metadata"))
        elif command == "/reply":
            await self.publish(rest.encode(), to=self.last_heard)
        elif command == "/away":
            await self.session.close_with_mode_and_wait_async(slim.CloseMode.SOFT)
            self.tell("presence", online=False)
        elif command == "/back":
            await self.session.rejoin_and_wait_async()
            self.tell("presence", online=True)
        elif command.startswith("/") and not command.startswith("//"):
            self.tell("error", code="unknown_command", message=command)
        elif line:
            await self.publish(line.removeprefix("/").encode())
        return True


def session_config(args, kind):
    mls = slim.MlsSettings(header_integrity_validation_percent=100,
                           max_seen_control_message_ids_size=None) if args.enable_mls else None
    retries, interval = args.max_retries, datetime.timedelta(seconds=args.timeout)
    if args.best_effort:
        retries, interval = None, None
    return slim.SessionConfig(session_type=kind, max_retries=retries, interval=interval,
                              metadata={}, mls_settings=mls)


def token_identity(args):
    """What signs our tokens, and what verifies everybody's, our own included."""
    algorithm = slim.JwtAlgorithm["ED_DSA" if args.algorithm == "EdDSA" else args.algorithm]

    def key(kind, file):
        return slim.JwtKeyConfig(algorithm=algorithm, format=kind, key=slim.JwtKeyData.FILE(file))

    common = {"audience": [args.audience], "duration": datetime.timedelta(hours=1)}
    signer = slim.JwtKeyType.ENCODING(key(slim.JwtKeyFormat.PEM, args.identity))
    verifier = slim.JwtKeyType.DECODING(key(slim.JwtKeyFormat.JWKS, args.trust))
    return (
        slim.IdentityProviderConfig.JWT(slim.ClientJwtAuth(
            key=signer, issuer=args.subject, subject=args.subject, **common)),
        slim.IdentityVerifierConfig.JWT(slim.JwtAuth(
            key=verifier, issuer=None, subject=None, **common)),
    )


def agent_identity(args):
    """What a SPIFFE agent says who we are, and whom to believe."""
    config = slim.SpireConfig(socket_path=args.spire_socket, target_spiffe_id=args.spiffe_id,
                              jwt_audiences=[args.audience], trust_domains=[])
    return (slim.IdentityProviderConfig.SPIRE(config=config),
            slim.IdentityVerifierConfig.SPIRE(config=config))


async def connect(args):
    service = slim.create_service(args.local.replace("/", "-"))
    name = slim.Name.from_string(args.local)
    # The async variants panic: "there is no reactor running".
    if args.spire_socket:
        app = service.create_app(name, *agent_identity(args))
    elif args.identity:
        app = service.create_app(name, *token_identity(args))
    else:
        app = service.create_app_with_secret(name, os.environ["SLIM_SHARED_SECRET"])
    if args.slim.startswith("{"):
        config = slim.new_config_from_json(args.slim)
    else:
        config = slim.new_insecure_client_config(args.slim)
    config.require_header_mac = True
    connection = await service.connect_async(config)
    await app.subscribe_async(app.name(), connection)
    emit("connected", node=args.slim, name=full(app.name()))
    return service, app


async def create(args, app):
    """The session that we moderate; None: nobody answers."""
    kind = slim.SessionType.GROUP if args.role == "group" else slim.SessionType.POINT_TO_POINT
    try:
        return await app.create_session_and_wait_async(
            session_config(args, kind), slim.Name.from_string(args.remote))
    except Exception as error:
        emit("error", code="no_answer", message=reason(error))
        return None


def tell_session(args, session):
    place = {"channel": args.remote} if args.role == "group" else {
        "peer": full(session.destination())}
    emit("session", session_id=session.session_id(), type=args.role,
         role="moderator" if session.is_initiator() else "participant",
         mls=session.config().mls_settings is not None, **place)


async def answer_calls(args, app, conversations):
    """A listener: any number of sessions."""
    while True:
        session = await app.listen_for_session_async(timeout=None)
        tell_session(args, session)
        conversations.append(Conversation(args, app, session))


async def stdin_lines():
    reader = asyncio.StreamReader(limit=MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def calls(args):
    """Remote procedure calls, or answers to them."""
    slim.uniffi_set_event_loop(asyncio.get_running_loop())
    service, app = await connect(args)
    if not args.remote:
        await rpc.serve(app, slim.Name.from_string(args.local), lambda: emit("waiting"))
        return 0
    await rpc.call(app, slim.Name.from_string(args.remote),
                   lambda kind, is_right: emit("called", kind=kind, is_right=is_right))
    return 0


async def member(args):
    reader = await stdin_lines()
    service, app = await connect(args)
    if args.remote:
        session = await create(args, app)
        if session is None:
            return 5
    else:
        emit("waiting")
        if args.role == "p2p":
            return await listener(args, app, reader)
        session = await app.listen_for_session_async(timeout=None)
    tell_session(args, session)
    conversation = Conversation(args, app, session)
    await asyncio.gather(*(conversation.invite(name) for name in args.invites))
    typing = asyncio.ensure_future(type_lines(args, conversation, reader))
    over, _ = await asyncio.wait({typing, conversation.reading},
                                 return_when=asyncio.FIRST_COMPLETED)
    for task in over:
        task.result()
    if conversation.outcomes:
        await asyncio.wait(conversation.outcomes)
    return 0


async def type_lines(args, conversation, reader):
    """Does line by line; returns when the session was left."""
    while line := await reader.readline():
        if not await conversation.act(line.decode().removesuffix("\n")):
            return
    if args.remote:
        await conversation.leave()
    else:
        await conversation.reading


async def listener(args, app, reader):
    """Answers calls; what is typed goes to the newest caller."""
    conversations = []
    answering = asyncio.ensure_future(answer_calls(args, app, conversations))
    while line := await reader.readline():
        if not await conversations[-1].act(line.decode().removesuffix("\n")):
            answering.cancel()
            return 0
    await answering
    return 0


def main():
    args = parse()
    if args.role == "node" and args.config:
        slim.initialize_from_config_with_error(args.config)
    else:
        tracing = slim.new_tracing_config()
        tracing.log_level = args.log
        slim.initialize_with_configs(
            slim.new_runtime_config(), tracing, [slim.new_service_config()])
    return asyncio.run({"node": node, "rpc": calls}.get(args.role, member)(args))


if __name__ == "__main__":
    sys.exit(main())
