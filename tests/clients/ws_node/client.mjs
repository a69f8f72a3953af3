// A client of the native JSON protocol, on the `ws` library and nothing of ours.
//
//   node tests/clients/ws_node/client.mjs URL TOKEN ROOM
//
// The token allows to join and publish in the room. It connects, joins, publishes, sees its own event, asks for
// what only a newer server knows, pings, goes away, comes back with `since` and gets exactly what it missed.
// Exit code 0 when all of that held.
// `ws` offers compression by default; that the server refuses it politely is part of the test.

import assert from "node:assert/strict";
import { once } from "node:events";
import { WebSocket } from "ws";

const SUBPROTOCOL = "roomcast.v1.json";
// Bounds every single wait; the server's own work takes milliseconds.
const PATIENCE_MS = 15_000;

const within = () => ({ signal: AbortSignal.timeout(PATIENCE_MS) });

/** One connection: replies are told from pushes by their id. */
class Client {
  #socket;
  #lastId = 0;
  #frames = [];
  #pushes = [];
  #wake = () => {};

  constructor(url) {
    this.#socket = new WebSocket(url, SUBPROTOCOL, { handshakeTimeout: PATIENCE_MS });
    // Collected from the very start: a frame may arrive together with the handshake's answer.
    this.#socket.on("message", (data, isBinary) => {
      assert.ok(!isBinary, "the JSON protocol uses text messages");
      this.#frames.push(JSON.parse(data.toString()));
      this.#wake();
    });
    this.#socket.on("close", (code) => {
      this.closed = code;
      this.#wake();
    });
  }

  static async open(url, token) {
    const client = new Client(url);
    await once(client.#socket, "open", within());
    assert.equal(client.#socket.protocol, SUBPROTOCOL, "the subprotocol was agreed on");
    // One of each kind: a client of tomorrow meets this server in a rolling update.
    const features = ["history", "of_tomorrow"];
    const connected = await client.command("connect", { token, client: "ws_node", features }, "connected");
    assert.ok(connected.connectionId, "a connection has an id");
    const has = features.filter((name) => connected.features?.includes(name));
    assert.deepEqual(has, ["history"], "the server names what it has");
    return client;
  }

  async command(name, body, answer) {
    const id = ++this.#lastId;
    this.#socket.send(JSON.stringify({ id, [name]: body }));
    for (;;) {
      const frame = await this.#receive();
      if (frame.id === id) {
        assert.ok(answer in frame, `${name} is answered by ${answer}, not ${JSON.stringify(frame)}`);
        return frame[answer];
      }
      this.#pushes.push(frame);
    }
  }

  /** The next event, skipping other kinds of pushes, as a client must. */
  async event() {
    for (;;) {
      const frame = this.#pushes.shift() ?? (await this.#receive());
      if (frame.event) return frame.event;
    }
  }

  async #receive() {
    while (this.#frames.length === 0) {
      assert.equal(this.closed, undefined, "the server keeps the connection open");
      await new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error("the server sent nothing in time")), PATIENCE_MS);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return this.#frames.shift();
  }

  join(room, options = {}) {
    return this.command("join", { room, ...options }, "joined");
  }

  publish(room, payload) {
    return this.command("publish", { room, eventName: "chat", payload }, "published");
  }

  async ping(text) {
    const pong = once(this.#socket, "pong", within());
    this.#socket.ping(text);
    const [data] = await pong;
    assert.equal(data.toString(), text, "a pong carries what its ping carried");
  }

  async close() {
    const closed = once(this.#socket, "close", within());
    this.#socket.close(1000);
    const [code] = await closed;
    assert.equal(code, 1000, "the close is answered in kind");
  }
}

const positionOf = (event) => ({ epoch: event.epoch, offset: event.offset });

async function story(url, token, room) {
  let ada = await Client.open(url, token);
  const first = await ada.join(room);
  assert.ok(!("recovered" in first), "nothing is recovered without since");

  const published = await ada.publish(room, { text: "héllo ✓", n: 1 });
  assert.ok(published.reached >= 1, "the publisher itself is reached");
  const seen = await ada.event();
  assert.equal(seen.room, room);
  assert.equal(seen.eventName, "chat");
  assert.deepEqual(seen.payload, { text: "héllo ✓", n: 1 }, "the payload arrives as it was sent");
  assert.deepEqual(positionOf(seen), published.position, "reply and event agree on the position");
  assert.ok(seen.timeMs > 0, "the server stamps the time");

  await ada.ping("are you there");
  const refusal = await ada.command("ofTomorrow", {}, "error");
  assert.equal(refusal.reason, "unsupported", "what is not known is said to be so");
  assert.match(refusal.message, /ofTomorrow/, "by its name");
  const pong = await ada.command("ping", {}, "pong");
  assert.ok(pong.serverTimeMs >= seen.timeMs, "the clock does not go backwards");
  await ada.close();

  const bob = await Client.open(url, token);
  const missed = await bob.publish(room, { text: "while you were away" });
  await bob.close();

  ada = await Client.open(url, token);
  const joined = await ada.join(room, { since: positionOf(seen) });
  assert.equal(joined.recovered, true, "what was missed is recovered");
  assert.equal(joined.replayed, 1, "exactly one event was missed");
  const replayed = await ada.event();
  assert.deepEqual(replayed.payload, { text: "while you were away" }, "the missed event is handed over");
  assert.deepEqual(positionOf(replayed), missed.position, "at the position it was published");
  assert.equal(replayed.previousOffset, seen.offset, "without a gap to the last one seen");

  // The next event proves that the missed one does not come twice.
  const live = await ada.publish(room, { text: "live again" });
  const following = await ada.event();
  assert.deepEqual(positionOf(following), live.position, "live events follow without a seam");
  assert.equal(following.previousOffset, replayed.offset, "and without a gap");
  await ada.close();
}

if (process.argv.length !== 5) {
  console.error("usage: node tests/clients/ws_node/client.mjs URL TOKEN ROOM");
  process.exit(2);
}
try {
  await story(...process.argv.slice(2));
  console.log("ws_node: connected, joined, published, pinged, resumed");
} catch (error) {
  console.error(`ws_node: ${error.message}`);
  process.exit(1);
}
