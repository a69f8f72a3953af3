// Calls a running gateway through the generated TypeScript client; see ../README.md.

import { randomUUID } from "node:crypto";
import * as grpc from "@grpc/grpc-js";
import { BadRequest, ErrorInfo } from "nice-grpc-error-details";
import {
  AccessServiceClient,
  ExplainRequest,
  ExplainResponse,
  ListRevocationsRequest,
  ListRevocationsResponse,
  RestoreRequest,
  RestoreResponse,
  RevokeRequest,
  RevokeResponse,
} from "./gen/roomcast/v1/access.js";
import {
  AskRequest,
  AskResponse,
  ConnectionServiceClient,
  DisconnectRequest,
  DisconnectResponse,
} from "./gen/roomcast/v1/connection.js";
import { ItemStatus } from "./gen/roomcast/v1/error.js";
import {
  PublishBatchRequest,
  PublishBatchResponse,
  PublishRequest,
  PublishResponse,
  PublishServiceClient,
  PublishStreamRequest,
  PublishStreamResponse,
} from "./gen/roomcast/v1/publish.js";
import {
  GetRoomStatsRequest,
  GetRoomStatsResponse,
  JoinRoomRequest,
  JoinRoomResponse,
  LeaveRoomRequest,
  LeaveRoomResponse,
  ListHistoryRequest,
  ListHistoryResponse,
  ListMembersRequest,
  ListMembersResponse,
  RoomServiceClient,
} from "./gen/roomcast/v1/room.js";
import { SubscribeRequest, SubscribeResponse, SubscribeServiceClient } from "./gen/roomcast/v1/subscribe.js";
import { Action, Decision, Retention } from "./gen/roomcast/v1/types.js";
import { ListUserRoomsRequest, ListUserRoomsResponse, UserServiceClient } from "./gen/roomcast/v1/user.js";
import { WatchRequest, WatchResponse, WatchServiceClient } from "./gen/roomcast/v1/watch.js";

const TIMEOUT_MS = 60_000;

/** A check that did not hold. */
class Failed extends Error {}

function must(holds: boolean, text: string): asserts holds {
  if (!holds) throw new Failed(text);
}

/** Says what went wrong in a way that also shows bigints. */
function show(value: unknown): string {
  return JSON.stringify(value, (_, v) => (typeof v === "bigint" ? String(v) : v));
}

/** One call with a deadline; rejects with the error as grpc-js gives it. */
type Unary<Q, R> = (
  request: Q,
  metadata: grpc.Metadata,
  options: grpc.CallOptions,
  callback: (error: grpc.ServiceError | null, response: R) => void,
) => unknown;

class Smoke {
  private readonly publishService: PublishServiceClient;
  private readonly roomService: RoomServiceClient;
  private readonly userService: UserServiceClient;
  private readonly connectionService: ConnectionServiceClient;
  private readonly accessService: AccessServiceClient;
  private readonly watchService: WatchServiceClient;
  private readonly subscribeService: SubscribeServiceClient;
  private readonly metadata = new grpc.Metadata();
  private readonly room = `smoke-node-${randomUUID()}`;

  constructor(target: string, token: string, private readonly tenant: string) {
    const credentials = grpc.credentials.createInsecure();
    this.publishService = new PublishServiceClient(target, credentials);
    this.roomService = new RoomServiceClient(target, credentials);
    this.userService = new UserServiceClient(target, credentials);
    this.connectionService = new ConnectionServiceClient(target, credentials);
    this.accessService = new AccessServiceClient(target, credentials);
    this.watchService = new WatchServiceClient(target, credentials);
    this.subscribeService = new SubscribeServiceClient(target, credentials);
    this.metadata.set("authorization", `Bearer ${token}`);
  }

  close(): void {
    const rooms = [this.publishService, this.roomService, this.watchService, this.subscribeService];
    const people = [this.userService, this.connectionService, this.accessService];
    for (const client of [...rooms, ...people]) client.close();
  }

  private call<Q, R>(method: Unary<Q, R>, request: Q, timeoutMs = TIMEOUT_MS): Promise<R> {
    const options = { deadline: Date.now() + timeoutMs };
    return new Promise((resolve, reject) => {
      method(request, this.metadata, options, (error, response) => (error ? reject(error) : resolve(response)));
    });
  }

  private publish(request: PublishRequest): Promise<PublishResponse> {
    return this.call<PublishRequest, PublishResponse>((...a) => this.publishService.publish(...a), request);
  }

