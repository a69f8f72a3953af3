"""Calls a running gateway through the generated Python client; see ../README.md."""

import os
import sys
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from roomcast.v1 import publish_pb2, publish_pb2_grpc, room_pb2, room_pb2_grpc, types_pb2, watch_pb2, watch_pb2_grpc

TIMEOUT_S = 10


class Failed(Exception):
    """A check that did not hold."""


def must(holds, text):
    if not holds:
        raise Failed(text)


def refusal(call):
    """Returns the error a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise Failed("the call succeeded, and should not have")


def publication(tenant, room, event):
    return publish_pb2.PublishRequest(
        tenant=tenant,
        targets=[types_pb2.Target(room=room)],
        event_name=event,
        retention=types_pb2.RETENTION_RELIABLE,
        payload=types_pb2.Payload(json='{"from": "python"}'),
        idempotency_key=uuid.uuid4().hex,
    )


def check_publish(stub, auth, tenant, room):
    request = publication(tenant, room, "smoke")
    first = stub.Publish(request, metadata=auth, timeout=TIMEOUT_S).results
    must(len(first) == 1, f"one target has {len(first)} results")
    must(first[0].room == room, f"the result names the room {first[0].room!r}")
    must(first[0].HasField("reached") and first[0].reached == 0, f"an empty room reached {first[0].reached}")
    must(first[0].position.offset > 0 and first[0].position.epoch, f"no position: {first[0].position}")
    must(not first[0].duplicate, "the first publish is called a duplicate")
    again = stub.Publish(request, metadata=auth, timeout=TIMEOUT_S).results[0]
    must(again.duplicate and again.position == first[0].position, f"the repeated publish answers {again}")
    return f"reached 0 at offset {again.position.offset}, repeated as a duplicate"


def check_members(stub, auth, tenant, room):
    request = room_pb2.ListMembersRequest(tenant=tenant, room=room)
    answer = stub.ListMembers(request, metadata=auth, timeout=TIMEOUT_S)
    must(not answer.members and answer.member_count == 0, f"an empty room has members: {answer}")
    return "none in an empty room"


def check_error(stub, auth, tenant, room):
    request = publication(tenant, room, "bad\u0007name")
    error = refusal(lambda: stub.Publish(request, metadata=auth, timeout=TIMEOUT_S))
    must(error.code() == grpc.StatusCode.INVALID_ARGUMENT, f"{error.code()}: {error.details()}")
    status = rpc_status.from_call(error)
    must(status is not None, "the error has no details")
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    must(any(detail.Unpack(info) for detail in status.details), "no ErrorInfo in the details")
    must(any(detail.Unpack(bad) for detail in status.details), "no BadRequest in the details")
    must((info.domain, info.reason) == ("roomcast", "INVALID_EVENT_NAME"), f"ErrorInfo is {info}")
    fields = [violation.field for violation in bad.field_violations]
    must(fields == ["event_name"], f"BadRequest names {fields}")
    return f"{error.code().name} {info.reason} in field {fields[0]}"


def check_deadline(rooms, watch, auth, tenant, room):
    request = room_pb2.ListMembersRequest(tenant=tenant, room=room)
    error = refusal(lambda: rooms.ListMembers(request, metadata=auth, timeout=-1))
    must(error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, f"expired: {error.code()}: {error.details()}")
    kinds = []
    error = refusal(lambda: read_kinds(watch, auth, tenant, kinds))
    must(error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, f"watch: {error.code()}: {error.details()}")
    must(kinds[:1] == ["started"], f"the watch begins with {kinds[:1]}")
    return "DEADLINE_EXCEEDED, before a call and during a watch"


def read_kinds(watch, auth, tenant, kinds):
    for message in watch.Watch(watch_pb2.WatchRequest(tenants=[tenant]), metadata=auth, timeout=0.3):
        kinds.append(message.WhichOneof("event"))


def main():
    target, token = os.environ["ROOMCAST_GRPC"], os.environ["ROOMCAST_TOKEN"]
    tenant = os.environ.get("ROOMCAST_TENANT") or "default"
    auth = [("authorization", f"Bearer {token}")]
    room = f"smoke-python-{uuid.uuid4().hex}"
    with grpc.insecure_channel(target) as channel:
        publish = publish_pb2_grpc.PublishServiceStub(channel)
        rooms = room_pb2_grpc.RoomServiceStub(channel)
        watch = watch_pb2_grpc.WatchServiceStub(channel)
        checks = {
            "publish": lambda: check_publish(publish, auth, tenant, room),
            "members": lambda: check_members(rooms, auth, tenant, room),
            "error": lambda: check_error(publish, auth, tenant, room),
            "deadline": lambda: check_deadline(rooms, watch, auth, tenant, room),
        }
        for name, check in checks.items():
            try:
                print(f"python {name}: ok, {check()}", flush=True)
            except Failed as failure:
                sys.exit(f"python {name}: FAILED, {failure}")
            except grpc.RpcError as error:
                sys.exit(f"python {name}: FAILED, {error.code().name}: {error.details()}")


if __name__ == "__main__":
    for name in ("ROOMCAST_GRPC", "ROOMCAST_TOKEN"):
        if not os.environ.get(name):
            sys.exit(f"python: {name} is not set; see tests/clients/README.md")
    main()
