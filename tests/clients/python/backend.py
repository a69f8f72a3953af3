"""An application behind a gateway, through the generated Python servers; see ../README.md.

Prints the address it listens on, and serves until its input ends.

A room `private:NAME` is that user's own; everything else is allowed for an hour. Every event named `seat:take` is taken:
a seat is sold once. The buyer is told so and everybody else hears of it; who comes too late is refused in words.
"""

import json
import sys
import time
from concurrent import futures

import grpc
from roomcast.backend.v1 import authorizer_pb2, authorizer_pb2_grpc, client_event_pb2, client_event_pb2_grpc
from roomcast.v1 import types_pb2


class Authorizer(authorizer_pb2_grpc.AuthorizerServiceServicer):
    def Authorize(self, request, context):
        known = {types_pb2.ACTION_JOIN, types_pb2.ACTION_PUBLISH, types_pb2.ACTION_PRESENCE}
        foreign = request.room.startswith("private:") and request.room != f"private:{request.subject.user_id}"
        if request.action not in known or foreign:
            return authorizer_pb2.AuthorizeResponse(
                decision=types_pb2.DECISION_DENY, reason="not_yours", message="The room belongs to somebody else."
            )
        answer = authorizer_pb2.AuthorizeResponse(decision=types_pb2.DECISION_ALLOW, reason="known")
        answer.expire_time.FromSeconds(int(time.time()) + 3600)
        if request.action == types_pb2.ACTION_JOIN:
            answer.presence_state_json = '{"seat": null}'
        return answer


class ClientEvents(client_event_pb2_grpc.ClientEventServiceServicer):
    def __init__(self):
        self.sold = {}

    def Handle(self, request, context):
        if request.event_name != "seat:take":
            return client_event_pb2.HandleResponse(accept=client_event_pb2.AcceptEvent())
        seat = json.loads(request.payload.json)["seat"]
        buyer = (request.subject.user_id, request.idempotency_key)
        # A client that repeats itself gets the answer it got.
        if self.sold.setdefault(seat, buyer) != buyer:
            return client_event_pb2.HandleResponse(
                deny=client_event_pb2.Denial(reason="seat_taken", message=f"Seat {seat} is taken.")
            )
        handled = client_event_pb2.HandledEvent(reply=types_pb2.Payload(json=json.dumps({"seat": seat})))
        handled.emit.add(
            targets=[types_pb2.Target(room=request.room)],
            event_name="seat:taken",
            payload=types_pb2.Payload(json=json.dumps({"seat": seat})),
            retention=types_pb2.RETENTION_LAST_VALUE,
            exclude_sender=True,
        )
        return client_event_pb2.HandleResponse(handled=handled)

    def Answer(self, request, context):
        if request.method != "seats:sold":
            return client_event_pb2.AnswerResponse(deny=client_event_pb2.Denial(reason="unknown_method"))
        return client_event_pb2.AnswerResponse(reply=types_pb2.Payload(json=json.dumps(sorted(self.sold))))


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    authorizer_pb2_grpc.add_AuthorizerServiceServicer_to_server(Authorizer(), server)
    client_event_pb2_grpc.add_ClientEventServiceServicer_to_server(ClientEvents(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"http://127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(grace=None).wait()


if __name__ == "__main__":
    main()
