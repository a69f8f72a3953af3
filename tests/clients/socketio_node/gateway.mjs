// The gateway as the stories of Socket.IO clients need it: what its backend asks of it, and a proxy on the way to it that
// can cut every connection and hold WebSockets back.

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";

/** Calls of a backend: the HTTP mirror, and gRPC-Web where the mirror has no such call. */
export class Backend {
  #address;
  #token;
  #tenant;

  constructor(address, token, tenant) {
    this.#address = address;
    this.#token = token;
    this.#tenant = tenant;
  }

  /** Publishes to a room and returns the event's position; a payload that is a Buffer as binary. */
  async publish(room, eventName, payload) {
    const content = Buffer.isBuffer(payload) ? { payloadBase64: payload.toString("base64") } : { payload };
    const response = await fetch(`http://${this.#address}/v1/publish`, {
      method: "POST",
      headers: { authorization: `Bearer ${this.#token}`, "content-type": "application/json" },
      body: JSON.stringify({ tenant: this.#tenant, eventName, targets: [{ room }], ...content }),
    });
    assert.equal(response.status, 200, "the backend may publish");
    return (await response.json()).results[0].position;
  }

  /** Asks a connection; its client's answer, binary as a Buffer, or the reason why there is none. */
  async ask(connectionId, method, payload, timeout = "15s") {
    const content = Buffer.isBuffer(payload) ? { payloadBase64: payload.toString("base64") } : { payload };
    const response = await fetch(`http://${this.#address}/v1/ask`, {
      method: "POST",
      headers: { authorization: `Bearer ${this.#token}`, "content-type": "application/json" },
      body: JSON.stringify({ tenant: this.#tenant, connectionId, method, timeout, ...content }),
    });
    const answer = await response.json();
    if (answer.payloadBase64 !== undefined) return Buffer.from(answer.payloadBase64, "base64");
    return response.status === 200 ? answer.payload : answer.reason;
  }

  /** Ends a connection; whether its client is told to stay away is up to `mayReconnect`. */
  async disconnect(connectionId, mayReconnect) {
    const text = (field, value) => [(field << 3) | 2, value.length, ...Buffer.from(value)];
    const message = Buffer.from([
      ...text(1, this.#tenant),
      ...text(3, connectionId),
      ...text(4, "tidied_up"),
      ...(mayReconnect ? [6 << 3, 1] : []),
    ]);
    const head = Buffer.alloc(5);
    head.writeUInt32BE(message.length, 1);
    const response = await fetch(`http://${this.#address}/roomcast.v1.ConnectionService/Disconnect`, {
      method: "POST",
      headers: { authorization: `Bearer ${this.#token}`, "content-type": "application/grpc-web+proto" },
      body: Buffer.concat([head, message]),
    });
    const answer = Buffer.from(await response.arrayBuffer()).toString("latin1");
    const status = response.headers.get("grpc-status") ?? /grpc-status:\s*(\d+)/i.exec(answer)?.[1];
    assert.equal(status, "0", `the backend may disconnect a client: ${answer}`);
  }
}

/** A proxy for TCP in front of the gateway. */
export class Proxy {
  #upstream;
  #server;
  #sockets = new Set();
  #gate = Promise.resolve();
  #open = () => {};
  #isCut = false;

  static async to(address) {
    const proxy = new Proxy();
    proxy.turn(address);
    proxy.#server = net.createServer((socket) => proxy.#carry(socket));
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    proxy.url = `http://127.0.0.1:${proxy.#server.address().port}`;
    return proxy;
  }

  /** Leads new connections to this address. */
  turn(address) {
    const [host, port] = address.split(":");
    this.#upstream = { host, port: Number(port) };
  }

  /** Holds back every WebSocket that is opened from now on. */
  hold() {
    this.#gate = new Promise((open) => (this.#open = open));
  }

  release() {
    this.#open();
    this.#gate = Promise.resolve();
  }

  /** Breaks all connections, and those that come, as a lost network would. */
  cut() {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend() {
    this.#isCut = false;
  }

  close() {
    this.cut();
    this.#server.close();
  }

  async #carry(client) {
    this.#keep(client);
    if (this.#isCut) return client.destroy();
    const first = await new Promise((resolve) => client.once("data", resolve));
    client.pause();
    if (first.includes("transport=websocket")) await this.#gate;
    if (client.destroyed) return;
    const upstream = net.connect(this.#upstream);
    this.#keep(upstream);
    upstream.write(first);
    client.pipe(upstream).pipe(client);
    client.on("close", () => upstream.destroy());
    upstream.on("close", () => client.destroy());
  }

  #keep(socket) {
    this.#sockets.add(socket);
    // A cut connection is an error to one of its ends; `close` follows.
    socket.on("error", () => {});
    socket.on("close", () => this.#sockets.delete(socket));
  }
}
