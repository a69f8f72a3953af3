// Command smoke calls a running gateway through the generated Go client; see ../README.md.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	roomcastv1 "github.com/roomcast/roomcast/tests/clients/go/gen/roomcast/v1"
)

const timeout = 60 * time.Second

type smoke struct {
	publish     roomcastv1.PublishServiceClient
	rooms       roomcastv1.RoomServiceClient
	users       roomcastv1.UserServiceClient
	connections roomcastv1.ConnectionServiceClient
	access      roomcastv1.AccessServiceClient
	watch       roomcastv1.WatchServiceClient
	subscribe   roomcastv1.SubscribeServiceClient
	token       string
	tenant      string
	room        string
}

// call returns the context of one call, with its credential and a deadline.
func (s *smoke) call(limit time.Duration) (context.Context, context.CancelFunc) {
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+s.token)
	return context.WithTimeout(ctx, limit)
}

func (s *smoke) publication(event string) *roomcastv1.PublishRequest {
	return &roomcastv1.PublishRequest{
		Tenant:         s.tenant,
		Targets:        []*roomcastv1.Target{{Target: &roomcastv1.Target_Room{Room: s.room}}},
		EventName:      event,
		Retention:      roomcastv1.Retention_RETENTION_RELIABLE,
		Payload:        &roomcastv1.Payload{Content: &roomcastv1.Payload_Json{Json: `{"from": "go"}`}},
		IdempotencyKey: rand.Text(),
	}
}

func (s *smoke) send(request *roomcastv1.PublishRequest) (*roomcastv1.PublishResult, error) {
	ctx, cancel := s.call(timeout)
	defer cancel()
	answer, err := s.publish.Publish(ctx, request)
	if err != nil {
		return nil, err
	}
	if len(answer.Results) != 1 {
		return nil, fmt.Errorf("one target has %d results", len(answer.Results))
	}
	return answer.Results[0], nil
}

func (s *smoke) checkPublish() (string, error) {
	request := s.publication("smoke")
	first, err := s.send(request)
	if err != nil {
		return "", err
	}
	if first.Room != s.room || first.Reached == nil || first.GetReached() != 0 || first.Duplicate {
		return "", fmt.Errorf("an empty room answers %v", first)
	}
	if first.GetPosition().GetOffset() == 0 || first.GetPosition().GetEpoch() == "" {
		return "", fmt.Errorf("no position: %v", first)
	}
	again, err := s.send(request)
	if err != nil {
		return "", err
	}
	if !again.Duplicate || again.Reached != nil || !proto.Equal(again.Position, first.Position) {
		return "", fmt.Errorf("the repeated publish answers %v", again)
	}
	return fmt.Sprintf("reached 0 at offset %d, repeated as a duplicate", first.Position.Offset), nil
}

func (s *smoke) checkBatch() (string, error) {
	ctx, cancel := s.call(timeout)
	defer cancel()
	answer, err := s.publish.PublishBatch(ctx, &roomcastv1.PublishBatchRequest{
		Requests: []*roomcastv1.PublishRequest{s.elsewhere("batch", "smoke"), s.elsewhere("batch", "bad\u0007name")},
	})
	if err != nil {
		return "", err
	}
	if len(answer.Results) != 2 || position(answer.Results[0].GetResponse()) == 0 {
		return "", fmt.Errorf("the batch answers %v", answer)
	}
	if reason := itemReason(answer.Results[1].GetError()); reason != "INVALID_EVENT_NAME" {
		return "", fmt.Errorf("the refused one answers %q, %v", reason, answer.Results[1])
	}
	return "one accepted, one refused", nil
}

