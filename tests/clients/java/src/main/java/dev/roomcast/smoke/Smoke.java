package dev.roomcast.smoke;

import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.Timestamp;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import dev.roomcast.v1.AccessServiceGrpc;
import dev.roomcast.v1.Action;
import dev.roomcast.v1.ConnectionServiceGrpc;
import dev.roomcast.v1.Decision;
import dev.roomcast.v1.DisconnectRequest;
import dev.roomcast.v1.EverythingScope;
import dev.roomcast.v1.ExplainRequest;
import dev.roomcast.v1.GetRoomStatsRequest;
import dev.roomcast.v1.ItemStatus;
import dev.roomcast.v1.JoinRoomRequest;
import dev.roomcast.v1.LeaveRoomRequest;
import dev.roomcast.v1.ListHistoryRequest;
import dev.roomcast.v1.ListMembersRequest;
import dev.roomcast.v1.ListRevocationsRequest;
import dev.roomcast.v1.ListUserRoomsRequest;
import dev.roomcast.v1.Payload;
import dev.roomcast.v1.PublishBatchRequest;
import dev.roomcast.v1.PublishRequest;
import dev.roomcast.v1.PublishResponse;
import dev.roomcast.v1.PublishResult;
import dev.roomcast.v1.PublishServiceGrpc;
import dev.roomcast.v1.PublishStreamRequest;
import dev.roomcast.v1.PublishStreamResponse;
import dev.roomcast.v1.RestoreRequest;
import dev.roomcast.v1.Retention;
import dev.roomcast.v1.RevokeRequest;
import dev.roomcast.v1.RoomServiceGrpc;
import dev.roomcast.v1.SubscribeRequest;
import dev.roomcast.v1.SubscribeServiceGrpc;
import dev.roomcast.v1.Target;
import dev.roomcast.v1.UserServiceGrpc;
import dev.roomcast.v1.WatchRequest;
import dev.roomcast.v1.WatchServiceGrpc;
import io.grpc.Channel;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;

/** Calls a running gateway through the generated Java client; see ../README.md. */
public final class Smoke {
    private static final long TIMEOUT_MS = 60_000;

    /** A check that did not hold. */
    private static final class Failed extends Exception {
        private static final long serialVersionUID = 1;

        Failed(String text) {
            super(text);
        }
    }

    private interface Check {
        String run() throws Failed, InvalidProtocolBufferException;
    }

    private final PublishServiceGrpc.PublishServiceBlockingStub publish;
    private final PublishServiceGrpc.PublishServiceStub publishStreams;
    private final RoomServiceGrpc.RoomServiceBlockingStub rooms;
    private final UserServiceGrpc.UserServiceBlockingStub users;
    private final ConnectionServiceGrpc.ConnectionServiceBlockingStub connections;
    private final AccessServiceGrpc.AccessServiceBlockingStub access;
    private final WatchServiceGrpc.WatchServiceBlockingStub watch;
    private final SubscribeServiceGrpc.SubscribeServiceBlockingStub subscribe;
    private final String tenant;
    private final String room = "smoke-java-" + UUID.randomUUID();

    private Smoke(Channel channel, String token, String tenant) {
        var headers = new Metadata();
        headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
        var credential = MetadataUtils.newAttachHeadersInterceptor(headers);
        this.publish = PublishServiceGrpc.newBlockingStub(channel).withInterceptors(credential);
        this.publishStreams = PublishServiceGrpc.newStub(channel).withInterceptors(credential);
        this.rooms = RoomServiceGrpc.newBlockingStub(channel).withInterceptors(credential);
        this.users = UserServiceGrpc.newBlockingStub(channel).withInterceptors(credential);
        this.connections = ConnectionServiceGrpc.newBlockingStub(channel).withInterceptors(credential);
        this.access = AccessServiceGrpc.newBlockingStub(channel).withInterceptors(credential);
        this.watch = WatchServiceGrpc.newBlockingStub(channel).withInterceptors(credential);
        this.subscribe = SubscribeServiceGrpc.newBlockingStub(channel).withInterceptors(credential);
        this.tenant = tenant;
    }

    private static <S extends AbstractStub<S>> S within(S stub, long timeoutMs) {
        return stub.withDeadlineAfter(timeoutMs, TimeUnit.MILLISECONDS);
    }

    private static void must(boolean holds, String text) throws Failed {
        if (!holds) {
            throw new Failed(text);
        }
    }

