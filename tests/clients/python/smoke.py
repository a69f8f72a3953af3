"""Calls a running gateway through the generated Python client; see ../README.md."""

import os
import sys
import uuid

import grpc
from google.protobuf import duration_pb2, timestamp_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from roomcast.v1 import access_pb2, access_pb2_grpc, connection_pb2, connection_pb2_grpc, publish_pb2, publish_pb2_grpc
from roomcast.v1 import room_pb2, room_pb2_grpc, subscribe_pb2, subscribe_pb2_grpc, types_pb2, user_pb2, user_pb2_grpc
from roomcast.v1 import watch_pb2, watch_pb2_grpc

TIMEOUT_S = 60


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
    must(not again.HasField("reached"), f"a duplicate knows whom it reached: {again}")
    return f"reached 0 at offset {again.position.offset}, repeated as a duplicate"


def check_batch(stub, auth, tenant, room):
    requests = [publication(tenant, room, "smoke"), publication(tenant, room, "bad\u0007name")]
    batch = publish_pb2.PublishBatchRequest(requests=requests)
    results = stub.PublishBatch(batch, metadata=auth, timeout=TIMEOUT_S).results
    must([result.WhichOneof("outcome") for result in results] == ["response", "error"], f"the batch answers {results}")
    must(results[0].response.results[0].position.offset > 0, f"no position: {results[0]}")
    must(item_reason(results[1].error) == "INVALID_EVENT_NAME", f"the refused one answers {results[1]}")
    return "one accepted, one refused"


def check_stream(stub, auth, tenant, room):
    first = publication(tenant, room, "smoke")
    requests = [(7, first), (8, publication(tenant, room, "bad\u0007name")), (9, first)]
    sent = (publish_pb2.PublishStreamRequest(sequence=sequence, request=request) for sequence, request in requests)
    answers = list(stub.PublishStream(sent, metadata=auth, timeout=TIMEOUT_S))
    must([answer.sequence for answer in answers] == [7, 8, 9], f"the stream answers {answers}")
    accepted, refused, again = answers
    must(accepted.response.results[0].position.offset > 0, f"no position: {accepted}")
    must(item_reason(refused.error) == "INVALID_EVENT_NAME", f"the refused one answers {refused}")
    must(again.response.results[0].duplicate, f"the repeated one answers {again}")
    return "each answered by its sequence, in order"


def item_reason(status):
    """Returns the machine-readable reason of a refused item."""
    must(status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0], f"the item is refused with {status.code}")
    info = error_details_pb2.ErrorInfo()
    must(any(detail.Unpack(info) for detail in status.details), "no ErrorInfo in the details")
    return info.reason


def check_members(stub, auth, tenant, room):
    request = room_pb2.ListMembersRequest(tenant=tenant, room=room)
    answer = stub.ListMembers(request, metadata=auth, timeout=TIMEOUT_S)
    must(not answer.members and answer.member_count == 0, f"an empty room has members: {answer}")
    request.page_size = -1
    error = refusal(lambda: stub.ListMembers(request, metadata=auth, timeout=TIMEOUT_S))
    must(reason_of(error) == "INVALID_FIELD", f"a negative page size: {reason_of(error)}")
    return "none in an empty room, no page of a negative size"


def check_room(stub, auth, tenant, room):
    stats = stub.GetRoomStats(
        room_pb2.GetRoomStatsRequest(tenant=tenant, room=room), metadata=auth, timeout=TIMEOUT_S
    )
    must(stats.history_count == 1 and stats.connection_count == 0, f"the room's figures are {stats}")
    request = room_pb2.ListHistoryRequest(tenant=tenant, room=room, page_size=10)
    page = stub.ListHistory(request, metadata=auth, timeout=TIMEOUT_S)
    names = [(event.event_name, event.retention) for event in page.events]
    must(names == [("smoke", types_pb2.RETENTION_RELIABLE)], f"the history is {names}")
    must(page.head == stats.head == page.events[0].position, f"the head is {page.head}")
    join = room_pb2.JoinRoomRequest(tenant=tenant, room=room, user_id="nobody")
    joined = stub.JoinRoom(join, metadata=auth, timeout=TIMEOUT_S)
    must(joined.joined_connection_count == 0 and joined.head == page.head, f"joined is {joined}")
    leave = room_pb2.LeaveRoomRequest(tenant=tenant, room=room, user_id="nobody", reason="moved", message="It moved.")
    must(stub.LeaveRoom(leave, metadata=auth, timeout=TIMEOUT_S).left_connection_count == 0, "nobody left")
    return f"one event at the head {page.head.offset}"