func (s *smoke) checkStream() (string, error) {
	ctx, cancel := s.call(timeout)
	defer cancel()
	stream, err := s.publish.PublishStream(ctx)
	if err != nil {
		return "", err
	}
	first := s.elsewhere("stream", "smoke")
	for sequence, request := range []*roomcastv1.PublishRequest{first, s.elsewhere("stream", "bad\u0007name"), first} {
		if err := stream.Send(&roomcastv1.PublishStreamRequest{Sequence: uint64(sequence + 7), Request: request}); err != nil {
			return "", err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return "", err
	}
	var answers []*roomcastv1.PublishStreamResponse
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		if answer.Sequence != uint64(len(answers)+7) {
			return "", fmt.Errorf("the stream answers %v after %v", answer, answers)
		}
		answers = append(answers, answer)
	}
	if len(answers) != 3 || position(answers[0].GetResponse()) == 0 {
		return "", fmt.Errorf("the stream answers %v", answers)
	}
	if reason := itemReason(answers[1].GetError()); reason != "INVALID_EVENT_NAME" {
		return "", fmt.Errorf("the refused one answers %q, %v", reason, answers[1])
	}
	if !answers[2].GetResponse().GetResults()[0].Duplicate {
		return "", fmt.Errorf("the repeated one answers %v", answers[2])
	}
	return "each answered by its sequence, in order", nil
}

// elsewhere is a publication to a room of its own.
func (s *smoke) elsewhere(suffix, event string) *roomcastv1.PublishRequest {
	request := s.publication(event)
	request.Targets[0].Target = &roomcastv1.Target_Room{Room: s.room + "-" + suffix}
	return request
}

// position returns the offset of the first target, 0 if there is none.
func position(response *roomcastv1.PublishResponse) uint64 {
	if len(response.GetResults()) != 1 {
		return 0
	}
	return response.Results[0].GetPosition().GetOffset()
}

// itemReason returns the machine-readable reason of a refused item.
func itemReason(item *roomcastv1.ItemStatus) string {
	for _, detail := range item.GetDetails() {
		info := new(errdetails.ErrorInfo)
		if codes.Code(item.Code) == codes.InvalidArgument && detail.UnmarshalTo(info) == nil {
			return info.Reason
		}
	}
	return ""
}

func (s *smoke) checkMembers() (string, error) {
	ctx, cancel := s.call(timeout)
	defer cancel()
	answer, err := s.rooms.ListMembers(ctx, &roomcastv1.ListMembersRequest{Tenant: s.tenant, Room: s.room})
	if err != nil {
		return "", err
	}
	if len(answer.Members) != 0 || answer.MemberCount != 0 {
		return "", fmt.Errorf("an empty room has members: %v", answer)
	}
	_, err = s.rooms.ListMembers(ctx, &roomcastv1.ListMembersRequest{Tenant: s.tenant, Room: s.room, PageSize: -1})
	if reason := reasonOf(err); reason != "INVALID_FIELD" {
		return "", fmt.Errorf("a negative page size: %q, %w", reason, err)
	}
	return "none in an empty room, no page of a negative size", nil
}

func (s *smoke) checkRoom() (string, error) {
	ctx, cancel := s.call(timeout)
	defer cancel()
	stats, err := s.rooms.GetRoomStats(ctx, &roomcastv1.GetRoomStatsRequest{Tenant: s.tenant, Room: s.room})
	if err != nil {
		return "", err
	}
	page, err := s.rooms.ListHistory(ctx, &roomcastv1.ListHistoryRequest{Tenant: s.tenant, Room: s.room, PageSize: 10})
	if err != nil {
		return "", err
	}
	if len(page.Events) != 1 || page.Events[0].EventName != "smoke" || stats.HistoryCount != 1 {
		return "", fmt.Errorf("the history is %v of %v", page, stats)
	}
	if page.Events[0].Retention != roomcastv1.Retention_RETENTION_RELIABLE || !proto.Equal(page.Head, page.Events[0].Position) {
		return "", fmt.Errorf("the history is %v", page)
	}
	joined, err := s.rooms.JoinRoom(ctx, &roomcastv1.JoinRoomRequest{
		Tenant: s.tenant,
		Room:   s.room,
		Member: &roomcastv1.JoinRoomRequest_UserId{UserId: "nobody"},
	})
	if err != nil || joined.JoinedConnectionCount != 0 || !proto.Equal(joined.Head, page.Head) {
		return "", fmt.Errorf("joined is %v, %w", joined, err)
	}
	left, err := s.rooms.LeaveRoom(ctx, &roomcastv1.LeaveRoomRequest{
		Tenant:  s.tenant,
		Room:    s.room,
		Member:  &roomcastv1.LeaveRoomRequest_UserId{UserId: "nobody"},
		Reason:  "moved",
		Message: "It moved.",
	})
	if err != nil || left.LeftConnectionCount != 0 {
		return "", fmt.Errorf("left is %v, %w", left, err)
	}
	return fmt.Sprintf("one event at the head %d, joined and left by nobody", page.Head.Offset), nil
}

