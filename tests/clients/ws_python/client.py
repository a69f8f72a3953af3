"""A client of the native JSON protocol, on the `websockets` library and nothing of ours.

    .tools/venv/bin/python tests/clients/ws_python/client.py URL TOKEN ROOM

The token allows to join and publish in the room. It connects, joins, publishes, sees its own event, asks for
what only a newer server knows, pings, goes away, comes back with `since` and gets exactly what it missed.
Exit code 0 when all of that held.
`websockets` offers compression by default; that the server refuses it politely is part of the test.
"""

import asyncio
import json
import sys

from websockets.asyncio.client import connect

SUBPROTOCOL = "roomcast.v1.json"
# Bounds every single wait; the server's own work takes milliseconds.
PATIENCE_S = 15


class Client:
    """One connection: replies are told from pushes by their id."""

    def __init__(self, socket):
        self.socket = socket
        self.last_id = 0
        self.pushes = []

    @classmethod
    async def open(cls, url, token, **options):
        client = cls(await connect(url, subprotocols=[SUBPROTOCOL], open_timeout=PATIENCE_S, **options))
        check(client.socket.subprotocol == SUBPROTOCOL, "the subprotocol was agreed on", client.socket.subprotocol)
        # One of each kind: a client of tomorrow meets this server in a rolling update.
        names = ["history", "of_tomorrow"]
        body = {"token": token, "client": "ws_python", "features": names}
        connected = await client.command("connect", body, "connected")
        check(connected.get("connectionId"), "a connection has an id", connected)
        has = connected.get("features", [])
        check([name for name in names if name in has] == ["history"], "the server names what it has", connected)
        return client

    async def command(self, name, body, answer):
        self.last_id += 1
        await self.socket.send(json.dumps({"id": self.last_id, name: body}))
        while True:
            frame = await self.receive()
            if frame.get("id", 0) == self.last_id:
                check(answer in frame, f"{name} is answered by {answer}", frame)
                return frame[answer]
            self.pushes.append(frame)

    async def event(self):
        """The next event, skipping other kinds of pushes, as a client must."""
        while True:
            frame = self.pushes.pop(0) if self.pushes else await self.receive()
            if "event" in frame:
                return frame["event"]

    async def receive(self):
        async with asyncio.timeout(PATIENCE_S):
            text = await self.socket.recv()
        check(isinstance(text, str), "the JSON protocol uses text messages", text)
        return json.loads(text)

    async def join(self, room, **options):
        return await self.command("join", {"room": room, **options}, "joined")

    async def publish(self, room, payload):
        body = {"room": room, "eventName": "chat", "payload": payload}
        return await self.command("publish", body, "published")

    async def close(self):
        await self.socket.close()
        check(self.socket.close_code == 1000, "the close is answered in kind", self.socket.close_code)


def check(holds, what, seen):
    if not holds:
        raise AssertionError(f"{what}; seen: {seen!r}")


def position_of(event):
    return {"epoch": event["epoch"], "offset": event["offset"]}


async def story(url, token, room):
    ada = await Client.open(url, token)
    joined = await ada.join(room)
    check("recovered" not in joined, "nothing is recovered without since", joined)

    published = await ada.publish(room, {"text": "héllo ✓", "n": 1})
    check(published.get("reached", 0) >= 1, "the publisher itself is reached", published)
    seen = await ada.event()
    check(seen["room"] == room and seen["eventName"] == "chat", "the event names its room and itself", seen)
    check(seen["payload"] == {"text": "héllo ✓", "n": 1}, "the payload arrives as it was sent", seen)
    check(position_of(seen) == published["position"], "reply and event agree on the position", (seen, published))
    check(seen["timeMs"] > 0, "the server stamps the time", seen)

    async with asyncio.timeout(PATIENCE_S):
        await (await ada.socket.ping(b"are you there"))
    refusal = await ada.command("ofTomorrow", {}, "error")
    check(refusal["reason"] == "unsupported", "what is not known is said to be so", refusal)
    check("ofTomorrow" in refusal["message"], "by its name", refusal)
    pong = await ada.command("ping", {}, "pong")
    check(pong["serverTimeMs"] >= seen["timeMs"], "the clock does not go backwards", pong)
    await ada.close()

    bob = await Client.open(url, token)
    missed = await bob.publish(room, {"text": "while you were away"})
    await bob.close()

    ada = await Client.open(url, token)
    joined = await ada.join(room, since=position_of(seen))
    check(joined.get("recovered") is True, "what was missed is recovered", joined)
    check(joined.get("replayed") == 1, "exactly one event was missed", joined)
    replayed = await ada.event()
    check(replayed["payload"] == {"text": "while you were away"}, "the missed event is handed over", replayed)
    check(position_of(replayed) == missed["position"], "at the position it was published", (replayed, missed))
    check(replayed["previousOffset"] == seen["offset"], "without a gap to the last one seen", (replayed, seen))

    # The next event proves that the missed one does not come twice.
    live = await ada.publish(room, {"text": "live again"})
    following = await ada.event()
    check(position_of(following) == live["position"], "live events follow without a seam", following)
    check(following["previousOffset"] == replayed["offset"], "and without a gap", (following, replayed))
    await ada.close()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        asyncio.run(story(*sys.argv[1:]))
    except (AssertionError, TimeoutError, OSError) as error:
        sys.exit(f"ws_python: {type(error).__name__}: {error}")
    print("ws_python: connected, joined, published, pinged, resumed")