  private listMembers(timeoutMs?: number, pageSize = 0): Promise<ListMembersResponse> {
    const request = ListMembersRequest.fromPartial({ tenant: this.tenant, room: this.room, pageSize });
    return this.call<ListMembersRequest, ListMembersResponse>(
      (...a) => this.roomService.listMembers(...a),
      request,
      timeoutMs,
    );
  }

  private publication(event: string, room = this.room): PublishRequest {
    return PublishRequest.fromPartial({
      tenant: this.tenant,
      targets: [{ target: { $case: "room", value: room } }],
      eventName: event,
      payload: { content: { $case: "json", value: '{"from": "node"}' } },
      retention: Retention.RETENTION_RELIABLE,
      idempotencyKey: randomUUID(),
    });
  }

  async checkPublish(): Promise<string> {
    const request = this.publication("smoke");
    const [first, ...rest] = (await this.publish(request)).results;
    must(first !== undefined && rest.length === 0, "one target does not have one result");
    must(first.room === this.room && first.reached === 0 && !first.duplicate, `an empty room answers ${show(first)}`);
    const position = first.position;
    must(position !== undefined && position.offset > 0n && position.epoch !== "", `no position: ${show(first)}`);
    const [again] = (await this.publish(request)).results;
    must(again !== undefined && again.duplicate, `the repeated publish answers ${show(again)}`);
    must(show(again.position) === show(position), `the repeated publish answers ${show(again)}`);
    must(again.reached === undefined, `a duplicate knows whom it reached: ${show(again)}`);
    return `reached 0 at offset ${position.offset}, repeated as a duplicate`;
  }

  async checkBatch(): Promise<string> {
    const room = `${this.room}-batch`;
    const requests = [this.publication("smoke", room), this.publication("bad\u0007name", room)];
    const { results } = await this.call<PublishBatchRequest, PublishBatchResponse>(
      (...a) => this.publishService.publishBatch(...a),
      PublishBatchRequest.fromPartial({ requests }),
    );
    const [accepted, refused, ...rest] = results.map((result) => result.outcome);
    must(rest.length === 0 && accepted?.$case === "response", `the batch answers ${show(results)}`);
    must((accepted.value.results[0]?.position?.offset ?? 0n) > 0n, `no position: ${show(accepted)}`);
    must(refused?.$case === "error", `the refused one answers ${show(refused)}`);
    must(itemReason(refused.value) === "INVALID_EVENT_NAME", `the refused one answers ${show(refused.value.message)}`);
    return "one accepted, one refused";
  }

  async checkStream(): Promise<string> {
    const room = `${this.room}-stream`;
    const first = this.publication("smoke", room);
    const answers = await this.publishStream([first, this.publication("bad\u0007name", room), first]);
    must(show(answers.map((answer) => answer.sequence)) === '["7","8","9"]', `the stream answers ${show(answers)}`);
    const [accepted, refused, again] = answers.map((answer) => answer.outcome);
    must(accepted?.$case === "response", `the first one answers ${show(accepted)}`);
    must((accepted.value.results[0]?.position?.offset ?? 0n) > 0n, `no position: ${show(accepted)}`);
    must(refused?.$case === "error", `the refused one answers ${show(refused)}`);
    must(itemReason(refused.value) === "INVALID_EVENT_NAME", `the refused one answers ${show(refused.value.message)}`);
    must(again?.$case === "response" && again.value.results[0]?.duplicate === true, `repeated: ${show(again)}`);
    return "each answered by its sequence, in order";
  }

  private publishStream(requests: PublishRequest[]): Promise<PublishStreamResponse[]> {
    const stream = this.publishService.publishStream(this.metadata, { deadline: Date.now() + TIMEOUT_MS });
    const answers: PublishStreamResponse[] = [];
    return new Promise((resolve, reject) => {
      stream.on("data", (answer: PublishStreamResponse) => answers.push(answer));
      stream.on("error", reject);
      stream.on("end", () => resolve(answers));
      requests.forEach((request, index) => {
        stream.write(PublishStreamRequest.fromPartial({ sequence: BigInt(index + 7), request }));
      });
      stream.end();
    });
  }

  async checkMembers(): Promise<string> {
    const answer = await this.listMembers();
    must(answer.members.length === 0 && answer.memberCount === 0, `an empty room has members: ${show(answer)}`);
    const error = await refusal(this.listMembers(TIMEOUT_MS, -1));
    must(reasonOf(error) === "INVALID_FIELD", `a negative page size: ${error.message}`);
    return "none in an empty room, no page of a negative size";
  }