func (s *smoke) checkUsers() (string, error) {
	ctx, cancel := s.call(timeout)
	defer cancel()
	answer, err := s.users.ListUserRooms(ctx, &roomcastv1.ListUserRoomsRequest{Tenant: s.tenant, UserId: "nobody"})
	if err != nil {
		return "", err
	}
	if answer.ConnectionCount != 0 || len(answer.Rooms) != 0 {
		return "", fmt.Errorf("nobody is connected: %v", answer)
	}
	_, err = s.connections.Disconnect(ctx, &roomcastv1.DisconnectRequest{
		Tenant:  s.tenant,
		Session: &roomcastv1.DisconnectRequest_ConnectionId{ConnectionId: strings.Repeat("f", 32)},
		Reason:  "gone",
		Message: "Bye.",
	})
	if reason := reasonOf(err); reason != "CONNECTION_NOT_FOUND" {
		return "", fmt.Errorf("disconnecting nobody: %q, %w", reason, err)
	}
	_, err = s.connections.Ask(ctx, &roomcastv1.AskRequest{
		Tenant:  s.tenant,
		Session: &roomcastv1.AskRequest_ConnectionId{ConnectionId: strings.Repeat("f", 32)},
		Method:  "confirm",
		Payload: &roomcastv1.Payload{Content: &roomcastv1.Payload_Json{Json: "1"}},
	})
	if reason := reasonOf(err); reason != "CONNECTION_NOT_FOUND" {
		return "", fmt.Errorf("asking nobody: %q, %w", reason, err)
	}
	return "nobody is connected, nobody is disconnected or asked", nil
}

func (s *smoke) checkAccess() (string, error) {
	ctx, cancel := s.call(30 * time.Second)
	defer cancel()
	user := "user-" + rand.Text()
	revoked, err := s.access.Revoke(ctx, &roomcastv1.RevokeRequest{
		Tenant:  s.tenant,
		Subject: &roomcastv1.RevokeRequest_UserId{UserId: user},
		Scope:   &roomcastv1.RevokeRequest_Room{Room: s.room},
		Ttl:     durationpb.New(time.Minute),
		Reason:  "smoke",
		Message: "For a test.",
	})
	if err != nil {
		return "", err
	}
	if revoked.RevocationId == "" || len(revoked.ConfirmedNodeIds) == 0 {
		return "", fmt.Errorf("revoked is %v", revoked)
	}
	list := &roomcastv1.ListRevocationsRequest{Tenant: s.tenant, UserId: user}
	listed, err := s.access.ListRevocations(ctx, list)
	if err != nil {
		return "", err
	}
	if len(listed.Revocations) != 1 || listed.Revocations[0].RevocationId != revoked.RevocationId ||
		listed.Revocations[0].GetUserId() != user || listed.Revocations[0].GetRoom() != s.room {
		return "", fmt.Errorf("listed are %v", listed)
	}
	restore := &roomcastv1.RestoreRequest{Tenant: s.tenant, RevocationId: revoked.RevocationId}
	restored, err := s.access.Restore(ctx, restore)
	if err != nil || len(restored.ConfirmedNodeIds) == 0 {
		return "", fmt.Errorf("restored is %v, %w", restored, err)
	}
	if again, err := s.access.Restore(ctx, restore); err != nil || !proto.Equal(again, restored) {
		return "", fmt.Errorf("restored again is %v, %w", again, err)
	}
	restore.RevocationId = strings.Repeat("f", len(revoked.RevocationId))
	if _, err = s.access.Restore(ctx, restore); reasonOf(err) != "REVOCATION_NOT_FOUND" {
		return "", fmt.Errorf("restoring what is not: %w", err)
	}
	if listed, err = s.access.ListRevocations(ctx, list); err != nil || len(listed.Revocations) != 0 {
		return "", fmt.Errorf("a restored one is listed: %v, %w", listed, err)
	}
	explained, err := s.access.Explain(ctx, &roomcastv1.ExplainRequest{
		Tenant:    s.tenant,
		Subject:   &roomcastv1.ExplainRequest_ClaimsJson{ClaimsJson: `{"sub": "ada"}`},
		Action:    roomcastv1.Action_ACTION_PUBLISH,
		Room:      s.room,
		EventName: "smoke",
	})
	if err != nil || explained.Decision != roomcastv1.Decision_DECISION_ALLOW {
		return "", fmt.Errorf("explained is %v, %w", explained, err)
	}
	return fmt.Sprintf("revoked, listed, restored; allowed by `%s`", explained.Rule), nil
}