    /** Returns the error a call ends with. */
    private static StatusRuntimeException refusal(Runnable call) throws Failed {
        try {
            call.run();
        } catch (StatusRuntimeException error) {
            return error;
        }
        throw new Failed("the call succeeded, and should not have");
    }

    private static <M extends Message> M detail(List<Any> details, Class<M> kind)
            throws Failed, InvalidProtocolBufferException {
        for (Any detail : details) {
            if (detail.is(kind)) {
                return detail.unpack(kind);
            }
        }
        throw new Failed("no " + kind.getSimpleName() + " in the details");
    }

    private PublishRequest publication(String event) {
        return publication(event, room);
    }

    private PublishRequest publication(String event, String room) {
        return PublishRequest.newBuilder()
                .setTenant(tenant)
                .addTargets(Target.newBuilder().setRoom(room))
                .setEventName(event)
                .setRetention(Retention.RETENTION_RELIABLE)
                .setPayload(Payload.newBuilder().setJson("{\"from\": \"java\"}"))
                .setIdempotencyKey(UUID.randomUUID().toString())
                .build();
    }

    private PublishResult send(PublishRequest request) throws Failed {
        var results = within(publish, TIMEOUT_MS).publish(request).getResultsList();
        must(results.size() == 1, "one target has " + results.size() + " results");
        return results.get(0);
    }

    private String checkPublish() throws Failed {
        var request = publication("smoke");
        var first = send(request);
        must(first.getRoom().equals(room) && first.hasReached() && first.getReached() == 0 && !first.getDuplicate(),
                "an empty room answers " + first);
        var position = first.getPosition();
        must(position.getOffset() > 0 && !position.getEpoch().isEmpty(), "no position: " + first);
        var again = send(request);
        must(again.getDuplicate() && again.getPosition().equals(position), "the repeated publish answers " + again);
        must(!again.hasReached(), "a duplicate knows whom it reached: " + again);
        return "reached 0 at offset " + position.getOffset() + ", repeated as a duplicate";
    }

    private static void mustBeAccepted(PublishResponse response) throws Failed {
        must(response.getResultsCount() == 1 && response.getResults(0).getPosition().getOffset() > 0,
                "no position: " + response);
    }

    private static void mustBeRefused(ItemStatus item) throws Failed, InvalidProtocolBufferException {
        must(item.getCode() == Status.Code.INVALID_ARGUMENT.value(), "the item is refused with " + item.getCode());
        var reason = detail(item.getDetailsList(), ErrorInfo.class).getReason();
        must(reason.equals("INVALID_EVENT_NAME"), "the item is refused with " + reason);
    }

    private String checkBatch() throws Failed, InvalidProtocolBufferException {
        var batch = PublishBatchRequest.newBuilder()
                .addRequests(publication("smoke", room + "-batch"))
                .addRequests(publication("bad\u0007name", room + "-batch"))
                .build();
        var results = within(publish, TIMEOUT_MS).publishBatch(batch).getResultsList();
        must(results.size() == 2 && results.get(0).hasResponse() && results.get(1).hasError(),
                "the batch answers " + results);
        mustBeAccepted(results.get(0).getResponse());
        mustBeRefused(results.get(1).getError());
        return "one accepted, one refused";
    }

    private String checkStream() throws Failed, InvalidProtocolBufferException {
        var first = publication("smoke", room + "-stream");
        var answers = publishStream(List.of(first, publication("bad\u0007name", room + "-stream"), first));
        var sequences = answers.stream().map(PublishStreamResponse::getSequence).toList();
        must(sequences.equals(List.of(7L, 8L, 9L)), "the stream answers " + answers);
        mustBeAccepted(answers.get(0).getResponse());
        must(answers.get(1).hasError(), "the refused one answers " + answers.get(1));
        mustBeRefused(answers.get(1).getError());
        must(answers.get(2).getResponse().getResults(0).getDuplicate(), "the repeated one answers " + answers.get(2));
        return "each answered by its sequence, in order";
    }

