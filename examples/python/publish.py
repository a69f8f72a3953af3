"""Publishes numbered events to a room of a running gateway, through the client generated from proto/.

    python3 -m venv .venv && .venv/bin/pip install grpcio grpcio-tools
    .venv/bin/python -m grpc_tools.protoc -I ../../proto --python_out=. --grpc_python_out=. ../../proto/roomcast/v1/*.proto
    .venv/bin/python publish.py --token "$ROOMCAST_SERVICE_TOKEN" --room lobby --count 5

Each event has an idempotency key, so a call that is repeated after a deadline stores nothing twice.
"""

import argparse
import json
import sys
import time

import grpc
from roomcast.v1 import publish_pb2, publish_pb2_grpc, types_pb2

# Not done, or not known: the same call with the same key may be made again.
REPEATABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", default="127.0.0.1:50051", help="where the gateway takes gRPC")
    parser.add_argument("--token", required=True, help="a service token; `roomcast dev` prints one")
    parser.add_argument("--tenant", default="default")
    parser.add_argument("--room", required=True)
    parser.add_argument("--count", type=int, default=1, help="how many events")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between two of them")
    parser.add_argument("--run", default=str(time.time_ns()), help="makes the idempotency keys of this run")
    return parser.parse_args()


def publish(stub, options, number):
    request = publish_pb2.PublishRequest(
        tenant=options.tenant,
        targets=[types_pb2.Target(room=options.room)],
        event_name="example:counted",
        payload=types_pb2.Payload(json=json.dumps({"number": number})),
        idempotency_key=f"{options.run}-{number}",
    )
    metadata = [("authorization", f"Bearer {options.token}")]
    for attempt in range(5):
        try:
            return stub.Publish(request, metadata=metadata, timeout=5).results[0]
        except grpc.RpcError as error:
            if error.code() not in REPEATABLE or attempt == 4:
                raise
            time.sleep(0.2 * 2**attempt)


def main():
    options = arguments()
    with grpc.insecure_channel(options.address) as channel:
        stub = publish_pb2_grpc.PublishServiceStub(channel)
        for number in range(1, options.count + 1):
            result = publish(stub, options, number)
            print(f"{number}: offset {result.position.offset}, reached {result.reached}", flush=True)
            time.sleep(options.interval)


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
