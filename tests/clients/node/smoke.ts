// Calls a running gateway through the generated TypeScript client; see ../README.md.

import { randomUUID } from "node:crypto";
import * as grpc from "@grpc/grpc-js";
import { BadRequest, ErrorInfo } from "nice-grpc-error-details";
import { ItemStatus } from "./gen/roomcast/v1/error.js";
import { PublishRequest, PublishResponse, PublishServiceClient } from "./gen/roomcast/v1/publish.js";
import { ListMembersRequest, ListMembersResponse, RoomServiceClient } from "./gen/roomcast/v1/room.js";
import { Retention } from "./gen/roomcast/v1/types.js";
import { WatchRequest, WatchResponse, WatchServiceClient } from "./gen/roomcast/v1/watch.js";

const TIMEOUT_MS = 10_000;

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
  private readonly watchService: WatchServiceClient;
  private readonly metadata = new grpc.Metadata();
  private readonly room = `smoke-node-${randomUUID()}`;

  constructor(target: string, token: string, private readonly tenant: string) {
    const credentials = grpc.credentials.createInsecure();
    this.publishService = new PublishServiceClient(target, credentials);
    this.roomService = new RoomServiceClient(target, credentials);
    this.watchService = new WatchServiceClient(target, credentials);
    this.metadata.set("authorization", `Bearer ${token}`);
  }

  close(): void {
    for (const client of [this.publishService, this.roomService, this.watchService]) client.close();
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

  private listMembers(timeoutMs?: number): Promise<ListMembersResponse> {
    const request = ListMembersRequest.fromPartial({ tenant: this.tenant, room: this.room });
    return this.call<ListMembersRequest, ListMembersResponse>(
      (...a) => this.roomService.listMembers(...a),
      request,
      timeoutMs,
    );
  }

  private publication(event: string): PublishRequest {
    return PublishRequest.fromPartial({
      tenant: this.tenant,
      targets: [{ target: { $case: "room", value: this.room } }],
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
    return `reached 0 at offset ${position.offset}, repeated as a duplicate`;
  }

  async checkMembers(): Promise<string> {
    const answer = await this.listMembers();
    must(answer.members.length === 0 && answer.memberCount === 0, `an empty room has members: ${show(answer)}`);
    return "none in an empty room";
  }

  async checkError(): Promise<string> {
    const error = await refusal(this.publish(this.publication("bad\u0007name")));
    must(error.code === grpc.status.INVALID_ARGUMENT, `not refused as it should be: ${error.message}`);
    const [bytes] = error.metadata.get("grpc-status-details-bin");
    must(Buffer.isBuffer(bytes), "the error has no details");
    // ItemStatus has the fields of google.rpc.Status, and so reads it.
    const { details } = ItemStatus.decode(bytes);
    const find = (name: string) => details.find((detail) => detail.typeUrl.endsWith(`/${name}`))?.value;
    const info = find("google.rpc.ErrorInfo");
    const bad = find("google.rpc.BadRequest");
    must(info !== undefined && bad !== undefined, `the details are ${details.map((d) => d.typeUrl)}`);
    const { domain, reason } = ErrorInfo.decode(info);
    must(domain === "roomcast" && reason === "INVALID_EVENT_NAME", `ErrorInfo is ${domain} ${reason}`);
    const fields = BadRequest.decode(bad).fieldViolations.map((violation) => violation.field);
    must(show(fields) === '["event_name"]', `BadRequest names ${show(fields)}`);
    return `INVALID_ARGUMENT ${reason} in field ${fields[0]}`;
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
    members: () => smoke.checkMembers(),
    error: () => smoke.checkError(),
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