    private List<PublishStreamResponse> publishStream(List<PublishRequest> requests) throws Failed {
        var answers = new ArrayList<PublishStreamResponse>();
        var ended = new CompletableFuture<List<PublishStreamResponse>>();
        var sender = within(publishStreams, TIMEOUT_MS).publishStream(new StreamObserver<PublishStreamResponse>() {
            @Override
            public void onNext(PublishStreamResponse answer) {
                answers.add(answer);
            }

            @Override
            public void onError(Throwable error) {
                ended.completeExceptionally(error);
            }

            @Override
            public void onCompleted() {
                ended.complete(answers);
            }
        });
        long sequence = 7;
        for (var request : requests) {
            sender.onNext(PublishStreamRequest.newBuilder().setSequence(sequence++).setRequest(request).build());
        }
        sender.onCompleted();
        try {
            return ended.join();
        } catch (CompletionException error) {
            throw new Failed("the stream ends with " + error.getCause());
        }
    }

    private ListMembersRequest membersRequest() {
        return ListMembersRequest.newBuilder().setTenant(tenant).setRoom(room).build();
    }

    private String checkMembers() throws Failed, InvalidProtocolBufferException {
        var answer = within(rooms, TIMEOUT_MS).listMembers(membersRequest());
        must(answer.getMembersCount() == 0 && answer.getMemberCount() == 0, "an empty room has members: " + answer);
        var negative = membersRequest().toBuilder().setPageSize(-1).build();
        var error = refusal(() -> within(rooms, TIMEOUT_MS).listMembers(negative));
        must(reasonOf(error).equals("INVALID_FIELD"), "a negative page size: " + error.getStatus());
        return "none in an empty room, no page of a negative size";
    }

    private String checkRoom() throws Failed {
        var stats = within(rooms, TIMEOUT_MS)
                .getRoomStats(GetRoomStatsRequest.newBuilder().setTenant(tenant).setRoom(room).build());
        must(stats.getHistoryCount() == 1 && stats.getConnectionCount() == 0, "the room's figures are " + stats);
        var page = within(rooms, TIMEOUT_MS)
                .listHistory(ListHistoryRequest.newBuilder().setTenant(tenant).setRoom(room).setPageSize(10).build());
        must(page.getEventsCount() == 1, "the history is " + page);
        var event = page.getEvents(0);
        must(event.getEventName().equals("smoke") && event.getRetention() == Retention.RETENTION_RELIABLE,
                "the history is " + page);
        must(page.getHead().equals(event.getPosition()), "the head is " + page.getHead());
        var join = JoinRoomRequest.newBuilder().setTenant(tenant).setRoom(room).setUserId("nobody").build();
        var joined = within(rooms, TIMEOUT_MS).joinRoom(join);
        must(joined.getJoinedConnectionCount() == 0 && joined.getHead().equals(page.getHead()), "joined is " + joined);
        var leave = LeaveRoomRequest.newBuilder()
                .setTenant(tenant)
                .setRoom(room)
                .setUserId("nobody")
                .setReason("moved")
                .setMessage("It moved.")
                .build();
        must(within(rooms, TIMEOUT_MS).leaveRoom(leave).getLeftConnectionCount() == 0, "nobody left");
        return "one event at the head " + page.getHead().getOffset() + ", joined and left by nobody";
    }

    private String checkUsers() throws Failed, InvalidProtocolBufferException {
        var request = ListUserRoomsRequest.newBuilder().setTenant(tenant).setUserId("nobody").setPageSize(1).build();
        var answer = within(users, TIMEOUT_MS).listUserRooms(request);
        must(answer.getConnectionCount() == 0 && answer.getRoomsCount() == 0, "nobody is connected: " + answer);
        var disconnect = DisconnectRequest.newBuilder()
                .setTenant(tenant)
                .setConnectionId("f".repeat(32))
                .setReason("gone")
                .setMessage("Bye.")
                .build();
        var error = refusal(() -> within(connections, TIMEOUT_MS).disconnect(disconnect));
        must(reasonOf(error).equals("CONNECTION_NOT_FOUND"), "disconnecting nobody: " + error.getStatus());
        return "nobody is connected, nobody is disconnected";
    }