  async checkRoom(): Promise<string> {
    const where = { tenant: this.tenant, room: this.room };
    const stats = await this.call<GetRoomStatsRequest, GetRoomStatsResponse>(
      (...a) => this.roomService.getRoomStats(...a),
      GetRoomStatsRequest.fromPartial(where),
    );
    must(stats.historyCount === 1n && stats.connectionCount === 0, `the room's figures are ${show(stats)}`);
    const page = await this.call<ListHistoryRequest, ListHistoryResponse>(
      (...a) => this.roomService.listHistory(...a),
      ListHistoryRequest.fromPartial({ ...where, pageSize: 10 }),
    );
    const [event] = page.events;
    must(event?.eventName === "smoke", `the history is ${show(page)}`);
    must(event.retention === Retention.RETENTION_RELIABLE, `the history is ${show(page)}`);
    must(show(page.head) === show(event.position), `the head is ${show(page.head)}`);
    const member = { $case: "userId", value: "nobody" } as const;
    const joined = await this.call<JoinRoomRequest, JoinRoomResponse>(
      (...a) => this.roomService.joinRoom(...a),
      JoinRoomRequest.fromPartial({ ...where, member }),
    );
    must(joined.joinedConnectionCount === 0 && show(joined.head) === show(page.head), `joined is ${show(joined)}`);
    const left = await this.call<LeaveRoomRequest, LeaveRoomResponse>(
      (...a) => this.roomService.leaveRoom(...a),
      LeaveRoomRequest.fromPartial({ ...where, member, reason: "moved", message: "It moved." }),
    );
    must(left.leftConnectionCount === 0, `left is ${show(left)}`);
    return `one event at the head ${page.head?.offset}, joined and left by nobody`;
  }

  async checkUsers(): Promise<string> {
    const answer = await this.call<ListUserRoomsRequest, ListUserRoomsResponse>(
      (...a) => this.userService.listUserRooms(...a),
      ListUserRoomsRequest.fromPartial({ tenant: this.tenant, userId: "nobody", pageSize: 1 }),
    );
    must(answer.connectionCount === 0 && answer.rooms.length === 0, `nobody is connected: ${show(answer)}`);
    const disconnect = DisconnectRequest.fromPartial({
      tenant: this.tenant,
      session: { $case: "connectionId", value: "f".repeat(32) },
      reason: "gone",
      message: "Bye.",
    });
    const error = await refusal(
      this.call<DisconnectRequest, DisconnectResponse>((...a) => this.connectionService.disconnect(...a), disconnect),
    );
    must(reasonOf(error) === "CONNECTION_NOT_FOUND", `disconnecting nobody: ${error.message}`);
    const ask = AskRequest.fromPartial({
      tenant: this.tenant,
      session: { $case: "connectionId", value: "f".repeat(32) },
      method: "confirm",
      payload: { content: { $case: "json", value: "1" } },
    });
    const unasked = await refusal(
      this.call<AskRequest, AskResponse>((...a) => this.connectionService.ask(...a), ask),
    );
    must(reasonOf(unasked) === "CONNECTION_NOT_FOUND", `asking nobody: ${unasked.message}`);
    return "nobody is connected, nobody is disconnected or asked";
  }

  private listRevocations(userId: string): Promise<ListRevocationsResponse> {
    return this.call<ListRevocationsRequest, ListRevocationsResponse>(
      (...a) => this.accessService.listRevocations(...a),
      ListRevocationsRequest.fromPartial({ tenant: this.tenant, userId }),
    );
  }

  private restore(revocationId: string): Promise<RestoreResponse> {
    return this.call<RestoreRequest, RestoreResponse>(
      (...a) => this.accessService.restore(...a),
      RestoreRequest.fromPartial({ tenant: this.tenant, revocationId }),
      15_000,
    );
  }