def check_users(users, connections, auth, tenant):
    request = user_pb2.ListUserRoomsRequest(tenant=tenant, user_id="nobody", page_size=1)
    answer = users.ListUserRooms(request, metadata=auth, timeout=TIMEOUT_S)
    must(answer.connection_count == 0 and not answer.rooms, f"nobody is connected: {answer}")
    request = connection_pb2.DisconnectRequest(tenant=tenant, connection_id="f" * 32, reason="gone", message="Bye.")
    error = refusal(lambda: connections.Disconnect(request, metadata=auth, timeout=TIMEOUT_S))
    must(reason_of(error) == "CONNECTION_NOT_FOUND", f"disconnecting nobody: {reason_of(error)}")
    request = connection_pb2.DisconnectRequest(tenant=tenant, user_id="nobody", reason="Not a word")
    error = refusal(lambda: connections.Disconnect(request, metadata=auth, timeout=TIMEOUT_S))
    must(reason_of(error) == "INVALID_FIELD", f"a reason that is no word: {reason_of(error)}")
    ask = connection_pb2.AskRequest(tenant=tenant, connection_id="f" * 32, method="confirm")
    ask.payload.json = "1"
    ask.timeout.FromMilliseconds(500)
    error = refusal(lambda: connections.Ask(ask, metadata=auth, timeout=TIMEOUT_S))
    must(reason_of(error) == "CONNECTION_NOT_FOUND", f"asking nobody: {reason_of(error)}")
    return "nobody is connected, nobody is disconnected or asked"


def check_access(stub, auth, tenant, room):
    user = f"user-{uuid.uuid4().hex}"
    revoke = access_pb2.RevokeRequest(
        tenant=tenant,
        user_id=user,
        room=room,
        ttl=duration_pb2.Duration(seconds=60),
        reason="smoke",
        message="For a test.",
    )
    revoked = stub.Revoke(revoke, metadata=auth, timeout=15)
    must(revoked.revocation_id and revoked.confirmed_node_ids, f"revoked is {revoked}")
    list_request = access_pb2.ListRevocationsRequest(tenant=tenant, user_id=user)
    listed = stub.ListRevocations(list_request, metadata=auth, timeout=TIMEOUT_S).revocations
    must([one.revocation_id for one in listed] == [revoked.revocation_id], f"listed are {listed}")
    must((listed[0].user_id, listed[0].room, listed[0].reason) == (user, room, "smoke"), f"listed are {listed}")
    restore = access_pb2.RestoreRequest(tenant=tenant, revocation_id=revoked.revocation_id)
    restored = stub.Restore(restore, metadata=auth, timeout=15)
    must(list(restored.confirmed_node_ids) == list(revoked.confirmed_node_ids), f"restored is {restored}")
    again = stub.Restore(restore, metadata=auth, timeout=15)
    must(again == restored, f"restored again is {again}")
    restore.revocation_id = "f" * len(revoked.revocation_id)
    error = refusal(lambda: stub.Restore(restore, metadata=auth, timeout=15))
    must(error.code() == grpc.StatusCode.NOT_FOUND, f"restoring what is not: {error.code()}")
    must(reason_of(error) == "REVOCATION_NOT_FOUND", f"restoring what is not: {reason_of(error)}")
    listed = stub.ListRevocations(list_request, metadata=auth, timeout=TIMEOUT_S).revocations
    must(not listed, f"a restored one is listed: {listed}")
    explain = access_pb2.ExplainRequest(
        tenant=tenant, claims_json='{"sub": "ada"}', action=types_pb2.ACTION_PUBLISH, room=room, event_name="smoke"
    )
    explained = stub.Explain(explain, metadata=auth, timeout=TIMEOUT_S)
    must(explained.decision == types_pb2.DECISION_ALLOW and explained.rule, f"explained is {explained}")
    return f"revoked, listed, restored; allowed by `{explained.rule}`"


