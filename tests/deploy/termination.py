"""Replays a rolling update of two nodes under load, in the order in which Kubernetes does it, with real processes.

    termination.py ROOMCAST NATS_SERVER CONFIG

A new node starts and becomes a target once `/readyz` says 200. Then an old one is no target any more (what `preStop` waits for), gets SIGTERM, and has to end
by itself. Meanwhile a backend publishes to any target, and clients that are sent away come back to any target with their position. Exit code 0 when every
client got every event once and in order, each recovery was exact, and every node ended with 0 within its grace period.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import pathlib
import random
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

CLIENTS = 20
WINDOW_S = 2
# The chart's: the window and 30 s.
GRACE_S = WINDOW_S + 30
PATIENCE_S = 60
ROOM = "lobby:rollout"
SECRET = "a secret of more than 32 bytes, for tests"


class Node:
    def __init__(self, process, client, backend, admin):
        self.process, self.client, self.backend, self.admin = process, client, backend, admin

    @classmethod
    async def start(cls, roomcast, config, nats, name):
        process = await asyncio.create_subprocess_exec(
            roomcast, "serve", "--config", config,
            *("--set", "client.listen=127.0.0.1:0", "--set", "grpc.listen=127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0"),
            *("--set", f'nats.servers=["{nats}"]', "--set", "nats.replicas=1", "--set", "nats.partitions=4"),
            *("--set", f"node.drain_window={WINDOW_S}s", "--set", f"node.id={name}"),
            stderr=asyncio.subprocess.PIPE,
            env={},
        )
        lines = []
        while True:
            line = await process.stderr.readline()
            lines.append(line.decode())
            if not line:
                sys.exit("a node ended at its start: " + "".join(lines))
            said = json.loads(line)
            if said["message"] == "gateway started":
                break
        # Nobody else reads it: a full pipe would hold lines back.
        asyncio.get_running_loop().create_task(cls.drop(process.stderr))
        return cls(process, said["client_address"], said["grpc_address"], said["admin_address"])

    @staticmethod
    async def drop(stream):
        while await stream.read(65536):
            pass

    async def ready(self):
        while True:
            try:
                await asyncio.to_thread(request, f"http://{self.admin}/readyz")
                return
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                await asyncio.sleep(0.05)

    async def end(self):
        self.process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(self.process.wait(), GRACE_S)
        check(code == 0, "a node that drained ends with 0", code)


class Client:
    """Reconnects with its position, and keeps what it saw."""

    def __init__(self, name):
        self.name, self.since, self.seen, self.came_back = name, None, [], 0

    async def run(self, targets, joined, last):
        while not self.seen or self.seen[-1] != last():
            try:
                url = f"ws://{random.choice(targets).client}/v1/ws"
                async with connect(url, subprotocols=["roomcast.v1.json"], compression=None) as socket:
                    await self.stay(socket, joined, last)
            except (OSError, WebSocketException):
                # The target ended between the choice and the connection, or sent the client away.
                await asyncio.sleep(random.random() / 5)

    async def stay(self, socket, joined, last):
        await socket.send(json.dumps({"id": 1, "connect": {"token": token(self.name)}}))
        join = {"room": ROOM, **({"since": self.since} if self.since else {})}
        await socket.send(json.dumps({"id": 2, "join": join}))
        async for text in socket:
            frame = json.loads(text)
            check("error" not in frame, "no command is refused", frame)
            if "joined" in frame:
                if self.since:
                    check(frame["joined"].get("recovered") is True, "a client that comes back is recovered", frame)
                    self.came_back += 1
                else:
                    self.since = frame["joined"]["head"]
                    joined.release()
            elif "event" in frame:
                event = frame["event"]
                self.since = {"epoch": event["epoch"], "offset": event["offset"]}
                self.seen.append(event["payload"]["n"])
                if self.seen[-1] == last():
                    return


class Backend:
    """Publishes one event after the other, and repeats by its key until it knows that it is stored."""

    def __init__(self, secret):
        self.secret, self.count, self.stop = secret, 0, asyncio.Event()
        # The number of the last event there will be, once it is known.
        self.last = None

    async def run(self, targets):
        while not self.stop.is_set():
            self.count += 1
            body = {
                "tenant": "default",
                "targets": [{"room": ROOM}],
                "eventName": "tick",
                "payload": {"n": self.count},
                "idempotencyKey": f"tick-{self.count}",
            }
            while True:
                try:
                    url = f"http://{random.choice(targets).backend}/v1/publish"
                    await asyncio.to_thread(request, url, body, self.secret)
                    break
                except (OSError, urllib.error.URLError):
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.005)


def request(url, body=None, bearer=None):
    head = {"content-type": "application/json", **({"authorization": f"Bearer {bearer}"} if bearer else {})}
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(urllib.request.Request(url, data, head), timeout=10) as answer:
        return answer.read()


def token(user):
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {"iss": "compose", "aud": "roomcast", "sub": user, "exp": int(time.time()) + 3600}
    signed = b".".join(part(json.dumps(value).encode()) for value in ({"alg": "HS256", "typ": "JWT"}, claims))
    return (signed + b"." + part(hmac.digest(SECRET.encode(), signed, hashlib.sha256))).decode()


def check(holds, what, seen):
    if not holds:
        raise AssertionError(f"{what}; seen: {seen!r}")


async def start_nats(server, folder):
    process = await asyncio.create_subprocess_exec(
        server, "-js", "-sd", str(folder / "js"), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(folder),
        stderr=asyncio.subprocess.DEVNULL,
    )
    while not (found := list(folder.glob("*.ports"))) or not found[0].read_text():
        check(process.returncode is None, "NATS runs", process.returncode)
        await asyncio.sleep(0.05)
    return process, json.loads(found[0].read_text())["nats"][0]


async def story(roomcast, nats_server, config, folder):
    for name in ("app-token", "user-secret"):
        (folder / name).write_text(SECRET)
    file = folder / "roomcast.toml"
    file.write_text(pathlib.Path(config).read_text().replace("/run/secrets", str(folder)).replace("otlp_endpoint", "# otlp_endpoint"))
    nats, address = await start_nats(nats_server, folder)
    nodes = []
    try:
        for number in range(2):
            nodes.append(await Node.start(roomcast, str(file), address, f"old-{number}"))
        targets = list(nodes)
        joined, backend = asyncio.Semaphore(0), Backend(SECRET)
        clients = [Client(f"client-{number}") for number in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client.run(targets, joined, lambda: backend.last)) for client in clients]
            for _ in clients:
                await joined.acquire()
            publishing = group.create_task(backend.run(targets))
            for number, old in enumerate(list(nodes)):
                new = await Node.start(roomcast, str(file), address, f"new-{number}")
                nodes.append(new)
                await new.ready()
                targets.append(new)
                targets.remove(old)
                await old.end()
                nodes.remove(old)
            backend.stop.set()
            await publishing
            # One more, so that every client learns of the end by an event.
            backend.count += 1
            backend.last = backend.count
            body = {"tenant": "default", "targets": [{"room": ROOM}], "eventName": "tick", "payload": {"n": backend.count}}
            await asyncio.to_thread(request, f"http://{targets[0].backend}/v1/publish", body, SECRET)
            await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
        for client in clients:
            check(client.seen == list(range(1, backend.count + 1)), f"{client.name} got everything once and in order", client.seen)
            check(client.came_back >= 1, f"{client.name} was sent away at least once", client.came_back)
        print(f"{backend.count} events to {CLIENTS} clients, which came back {sum(client.came_back for client in clients)} times")
        for node in nodes:
            await node.end()
        nodes.clear()
    finally:
        for process in [node.process for node in nodes] + [nats]:
            if process.returncode is None:
                process.kill()
                await process.wait()


with tempfile.TemporaryDirectory() as below:
    asyncio.run(story(*sys.argv[1:4], pathlib.Path(below)))