func (s *smoke) checkSubjects() (string, error) {
	ctx, cancel := s.call(60 * time.Second)
	defer cancel()
	before := timestamppb.New(time.Unix(1_700_000_000, 0))
	connection, token := strings.Repeat("f", 32), "token-"+rand.Text()
	for _, revoke := range []*roomcastv1.RevokeRequest{
		{Subject: &roomcastv1.RevokeRequest_ConnectionId{ConnectionId: connection}},
		{Subject: &roomcastv1.RevokeRequest_TokenId{TokenId: token}},
	} {
		revoke.Tenant = s.tenant
		revoke.Scope = &roomcastv1.RevokeRequest_Everything{Everything: &roomcastv1.EverythingScope{}}
		revoke.IssuedBefore = before
		revoke.Ttl = durationpb.New(time.Minute)
		revoked, err := s.access.Revoke(ctx, revoke)
		if err != nil {
			return "", err
		}
		listed, err := s.access.ListRevocations(ctx, &roomcastv1.ListRevocationsRequest{Tenant: s.tenant})
		if err != nil {
			return "", err
		}
		var found *roomcastv1.Revocation
		for _, one := range listed.Revocations {
			if one.RevocationId == revoked.RevocationId {
				found = one
			}
		}
		if found.GetConnectionId() != revoke.GetConnectionId() || found.GetTokenId() != revoke.GetTokenId() ||
			found.GetEverything() == nil || !proto.Equal(found.GetIssuedBefore(), before) {
			return "", fmt.Errorf("listed are %v", listed)
		}
		restored, err := s.access.Restore(ctx, &roomcastv1.RestoreRequest{Tenant: s.tenant, RevocationId: revoked.RevocationId})
		if err != nil || len(restored.ConfirmedNodeIds) == 0 {
			return "", fmt.Errorf("restored is %v, %w", restored, err)
		}
	}
	return "a connection and a token, of tokens issued before a time", nil
}

func (s *smoke) checkFeatures() (string, error) {
	request := s.publication("smoke")
	request.RequiredFeatures = []string{"a_filter_of_tomorrow"}
	_, err := s.send(request)
	if status.Code(err) != codes.Unimplemented || reasonOf(err) != "UNSUPPORTED_FEATURE" {
		return "", fmt.Errorf("an unknown feature: %w", err)
	}
	return "an unknown one refuses the call", nil
}

// reasonOf returns the machine-readable reason of a refused call.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return ""
}

func (s *smoke) checkError() (string, error) {
	_, err := s.send(s.publication("bad\u0007name"))
	if status.Code(err) != codes.InvalidArgument {
		return "", fmt.Errorf("not refused as it should be: %v", err)
	}
	var info *errdetails.ErrorInfo
	var bad *errdetails.BadRequest
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			info = detail
		case *errdetails.BadRequest:
			bad = detail
		}
	}
	if info.GetDomain() != "roomcast" || info.GetReason() != "INVALID_EVENT_NAME" {
		return "", fmt.Errorf("ErrorInfo is %v", info)
	}
	if fields := bad.GetFieldViolations(); len(fields) != 1 || fields[0].Field != "event_name" {
		return "", fmt.Errorf("BadRequest is %v", bad)
	}
	return fmt.Sprintf("%v %s in field event_name", status.Code(err), info.Reason), nil
}