    private String checkAccess() throws Failed, InvalidProtocolBufferException {
        var user = "user-" + UUID.randomUUID();
        var revoke = RevokeRequest.newBuilder()
                .setTenant(tenant)
                .setUserId(user)
                .setRoom(room)
                .setTtl(Duration.newBuilder().setSeconds(60))
                .setReason("smoke")
                .setMessage("For a test.")
                .build();
        var revoked = within(access, 15_000).revoke(revoke);
        must(!revoked.getRevocationId().isEmpty() && revoked.getConfirmedNodeIdsCount() > 0, "revoked is " + revoked);
        var list = ListRevocationsRequest.newBuilder().setTenant(tenant).setUserId(user).build();
        var listed = within(access, TIMEOUT_MS).listRevocations(list).getRevocationsList();
        must(listed.size() == 1 && listed.get(0).getRevocationId().equals(revoked.getRevocationId()),
                "listed are " + listed);
        must(listed.get(0).hasUserId() && listed.get(0).getUserId().equals(user) && listed.get(0).hasRoom(),
                "listed are " + listed);
        var restore = RestoreRequest.newBuilder()
                .setTenant(tenant)
                .setRevocationId(revoked.getRevocationId())
                .build();
        var restored = within(access, 15_000).restore(restore);
        must(restored.getConfirmedNodeIdsCount() > 0, "restored is " + restored);
        var again = within(access, 15_000).restore(restore);
        must(again.equals(restored), "restored again is " + again);
        var unknown = restore.toBuilder().setRevocationId("f".repeat(revoked.getRevocationId().length())).build();
        var error = refusal(() -> within(access, 15_000).restore(unknown));
        must(reasonOf(error).equals("REVOCATION_NOT_FOUND"), "restoring what is not: " + error.getStatus());
        must(within(access, TIMEOUT_MS).listRevocations(list).getRevocationsCount() == 0, "a restored one is listed");
        var explain = ExplainRequest.newBuilder()
                .setTenant(tenant)
                .setClaimsJson("{\"sub\": \"ada\"}")
                .setAction(Action.ACTION_PUBLISH)
                .setRoom(room)
                .setEventName("smoke")
                .build();
        var explained = within(access, TIMEOUT_MS).explain(explain);
        must(explained.getDecision() == Decision.DECISION_ALLOW, "explained is " + explained);
        return "revoked, listed, restored; allowed by `" + explained.getRule() + "`";
    }

    private String checkSubjects() throws Failed {
        var before = Timestamp.newBuilder().setSeconds(1_700_000_000).build();
        var revoke = RevokeRequest.newBuilder()
                .setTenant(tenant)
                .setEverything(EverythingScope.getDefaultInstance())
                .setIssuedBefore(before)
                .setTtl(Duration.newBuilder().setSeconds(60));
        var subjects = List.of(
                revoke.clone().setConnectionId("f".repeat(32)).build(),
                revoke.clone().setTokenId("token-" + UUID.randomUUID()).build());
        for (var subject : subjects) {
            var id = within(access, 15_000).revoke(subject).getRevocationId();
            var list = ListRevocationsRequest.newBuilder().setTenant(tenant).build();
            var listed = within(access, TIMEOUT_MS).listRevocations(list).getRevocationsList();
            var found = listed.stream().filter(one -> one.getRevocationId().equals(id)).toList();
            must(found.size() == 1, "listed are " + listed);
            var one = found.get(0);
            must(one.getConnectionId().equals(subject.getConnectionId()) && one.getTokenId().equals(subject.getTokenId()),
                    "listed is " + one);
            must(one.hasEverything() && one.getIssuedBefore().equals(before), "listed is " + one);
            var restore = RestoreRequest.newBuilder().setTenant(tenant).setRevocationId(id).build();
            must(within(access, 15_000).restore(restore).getConfirmedNodeIdsCount() > 0, "no node restored it");
        }
        return "a connection and a token, of tokens issued before a time";
    }

    private String checkFeatures() throws Failed, InvalidProtocolBufferException {
        var request = publication("smoke").toBuilder().addRequiredFeatures("a_filter_of_tomorrow").build();
        var error = refusal(() -> within(publish, TIMEOUT_MS).publish(request));
        must(error.getStatus().getCode() == Status.Code.UNIMPLEMENTED, "not refused as it should be: " + error.getStatus());
        must(reasonOf(error).equals("UNSUPPORTED_FEATURE"), "an unknown feature: " + reasonOf(error));
        return "an unknown one refuses the call";
    }

    /** Returns the machine-readable reason of a refused call. */
    private static String reasonOf(StatusRuntimeException error) throws Failed, InvalidProtocolBufferException {
        var status = StatusProto.fromThrowable(error);
        must(status != null, "the error has no details");
        return detail(status.getDetailsList(), ErrorInfo.class).getReason();
    }