  async checkAccess(): Promise<string> {
    const user = `user-${randomUUID()}`;
    const revoked = await this.call<RevokeRequest, RevokeResponse>(
      (...a) => this.accessService.revoke(...a),
      RevokeRequest.fromPartial({
        tenant: this.tenant,
        subject: { $case: "userId", value: user },
        scope: { $case: "room", value: this.room },
        ttl: { seconds: 60n },
        reason: "smoke",
        message: "For a test.",
      }),
      15_000,
    );
    must(revoked.revocationId !== "" && revoked.confirmedNodeIds.length > 0, `revoked is ${show(revoked)}`);
    const [listed, ...others] = (await this.listRevocations(user)).revocations;
    must(listed?.revocationId === revoked.revocationId && others.length === 0, `listed is ${show(listed)}`);
    must(listed.subject?.$case === "userId" && listed.scope?.$case === "room", `listed is ${show(listed)}`);
    must(listed.subject.value === user && listed.reason === "smoke", `listed is ${show(listed)}`);
    const restored = await this.restore(revoked.revocationId);
    must(restored.confirmedNodeIds.length > 0, `restored is ${show(restored)}`);
    const again = await this.restore(revoked.revocationId);
    must(show(again) === show(restored), `restored again is ${show(again)}`);
    const error = await refusal(this.restore("f".repeat(revoked.revocationId.length)));
    must(reasonOf(error) === "REVOCATION_NOT_FOUND", `restoring what is not: ${error.message}`);
    must((await this.listRevocations(user)).revocations.length === 0, "a restored one is listed");
    const explained = await this.call<ExplainRequest, ExplainResponse>(
      (...a) => this.accessService.explain(...a),
      ExplainRequest.fromPartial({
        tenant: this.tenant,
        subject: { $case: "claimsJson", value: '{"sub": "ada"}' },
        action: Action.ACTION_PUBLISH,
        room: this.room,
        eventName: "smoke",
      }),
    );
    must(explained.decision === Decision.DECISION_ALLOW, `explained is ${show(explained)}`);
    return `revoked, listed, restored; allowed by \`${explained.rule}\``;
  }

  async checkSubjects(): Promise<string> {
    const issuedBefore = new Date(1_700_000_000_000);
    const subjects = [
      { $case: "connectionId", value: "f".repeat(32) },
      { $case: "tokenId", value: `token-${randomUUID()}` },
    ] as const;
    for (const subject of subjects) {
      const { revocationId } = await this.call<RevokeRequest, RevokeResponse>(
        (...a) => this.accessService.revoke(...a),
        RevokeRequest.fromPartial({
          tenant: this.tenant,
          subject,
          scope: { $case: "everything", value: {} },
          issuedBefore,
          ttl: { seconds: 60n },
        }),
        15_000,
      );
      const { revocations } = await this.listRevocations("");
      const found = revocations.find((one) => one.revocationId === revocationId);
      must(show(found?.subject) === show(subject), `listed are ${show(revocations)}`);
      must(found?.scope?.$case === "everything", `listed is ${show(found)}`);
      must(show(found.issuedBefore) === show(issuedBefore), `listed is ${show(found)}`);
      must((await this.restore(revocationId)).confirmedNodeIds.length > 0, "no node restored it");
    }
    return "a connection and a token, of tokens issued before a time";
  }

  async checkFeatures(): Promise<string> {
    const error = await refusal(
      this.publish({ ...this.publication("smoke"), requiredFeatures: ["a_filter_of_tomorrow"] }),
    );
    must(error.code === grpc.status.UNIMPLEMENTED, `not refused as it should be: ${error.message}`);
    must(reasonOf(error) === "UNSUPPORTED_FEATURE", `an unknown feature: ${reasonOf(error)}`);
    return "an unknown one refuses the call";
  }

  async checkError(): Promise<string> {
    const error = await refusal(this.publish(this.publication("bad\u0007name")));
    must(error.code === grpc.status.INVALID_ARGUMENT, `not refused as it should be: ${error.message}`);
    const { domain, reason } = ErrorInfo.decode(detailOf(error, "google.rpc.ErrorInfo"));
    const bad = detailOf(error, "google.rpc.BadRequest");
    must(domain === "roomcast" && reason === "INVALID_EVENT_NAME", `ErrorInfo is ${domain} ${reason}`);
    const fields = BadRequest.decode(bad).fieldViolations.map((violation) => violation.field);
    must(show(fields) === '["event_name"]', `BadRequest names ${show(fields)}`);
    return `INVALID_ARGUMENT ${reason} in field ${fields[0]}`;
  }

  async checkSubscribe(): Promise<string> {
    const room = `${this.room}-subscribe`;
    const began = await this.firstOf({ tenant: this.tenant, rooms: [room] }, () => true);
    must(began.cursor !== "" && began.events.length === 0, `the subscription begins with ${show(began)}`);
    const accepted = await this.publish(this.publication("smoke", room));
    const request = { tenant: this.tenant, rooms: [room], cursor: began.cursor };
    const { events } = await this.firstOf(request, ({ events }) => events.length > 0);
    const offset = accepted.results[0]?.position?.offset;
    must(events.length === 1 && show(events[0]?.position?.offset) === show(offset), `from the cursor: ${show(events)}`);
    const refused = await refusal(this.firstOf({ ...request, cursor: "made up" }, () => true));
    must(reasonOf(refused) === "INVALID_CURSOR", `a made-up cursor: ${refused.message}`);
    return "from a cursor on";
  }