func (s *smoke) checkSubscribe() (string, error) {
	ctx, cancel := s.call(timeout)
	defer cancel()
	request := &roomcastv1.SubscribeRequest{Tenant: s.tenant, Rooms: []string{s.room + "-subscribe"}}
	stream, err := s.subscribe.Subscribe(ctx, request)
	if err != nil {
		return "", err
	}
	began, err := stream.Recv()
	if err != nil || began.Cursor == "" || len(began.Events) != 0 {
		return "", fmt.Errorf("the subscription begins with %v, %w", began, err)
	}
	if _, err := s.send(s.elsewhere("subscribe", "smoke")); err != nil {
		return "", err
	}
	live, err := stream.Recv()
	if err != nil || len(live.Events) != 1 {
		return "", fmt.Errorf("live: %v, %w", live, err)
	}
	request.Cursor = began.Cursor
	again, err := s.subscribe.Subscribe(ctx, request)
	if err != nil {
		return "", err
	}
	for {
		response, err := again.Recv()
		if err != nil {
			return "", err
		}
		if len(response.Events) == 0 {
			continue
		}
		if !proto.Equal(response.Events[0], live.Events[0]) {
			return "", fmt.Errorf("live %v, from the cursor %v", live, response)
		}
		return "live, and again from the cursor", nil
	}
}

func (s *smoke) checkDeadline() (string, error) {
	ctx, cancel := s.call(-time.Second)
	defer cancel()
	_, err := s.rooms.ListMembers(ctx, &roomcastv1.ListMembersRequest{Tenant: s.tenant, Room: s.room})
	if status.Code(err) != codes.DeadlineExceeded {
		return "", fmt.Errorf("expired: %v", err)
	}
	ctx, cancel = s.call(300 * time.Millisecond)
	defer cancel()
	stream, err := s.watch.Watch(ctx, &roomcastv1.WatchRequest{Tenants: []string{s.tenant}})
	if err != nil {
		return "", err
	}
	first, err := stream.Recv()
	if err != nil || first.GetStarted() == nil {
		return "", fmt.Errorf("the watch begins with %v, %w", first, err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.DeadlineExceeded {
		return "", fmt.Errorf("watch: %w", err)
	}
	return "DeadlineExceeded, before a call and during a watch", nil
}

func run() error {
	target, token := os.Getenv("ROOMCAST_GRPC"), os.Getenv("ROOMCAST_TOKEN")
	if target == "" || token == "" {
		return errors.New("go: ROOMCAST_GRPC or ROOMCAST_TOKEN is not set; see tests/clients/README.md")
	}
	tenant := os.Getenv("ROOMCAST_TENANT")
	if tenant == "" {
		tenant = "default"
	}
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("go: %w", err)
	}
	defer connection.Close()
	s := &smoke{
		publish:     roomcastv1.NewPublishServiceClient(connection),
		rooms:       roomcastv1.NewRoomServiceClient(connection),
		users:       roomcastv1.NewUserServiceClient(connection),
		connections: roomcastv1.NewConnectionServiceClient(connection),
		access:      roomcastv1.NewAccessServiceClient(connection),
		watch:       roomcastv1.NewWatchServiceClient(connection),
		subscribe:   roomcastv1.NewSubscribeServiceClient(connection),
		token:       token,
		tenant:      tenant,
		room:        "smoke-go-" + rand.Text(),
	}
	checks := []struct {
		name  string
		check func() (string, error)
	}{
		{"publish", s.checkPublish},
		{"batch", s.checkBatch},
		{"stream", s.checkStream},
		{"members", s.checkMembers},
		{"room", s.checkRoom},
		{"users", s.checkUsers},
		{"access", s.checkAccess},
		{"subjects", s.checkSubjects},
		{"features", s.checkFeatures},
		{"error", s.checkError},
		{"subscribe", s.checkSubscribe},
		{"deadline", s.checkDeadline},
	}
	for _, c := range checks {
		outcome, err := c.check()
		if err != nil {
			return fmt.Errorf("go %s: FAILED, %w", c.name, err)
		}
		fmt.Printf("go %s: ok, %s\n", c.name, outcome)
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