    private String checkError() throws Failed, InvalidProtocolBufferException {
        var error = refusal(() -> within(publish, TIMEOUT_MS).publish(publication("bad\u0007name")));
        var code = error.getStatus().getCode();
        must(code == Status.Code.INVALID_ARGUMENT, "not refused as it should be: " + error.getStatus());
        var status = StatusProto.fromThrowable(error);
        must(status != null, "the error has no details");
        var info = detail(status.getDetailsList(), ErrorInfo.class);
        must(info.getDomain().equals("roomcast") && info.getReason().equals("INVALID_EVENT_NAME"), "ErrorInfo is " + info);
        var bad = detail(status.getDetailsList(), BadRequest.class);
        must(bad.getFieldViolationsCount() == 1 && bad.getFieldViolations(0).getField().equals("event_name"),
                "BadRequest is " + bad);
        return code + " " + info.getReason() + " in field event_name";
    }

    private String checkSubscribe() throws Failed {
        var own = room + "-subscribe";
        var request = SubscribeRequest.newBuilder().setTenant(tenant).addRooms(own).build();
        var stream = within(subscribe, TIMEOUT_MS).subscribe(request);
        var began = stream.next();
        must(!began.getCursor().isEmpty() && began.getEventsCount() == 0, "the subscription begins with " + began);
        within(publish, TIMEOUT_MS).publish(publication("smoke", own));
        var live = stream.next().getEvents(0);
        var from = request.toBuilder().setCursor(began.getCursor()).build();
        var again = within(subscribe, TIMEOUT_MS).subscribe(from);
        var response = again.next();
        while (response.getEventsCount() == 0) {
            response = again.next();
        }
        must(response.getEvents(0).equals(live), "live " + live + ", from the cursor " + response);
        return "live, and again from the cursor";
    }

    private String checkDeadline() throws Failed {
        var expired = refusal(() -> within(rooms, -1000).listMembers(membersRequest()));
        must(expired.getStatus().getCode() == Status.Code.DEADLINE_EXCEEDED, "expired: " + expired.getStatus());
        var request = WatchRequest.newBuilder().addTenants(tenant).build();
        var stream = within(watch, 300).watch(request);
        must(stream.next().hasStarted(), "the watch does not begin with `started`");
        var ended = refusal(() -> stream.forEachRemaining(message -> {}));
        must(ended.getStatus().getCode() == Status.Code.DEADLINE_EXCEEDED, "watch: " + ended.getStatus());
        return "DEADLINE_EXCEEDED, before a call and during a watch";
    }

    private boolean run() {
        Map<String, Check> checks = new LinkedHashMap<>();
        checks.put("publish", this::checkPublish);
        checks.put("batch", this::checkBatch);
        checks.put("stream", this::checkStream);
        checks.put("members", this::checkMembers);
        checks.put("room", this::checkRoom);
        checks.put("users", this::checkUsers);
        checks.put("access", this::checkAccess);
        checks.put("subjects", this::checkSubjects);
        checks.put("features", this::checkFeatures);
        checks.put("error", this::checkError);
        checks.put("subscribe", this::checkSubscribe);
        checks.put("deadline", this::checkDeadline);
        for (var check : checks.entrySet()) {
            try {
                System.out.println("java " + check.getKey() + ": ok, " + check.getValue().run());
            } catch (Failed | StatusRuntimeException | InvalidProtocolBufferException failure) {
                var cause = failure.getCause() == null ? "" : " (" + failure.getCause().getMessage() + ")";
                System.err.println("java " + check.getKey() + ": FAILED, " + failure.getMessage() + cause);
                return false;
            }
        }
        return true;
    }

    /** Takes its settings from the environment. */
    public static void main(String[] arguments) throws InterruptedException {
        var environment = System.getenv();
        for (var name : List.of("ROOMCAST_GRPC", "ROOMCAST_TOKEN")) {
            if (environment.getOrDefault(name, "").isEmpty()) {
                System.err.println("java: " + name + " is not set; see tests/clients/README.md");
                System.exit(1);
            }
        }
        ManagedChannel channel = Grpc.newChannelBuilder(environment.get("ROOMCAST_GRPC"), InsecureChannelCredentials.create())
                .build();
        var tenant = environment.getOrDefault("ROOMCAST_TENANT", "");
        var smoke = new Smoke(channel, environment.get("ROOMCAST_TOKEN"), tenant.isEmpty() ? "default" : tenant);
        boolean held = smoke.run();
        channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
        System.exit(held ? 0 : 1);
    }
}
