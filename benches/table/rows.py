"""What is measured: servers, and rows of runs of `roomcast-bench` over them."""

from dataclasses import dataclass, field

PEERS = "benches/peers/target/release"

# How `roomcast-bench` is told which server. The limit is `raw`; for calls it is `echo`.
SERVERS = {
    "roomcast": [],
    "roomcast-protobuf": ["--wire", "protobuf"],
    "roomcast-socketio": ["--wire", "socketio"],
    "roomcast-recovery": ["--wire", "socketio", "--set", "socketio.recovery=2m"],
    "roomcast-polling": ["--wire", "socketio-polling"],
    "roomcast-sse": ["--wire", "sse"],
    "roomcast-2-nodes": ["--nodes", "2"],
    "roomcast-3-nodes": ["--nodes", "3"],
    "roomcast-1-node": ["--nodes", "1"],
    "raw": ["--peer", f"{PEERS}/raw"],
    "tungstenite": ["--peer", f"{PEERS}/tungstenite"],
    "socketioxide": ["--peer", f"{PEERS}/socketioxide", "--wire", "socketio"],
    "socketio-node": ["--peer", "node benches/socketio-node/server.js", "--wire", "socketio"],
    "echo": ["--peer", f"{PEERS}/echo"],
}

# How often a peer is measured that no target names.
OTHERS = {"roomcast-protobuf": 1, "tungstenite": 1, "socketioxide": 1, "socketio-node": 1}

PAIRS = 5
FEWER = 3


@dataclass
class Metric:
    """A number of a report, where it stands and whether its ratio to the limit is told."""

    name: str
    path: str
    ratio: bool = False


@dataclass
class Row:
    """Runs of one scenario over some servers, in turn."""

    name: str
    arguments: str
    metrics: list
    # How often each server is measured. Those measured in the same round make a pair.
    rounds: dict
    # What ratios are to; none where there is nothing to compare with.
    limit: str = "raw"
    # Arguments of one server alone.
    own: dict = field(default_factory=dict)
    # What is aimed at, in words.
    target: str = ""
    # For plots: what grows, and what it is here.
    x: tuple = ()


CPU = Metric("CPU us per delivery", "gateway.cpu_us_per_delivery", ratio=True)
LATENCY = [Metric(f"{share} ms", f"latency_ms.{key}") for share, key in [("p50", "p50"), ("p99", "p99"), ("p99.9", "p99_9")]]
DELIVERED = Metric("deliveries per second", "deliveries_per_second")
GENERATOR = Metric("generator CPU us per delivery", "generator.cpu_us_per_delivery")
FANOUT = [CPU, *LATENCY, DELIVERED, GENERATOR]
IDLE = [
    Metric("bytes per connection", "slope_bytes_per_connection"),
    Metric("heartbeat CPU us per connection and second", "heartbeat_cpu_us_per_connection_second"),
    Metric("connects per second", "steps.-1.connects_per_second"),
    Metric("CPU us per connect", "steps.-1.cpu_us_per_connect"),
    Metric("memory after, percent of before", "memory_after_percent_of_before"),
    Metric("resident after, percent of before", "resident_after_percent_of_before"),
    Metric("memory after, percent of full", "memory_after_percent_of_full"),
]


def fanout(name, arguments, pairs, others=OTHERS, **more):
    """A row of `fanout`: the gateway and the limit in pairs, the other peers beside them."""
    rounds = {"roomcast": pairs, "raw": pairs, **others}
    return Row(name, f"fanout {arguments}", FANOUT, rounds, **more)


def publish(method):
    """A row of `publish` beside the bare call."""
    metrics = [
        Metric("publishes per second", "methods.0.published_per_second", ratio=True),
        Metric("CPU us per publish", "methods.0.server_cpu_us_per_publish", ratio=True),
    ]
    arguments = f"publish --publish-with {method} --duration 3s"
    return Row(
        f"publish-{method}", arguments, metrics, {"roomcast": FEWER, "echo": FEWER}, limit="echo", target="rate >= 0.6"
    )


def protocols(name, arguments, **more):
    """A row of the gateway's protocols beside its native one; Socket.IO's polls are counted as well."""
    polls = [Metric("polls per second", "polls_per_second"), Metric("CPU us per poll", "gateway.cpu_us_per_poll")]
    rounds = {"roomcast": PAIRS, "roomcast-socketio": PAIRS, "roomcast-recovery": FEWER, "roomcast-sse": FEWER, "roomcast-polling": FEWER}
    return Row(f"protocols-{name}", f"fanout {arguments}", [*FANOUT, *polls], rounds, limit="roomcast", **more)