def check_subjects(stub, auth, tenant):
    before = timestamp_pb2.Timestamp(seconds=1_700_000_000)
    subjects = {"connection_id": "f" * 32, "token_id": f"token-{uuid.uuid4().hex}"}
    for name, subject in subjects.items():
        revoke = access_pb2.RevokeRequest(
            tenant=tenant,
            everything=access_pb2.EverythingScope(),
            issued_before=before,
            ttl=duration_pb2.Duration(seconds=60),
            **{name: subject},
        )
        revocation_id = stub.Revoke(revoke, metadata=auth, timeout=15).revocation_id
        list_request = access_pb2.ListRevocationsRequest(tenant=tenant)
        listed = stub.ListRevocations(list_request, metadata=auth, timeout=TIMEOUT_S).revocations
        found = [one for one in listed if one.revocation_id == revocation_id]
        must(len(found) == 1 and found[0].WhichOneof("subject") == name, f"listed are {listed}")
        must(getattr(found[0], name) == subject and found[0].issued_before == before, f"listed is {found[0]}")
        must(found[0].WhichOneof("scope") == "everything", f"listed is {found[0]}")
        restore = access_pb2.RestoreRequest(tenant=tenant, revocation_id=revocation_id)
        must(stub.Restore(restore, metadata=auth, timeout=15).confirmed_node_ids, "no node restored it")
    return "a connection and a token, of tokens issued before a time"


def check_features(stub, auth, tenant, room):
    request = publication(tenant, room, "smoke")
    request.required_features.append("a_filter_of_tomorrow")
    error = refusal(lambda: stub.Publish(request, metadata=auth, timeout=TIMEOUT_S))
    must(error.code() == grpc.StatusCode.UNIMPLEMENTED, f"{error.code()}: {error.details()}")
    must(reason_of(error) == "UNSUPPORTED_FEATURE", f"an unknown feature: {reason_of(error)}")
    return "an unknown one refuses the call"


def reason_of(error):
    """Returns the machine-readable reason of a refused call."""
    status, info = rpc_status.from_call(error), error_details_pb2.ErrorInfo()
    must(status is not None and any(detail.Unpack(info) for detail in status.details), "no ErrorInfo in the details")
    return info.reason


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


def check_subscribe(publish, subscribe, auth, tenant, room):
    request = subscribe_pb2.SubscribeRequest(tenant=tenant, rooms=[room])
    stream = subscribe.Subscribe(request, metadata=auth, timeout=TIMEOUT_S)
    began = next(stream)
    must(began.cursor and not began.events, f"the subscription begins with {began}")
    publish.Publish(publication(tenant, room, "smoke"), metadata=auth, timeout=TIMEOUT_S)
    live = next(stream).events
    stream.cancel()
    request.cursor = began.cursor
    stream = subscribe.Subscribe(request, metadata=auth, timeout=TIMEOUT_S)
    again = next(response.events for response in stream if response.events)
    stream.cancel()
    must([event.id for event in live] == [event.id for event in again], f"live {live}, from the cursor {again}")
    request.cursor = "made up"
    error = refusal(lambda: list(subscribe.Subscribe(request, metadata=auth, timeout=TIMEOUT_S)))
    must(error.code() == grpc.StatusCode.INVALID_ARGUMENT, f"a made-up cursor: {error.code()}: {error.details()}")
    return "live, and again from the cursor"


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
        users = user_pb2_grpc.UserServiceStub(channel)
        connections = connection_pb2_grpc.ConnectionServiceStub(channel)
        access = access_pb2_grpc.AccessServiceStub(channel)
        watch = watch_pb2_grpc.WatchServiceStub(channel)
        subscribe = subscribe_pb2_grpc.SubscribeServiceStub(channel)
        checks = {
            "publish": lambda: check_publish(publish, auth, tenant, room),
            "batch": lambda: check_batch(publish, auth, tenant, f"{room}-batch"),
            "stream": lambda: check_stream(publish, auth, tenant, f"{room}-stream"),
            "members": lambda: check_members(rooms, auth, tenant, room),
            "room": lambda: check_room(rooms, auth, tenant, room),
            "users": lambda: check_users(users, connections, auth, tenant),
            "access": lambda: check_access(access, auth, tenant, room),
            "subjects": lambda: check_subjects(access, auth, tenant),
            "features": lambda: check_features(publish, auth, tenant, room),
            "error": lambda: check_error(publish, auth, tenant, room),
            "subscribe": lambda: check_subscribe(publish, subscribe, auth, tenant, f"{room}-subscribe"),
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