  /** Returns the first response of a subscription that is wanted. */
  private firstOf(
    request: Partial<SubscribeRequest>,
    isWanted: (response: SubscribeResponse) => boolean,
  ): Promise<SubscribeResponse> {
    const deadline = Date.now() + TIMEOUT_MS;
    const stream = this.subscribeService.subscribe(SubscribeRequest.fromPartial(request), this.metadata, { deadline });
    return new Promise((resolve, reject) => {
      stream.on("error", reject);
      stream.on("data", (response: SubscribeResponse) => {
        if (!isWanted(response)) return;
        resolve(response);
        stream.cancel();
      });
    });
  }

  async checkDeadline(): Promise<string> {
    const expired = await refusal(this.listMembers(-1000));
    must(expired.code === grpc.status.DEADLINE_EXCEEDED, `expired: ${expired.message}`);
    const kinds: unknown[] = [];
    const ended = await refusal(this.watch(300, kinds));
    must(ended.code === grpc.status.DEADLINE_EXCEEDED, `watch: ${ended.message}`);
    must(kinds[0] === "started", `the watch begins with ${show(kinds[0])}`);
    return "DEADLINE_EXCEEDED, before a call and during a watch";
  }

  private watch(timeoutMs: number, kinds: unknown[]): Promise<void> {
    const request = WatchRequest.fromPartial({ tenants: [this.tenant] });
    const stream = this.watchService.watch(request, this.metadata, { deadline: Date.now() + timeoutMs });
    return new Promise((resolve, reject) => {
      stream.on("data", (message: WatchResponse) => kinds.push(message.event?.$case));
      stream.on("error", reject);
      stream.on("end", resolve);
    });
  }
}

function isServiceError(error: unknown): error is grpc.ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
}

function detailOf(error: grpc.ServiceError, name: string): Uint8Array {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  must(Buffer.isBuffer(bytes), "the error has no details");
  // ItemStatus has the fields of google.rpc.Status, and so reads it.
  return detailIn(ItemStatus.decode(bytes), name);
}

function detailIn({ details }: ItemStatus, name: string): Uint8Array {
  const detail = details.find(({ typeUrl }) => typeUrl.endsWith(`/${name}`));
  must(detail !== undefined, `the details are ${details.map(({ typeUrl }) => typeUrl)}`);
  return detail.value;
}

/** Returns the machine-readable reason of a refused item. */
function itemReason(item: ItemStatus): string {
  must(item.code === grpc.status.INVALID_ARGUMENT, `the item is refused with ${item.code}`);
  return ErrorInfo.decode(detailIn(item, "google.rpc.ErrorInfo")).reason;
}

/** Returns the machine-readable reason of a refused call. */
function reasonOf(error: grpc.ServiceError): string {
  return ErrorInfo.decode(detailOf(error, "google.rpc.ErrorInfo")).reason;
}

/** Returns the error a call ends with. */
async function refusal(call: Promise<unknown>): Promise<grpc.ServiceError> {
  try {
    await call;
  } catch (error) {
    if (isServiceError(error)) return error;
    throw error;
  }
  throw new Failed("the call succeeded, and should not have");
}

async function main(): Promise<number> {
  const { ROOMCAST_GRPC: target, ROOMCAST_TOKEN: token, ROOMCAST_TENANT: tenant } = process.env;
  if (!target || !token) {
    console.error("node: ROOMCAST_GRPC or ROOMCAST_TOKEN is not set; see tests/clients/README.md");
    return 1;
  }
  const smoke = new Smoke(target, token, tenant || "default");
  const checks = {
    publish: () => smoke.checkPublish(),
    batch: () => smoke.checkBatch(),
    stream: () => smoke.checkStream(),
    members: () => smoke.checkMembers(),
    room: () => smoke.checkRoom(),
    users: () => smoke.checkUsers(),
    access: () => smoke.checkAccess(),
    subjects: () => smoke.checkSubjects(),
    features: () => smoke.checkFeatures(),
    error: () => smoke.checkError(),
    subscribe: () => smoke.checkSubscribe(),
    deadline: () => smoke.checkDeadline(),
  };
  try {
    for (const [name, check] of Object.entries(checks)) {
      try {
        console.log(`node ${name}: ok, ${await check()}`);
      } catch (error) {
        if (!(error instanceof Failed) && !isServiceError(error)) throw error;
        console.error(`node ${name}: FAILED, ${error.message}`);
        return 1;
      }
    }
    return 0;
  } finally {
    smoke.close();
  }
}

process.exitCode = await main();