NODES = [
    Metric("CPU us per event, first node", "nodes.cpu_us_per_event.0"),
    Metric("CPU us per event, last node", "nodes.cpu_us_per_event.-1"),
    Metric("CPU us per event, nats-server", "nodes.nats_cpu_us_per_event"),
]


def over_nats(name, arguments, servers=("roomcast-2-nodes",)):
    """A row of several nodes over NATS beside one gateway with its bus in the process."""
    latency = [Metric(metric.name, metric.path, ratio=True) for metric in LATENCY[:2]]
    metrics = [*latency, Metric("events per second", "published_per_second", ratio=True), *NODES]
    rounds = dict.fromkeys([*servers, "roomcast"], FEWER)
    return Row(name, f"fanout {arguments}", metrics, rounds, limit="roomcast")


def publish_over_nats(method):
    """A row of `publish` at one node over NATS beside a gateway with its bus in the process."""
    metrics = [
        Metric("publishes per second", "methods.0.published_per_second", ratio=True),
        Metric("CPU us per publish", "methods.0.server_cpu_us_per_publish", ratio=True),
        Metric("CPU us per publish, nats-server", "methods.0.nats_cpu_us_per_publish"),
    ]
    rounds = {"roomcast-1-node": FEWER, "roomcast": FEWER}
    return Row(f"nats-publish-{method}", f"publish --publish-with {method} --duration 3s", metrics, rounds, limit="roomcast")


def alone(name, arguments, metrics, rounds=FEWER, **more):
    """A row of the gateway alone."""
    return Row(name, arguments, metrics, {"roomcast": rounds}, limit="", **more)


# Slow peers get an eighth of the events at saturation, or a run would take a minute.
SLOW = {
    1000: {"socketio-node": ["--events", "480"], "socketioxide": ["--events", "1600"]},
    5000: {"socketio-node": ["--events", "96"], "socketioxide": ["--events", "320"]},
}

