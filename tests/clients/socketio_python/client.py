"""The story of a stock Socket.IO client, on the python-socketio library and nothing of ours, for each of its transports.

    .tools/venv/bin/python tests/clients/socketio_python/client.py \
        ADDRESS ADAS_TOKEN BOBS_TOKEN GRPC_ADDRESS SERVICE_TOKEN TENANT

The tokens allow to join and publish in every room; the gateway lets a client publish some thousand events a second. Exit
code 0 when all of the story held; otherwise the first thing that did not is printed, with the transport it was seen on.
"""

import base64
import json
import os
import queue
import sys
import threading
import traceback
import urllib.error
import urllib.request

import socketio

# Bounds every single wait; the server's own work takes milliseconds.
PATIENCE_S = 15

# Whether each request reaches another of several nodes. An upgrade succeeds on the node of the connection only, and a node that
# is busy may not say in time whom an event reaches.
BY_TURNS = "ROOMCAST_BY_TURNS" in os.environ

CARRIERS = {
    "polling only": ["polling"],
    "WebSocket only": ["websocket"],
    "polling, then an upgrade": None,
}


class Backend:
    """Calls of a backend: the HTTP mirror, and gRPC-Web where the mirror has no such call."""

    def __init__(self, address, token, tenant):
        self.url = f"http://{address}"
        self.token = token
        self.tenant = tenant

    def publish(self, room, name, payload):
        if isinstance(payload, bytes):
            content = {"payloadBase64": base64.b64encode(payload).decode()}
        else:
            content = {"payload": payload}
        event = {"tenant": self.tenant, "eventName": name, "targets": [{"room": room}], **content}
        self._post("/v1/publish", "application/json", json.dumps(event).encode())

    def ask(self, connection_id, method, payload, timeout="15s"):
        """The client's answer, or the reason why there is none."""
        if isinstance(payload, bytes):
            content = {"payloadBase64": base64.b64encode(payload).decode()}
        else:
            content = {"payload": payload}
        ask = {"tenant": self.tenant, "connectionId": connection_id, "method": method, "timeout": timeout, **content}
        try:
            answer = json.loads(self._post("/v1/ask", "application/json", json.dumps(ask).encode()))
        except urllib.error.HTTPError as error:
            return json.loads(error.read())["reason"]
        if "payloadBase64" in answer:
            return base64.b64decode(answer["payloadBase64"])
        return answer["payload"]

    def disconnect(self, connection_id, may_reconnect):
        def text(field, value):
            return bytes([field << 3 | 2, len(value)]) + value.encode()

        message = text(1, self.tenant) + text(3, connection_id) + (b"\x30\x01" if may_reconnect else b"")
        body = b"\0" + len(message).to_bytes(4, "big") + message
        path = "/roomcast.v1.ConnectionService/Disconnect"
        answer = self._post(path, "application/grpc-web+proto", body)
        assert b"grpc-status:0" in answer.replace(b" ", b""), answer

    def _post(self, path, kind, body):
        headers = {"authorization": f"Bearer {self.token}", "content-type": kind}
        request = urllib.request.Request(self.url + path, body, headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return response.read()


class Person:
    """One client: collects what it is sent."""

    def __init__(self):
        # For one that comes back: its usual pause is a second.
        # The library gives up a POST after 5 s, and its connection with it: a machine with other work may take longer.
        self.client = socketio.Client(reconnection_delay=0.02, reconnection_delay_max=0.02, request_timeout=60)
        self.events = queue.Queue()
        self.connects = queue.Queue()
        self.disconnects = queue.Queue()
        self.errors = queue.Queue()
        self.client.on("connect", lambda: self.connects.put(True))
        self.client.on("disconnect", self.disconnects.put)
        self.client.on("connect_error", self.errors.put)
        self.client.on("*", lambda name, *arguments: self.events.put((name, arguments)))

    def connect(self, url, token, transports):
        self.client.connect(url, auth={"token": token}, transports=transports, wait_timeout=PATIENCE_S)
        self.connects.get(timeout=PATIENCE_S)
        return self

    def ask(self, name, argument):
        return self.client.call(name, argument, timeout=PATIENCE_S)

    def command(self, name, **fields):
        answer = self.ask(f"roomcast:{name}", fields)
        assert answer.get("ok") is True, f"{name} is carried out: {answer}"
        return answer

    def publish(self, room, name, payload):
        return self.command("publish", room=room, eventName=name, payload=payload)

    def next(self, wanted):
        """The next event, which has this name. The gateway's own events are passed over unless one is asked for."""
        while True:
            name, arguments = self.events.get(timeout=PATIENCE_S)
            if name == wanted:
                assert len(arguments) == 1, f"an event has one argument: {arguments}"
                return arguments[0]
            assert name.startswith("roomcast:"), f"{name} is not what comes next: {wanted}"


def reaches(published, count):
    return published.get("reached", count if BY_TURNS else None) == count


def meeting(ada, bob, backend, room):
    joined = bob.command("join", room=room, presence="members")
    assert joined["presence"]["members"] == [{"userId": "bob", "connectionCount": 1}], joined
    ada.command("join", room=room, presence="members")
    delta = bob.next("roomcast:presenceDelta")
    assert [member["userId"] for member in delta["joined"]] == ["ada"], delta
    payload = {"text": "héllo ✓ \u2028", "n": 1.5, "deep": [[{}]], "none": None}
    assert reaches(ada.publish(room, "chat", payload), 2)
    backend.publish(room, "news", [1, "two"])
    for person in (ada, bob):
        assert person.next("chat") == payload
        assert person.next("news") == [1, "two"]


def binary(ada, bob, backend, room):
    sizes = [0, 1, 2, 3, 125, 126, 127, 128, 1000, 65_535, 65_536]
    blobs = [bytes(size) for size in sizes] + [b"\x04", b"4", b"b", b"4x", b"451-[]", b"b4\x1eb4", bytes(range(256))]
    for blob in blobs:
        assert reaches(ada.publish(room, "blob", blob), 2)
        backend.publish(room, "file", blob)
        for person in (ada, bob):
            for name in ("blob", "file"):
                assert person.next(name) == blob, f"{len(blob)} bytes arrive as they were sent"


def refusals(ada, room):
    def reason(name, argument):
        return ada.ask(name, argument)["error"]["reason"]

    assert reason("chat", {"text": "to nobody"}) == "unhandled_event"
    assert reason("chat", b"to nobody") == "unhandled_event"
    assert reason("roomcast:ofTomorrow", {}) == "unsupported"
    assert reason("roomcast:publish", {"room": room, "eventName": "connect", "payload": 1}) == "invalid_event_name"
    ada.client.emit("chat", "to nobody, without an acknowledgement")
    assert ada.command("ping")["serverTimeMs"] > 0


def stream(ada, bob, backend, room):
    """Many events at once: the library refuses an answer of more than 16 packets and ends the connection."""
    ada.command("join", room=room)
    for n in range(50):
        ada.publish(room, "many", n)
    ada.command("leave", room=room)
    assert [ada.next("many") for _ in range(50)] == list(range(50))
    # All of them are queued at once, behind the acknowledgement.
    joined = ada.command("join", room=room, rewind=50)
    assert joined["replayed"] == 50, joined
    assert [ada.next("many") for _ in range(50)] == list(range(50))

    bob.command("join", room=room)
    sender = threading.Thread(target=lambda: [backend.publish(room, "down", n) for n in range(200)])
    sender.start()
    for n in range(200):
        ada.client.emit("roomcast:publish", {"room": f"{room}:up", "eventName": "up", "payload": n})
    sender.join()
    for person in (ada, bob):
        assert [person.next("down") for _ in range(200)] == list(range(200)), "each once and in order"
    head = ada.command("history", room=f"{room}:up", limit=200)
    assert [event["payload"] for event in head["events"]] == list(range(200)), "so did what the client sent"


def wrong_token(url, token, transports):
    person = Person()
    try:
        person.connect(url, "of nobody", transports)
        raise AssertionError("a token of nobody was accepted")
    except socketio.exceptions.ConnectionError:
        error = person.errors.get(timeout=PATIENCE_S)
    assert error["data"]["code"] == "unauthenticated", error
    assert "authentication" in error["message"], error
    person.connect(url, token, transports)
    person.client.disconnect()


def kicked(url, token, backend, transports):
    """A client that may come back does so by itself; one that was told to stay away does not."""
    ada = Person().connect(url, token, transports)
    backend.disconnect(ada.client.get_sid(), True)
    assert ada.disconnects.get(timeout=PATIENCE_S) == ada.client.reason.TRANSPORT_ERROR
    ada.connects.get(timeout=PATIENCE_S)
    backend.disconnect(ada.client.get_sid(), False)
    assert ada.disconnects.get(timeout=PATIENCE_S) == ada.client.reason.SERVER_DISCONNECT
    # Returns once the library neither has a connection nor tries to have one.
    waiter = threading.Thread(target=ada.client.wait, daemon=True)
    waiter.start()
    waiter.join(PATIENCE_S)
    assert not waiter.is_alive(), "it does not try again"
    assert ada.connects.empty()


def asked(url, token, backend, transports):
    """A backend asks, and gets what a handler returns."""
    ada = Person().connect(url, token, transports)
    ada.client.on("nothing", lambda data: None)
    ada.client.on("same", lambda data: data)
    ada.client.on("several", lambda data: (data, "two", [3]))
    connection = ada.client.get_sid()
    assert backend.ask(connection, "nothing", 1) is None
    for payload in ({"text": "héllo", "deep": [[{}]]}, [1, "two"], b"", b"\x04 4 b", bytes(20_000)):
        assert backend.ask(connection, "same", payload) == payload, payload
    assert backend.ask(connection, "several", 1) == [1, "two", [3]]
    ada.client.disconnect()
    # The library does not wait for its last POST, nor always send it: then the gateway learns of the end by its ping.
    reason = 1
    while reason in (1, "CONNECTION_LOST", "NO_ANSWER"):
        reason = backend.ask(connection, "same", 1, timeout="1s")
    assert reason == "CONNECTION_NOT_FOUND", reason


def story(carrier, transports, address, adas_token, bobs_token, backend):
    url = f"http://{address}"
    ada = Person().connect(url, adas_token, transports)
    bob = Person().connect(url, bobs_token, transports)
    expected = "polling" if transports == ["polling"] else "websocket"
    assert BY_TURNS or ada.client.transport() == expected
    meeting(ada, bob, backend, f"python:{carrier}:meeting")
    binary(ada, bob, backend, f"python:{carrier}:meeting")
    refusals(ada, f"python:{carrier}:meeting")
    stream(ada, bob, backend, f"python:{carrier}:stream")
    wrong_token(url, adas_token, transports)
    for person in (ada, bob):
        person.client.disconnect()
    asked(url, adas_token, backend, transports)
    kicked(url, adas_token, backend, transports)


def main():
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    address, adas_token, bobs_token, grpc, service_token, tenant = sys.argv[1:]
    backend = Backend(grpc, service_token, tenant)
    for carrier, transports in CARRIERS.items():
        try:
            story(carrier, transports, address, adas_token, bobs_token, backend)
        except Exception:
            traceback.print_exc()
            sys.exit(f"socketio_python, {carrier}: failed")
        print(f"socketio_python, {carrier}: the whole story held")


main()