ROWS = [
    fanout("fanout-1000", "--members 1000 --rate 10 --events 50", PAIRS, target="CPU <= 1.15"),
    fanout("fanout-5000", "--members 5000 --rate 4 --events 20 --warmup 4", PAIRS, target="CPU <= 1.15"),
    fanout("fanout-10", "--members 10 --rate 100 --events 500 --warmup 50", FEWER),
    fanout("rooms-1000x10", "--members 10000 --rooms 1000 --rate 1 --events 4 --warmup 1", FEWER),
    fanout("burst-1000", "--members 1000 --rate 80 --burst 8 --events 400 --warmup 80", PAIRS, target="CPU <= 1.3"),
    fanout("burst-5000", "--members 5000 --rate 24 --burst 8 --events 120 --warmup 24", PAIRS, target="CPU <= 1.3"),
    fanout(
        "saturate-1000",
        "--members 1000 --saturate 16 --burst 8 --events 3200 --warmup 160",
        PAIRS,
        own=SLOW[1000],
        target="CPU <= 1.3",
    ),
    fanout(
        "saturate-5000",
        "--members 5000 --saturate 16 --burst 8 --events 640 --warmup 64",
        PAIRS,
        own=SLOW[5000],
        target="CPU <= 1.3",
    ),
    fanout("ephemeral-1000", "--members 1000 --rate 10 --events 40 --retention ephemeral", FEWER, others={}),
    Row(
        "idle",
        "idle --members 5000,15000",
        IDLE,
        {"roomcast": 1, "raw": 1, "tungstenite": 1, "socketioxide": 1, "socketio-node": 1},
        limit="",
        # Two intervals of the gateway's heartbeat; the peers' are not compared.
        own={
            "roomcast": ["--hold", "50s"],
            **{peer: ["--hold", "1s", "--alone", "1s"] for peer in ("raw", "tungstenite", "socketioxide", "socketio-node")},
        },
        target="<= 1024 B, <= 2 us, <= 115 %",
    ),
    protocols("1000", "--members 1000 --rate 10 --events 50", target="socketio <= 1.25, recovery <= 1.4"),
    protocols("5000", "--members 5000 --rate 4 --events 20 --warmup 4", target="socketio <= 1.25, recovery <= 1.4"),
    protocols("burst-1000", "--members 1000 --rate 80 --burst 8 --events 400 --warmup 80", target="socketio <= 1.25, recovery <= 1.4"),
    protocols("saturate-1000", "--members 1000 --saturate 16 --burst 8 --events 1600 --warmup 160", target="socketio <= 1.25, recovery <= 1.4"),
    Row(
        "protocols-idle",
        "idle --members 5000,15000 --hold 50s",
        IDLE,
        dict.fromkeys(("roomcast", "roomcast-socketio", "roomcast-recovery", "roomcast-sse", "roomcast-polling"), 1),
        limit="",
        target="socketio <= 1280 B, polling <= 2560 B",
    ),
    publish("unary"),
    publish("batch"),
    publish("stream"),
    alone(
        "neighbour",
        "neighbour --duration 8s",
        [
            Metric("p99 ms alone", "alone_ms.p99"),
            Metric("p99 ms beside", "beside_ms.p99"),
            Metric("p99 ms of the large room", "large_ms.p99"),
        ],
        rounds=PAIRS,
        target="beside <= 2x alone, or + 5 ms",
    ),
    alone(
        "stalled",
        "stalled --duration 12s",
        [
            Metric("p99 ms without", "without.latency_ms.p99"),
            Metric("p99 ms with", "with.latency_ms.p99"),
            Metric("most private bytes without", "without.private_bytes_max"),
            Metric("most private bytes with", "with.private_bytes_max"),
        ],
        rounds=2,
        target="with <= 1.1x without, or + 5 ms",
    ),
    alone(
        "joins",
        "joins --duration 3s",
        [
            Metric("joins and leaves per second", "joins_and_leaves_per_second"),
            Metric("CPU us each", "cpu_us_each"),
        ],
    ),
    alone(
        "resumes",
        "resumes",
        [
            Metric("resumes per second", "rounds.-1.resumes_per_second"),
            Metric("CPU us each", "rounds.-1.cpu_us_each"),
        ],
    ),
    # The first node is published to, the last one has the members; events go through NATS.
    over_nats("nats-fanout-1", "--members 1 --rate 200 --events 1000 --warmup 100"),
    over_nats("nats-fanout-10", "--members 10 --rate 100 --events 500 --warmup 50"),
    over_nats("nats-fanout-1000", "--members 1000 --rate 10 --events 50"),
    over_nats(
        "nats-saturate",
        "--members 100 --rooms 100 --saturate 16 --burst 8 --events 400 --warmup 40",
        servers=("roomcast-1-node", "roomcast-3-nodes"),
    ),
    # The second of three nodes has no member and nothing to publish.
    Row(
        "nats-bystander",
        "fanout --members 1 --rate 1000 --events 10000 --warmup 500",
        [
            Metric("CPU us per event, node without members", "nodes.cpu_us_per_event.1"),
            Metric("CPU percent, node without members", "nodes.cpu_percent.1"),
            Metric("CPU us per event, node with members", "nodes.cpu_us_per_event.2"),
        ],
        {"roomcast-3-nodes": FEWER},
        limit="",
    ),
    publish_over_nats("unary"),
    publish_over_nats("batch"),
    publish_over_nats("stream"),
]


def growing(kind, x, arguments, metrics=(CPU,)):
    """A row of a plot: the gateway and the limit once."""
    name = f"growth-{kind}-{x}"
    return Row(name, arguments, list(metrics), {"roomcast": 1, "raw": 1}, x=(kind, x))


def growth():
    """What grows: members of a room, rooms, connections."""
    for members, rate, events in [(10, 100, 300), (100, 50, 150), (1000, 10, 30), (10_000, 2, 6)]:
        arguments = f"fanout --members {members} --rate {rate} --events {events} --warmup {max(2, rate // 2)}"
        yield growing("members", members, arguments)
    # As many members and events all in all; from 1,000 rooms on the others are rooms in which nothing happens.
    for rooms in [1, 10, 100, 1000, 10_000, 100_000]:
        active, other = min(rooms, 1000), max(rooms // 1000 - 1, 0)
        rate, events = (10, 30) if active < 1000 else (2, 6)
        load = f"--rate {rate} --events {events} --warmup 2"
        arguments = f"fanout --members 1000 --rooms {active} --other-rooms {other} {load}"
        yield growing("rooms", rooms, arguments)
    for connections in [1000, 5000, 10_000, 15_000]:
        metrics = [
            Metric("private bytes", "steps.-1.memory.private_bytes"),
            Metric("CPU us per connect", "steps.-1.cpu_us_per_connect"),
        ]
        yield growing("connections", connections, f"idle --members {connections} --hold 1s --alone 1s", metrics)


ROWS += growth()
