// The story of a stock Socket.IO client, on the `socket.io-client` library and nothing of ours, for each of its transports.
//
//   node tests/clients/socketio_node/client.mjs LIBRARY ADDRESS ADAS_TOKEN BOBS_TOKEN GRPC_ADDRESS SERVICE_TOKEN TENANT
//
// LIBRARY is the package, as `tests/package.json` names its releases. The tokens allow to join and publish in every room. The
// gateway has the namespaces `/` and `/chat`, and lets a client publish some thousand events a second. The environment has the
// secret of its tokens, ROOMCAST_DEV_SECRET. Exit code 0 when
// all of the story held; otherwise the first thing that did not is printed, with the transport it was seen on.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { Backend, Proxy } from "./gateway.mjs";
import { BY_TURNS, Person } from "./person.mjs";

const CARRIERS = {
  "polling, then an upgrade": ["polling", "websocket"],
  "WebSocket first": ["websocket", "polling"],
  "WebSocket only": ["websocket"],
  "polling only": ["polling"],
};

const [library, address, adasToken, bobsToken, grpc, serviceToken, tenant] = process.argv.slice(2);
if (!tenant) {
  console.error("usage: client.mjs LIBRARY ADDRESS ADAS_TOKEN BOBS_TOKEN GRPC_ADDRESS SERVICE_TOKEN TENANT");
  process.exit(2);
}
const { io } = await import(library);
const connect = (url, token, transports, options = {}) =>
  Person.connected(io(url, { forceNew: true, transports, auth: { token }, ...options }));
const backend = new Backend(grpc, serviceToken, tenant);

function assertReached(published, count, what) {
  if (!BY_TURNS || published.reached !== undefined) assert.equal(published.reached, count, what);
}

/** Joins, with the members of the room; two see each other, and each what the other and the backend publish. */
async function meeting(ada, bob, room) {
  const joined = await bob.command("join", { room, presence: "members" });
  assert.deepEqual(joined.presence.members, [{ userId: "bob", connectionCount: 1 }], "bob is alone");
  await ada.command("join", { room, presence: "members", state: { mood: "fine" } });
  const delta = await bob.next("roomcast:presenceDelta");
  assert.deepEqual(delta.joined, [{ userId: "ada", connectionCount: 1, state: { mood: "fine" } }], "ada comes");
  const present = await ada.command("presence", { room });
  assert.equal(present.memberCount, 2);

  const json = { text: "héllo ✓ \u2028", n: 1.5, deep: [[{}]], none: null };
  const published = await ada.publish(room, "chat", json);
  assertReached(published, 2, "both are reached");
  for (const person of [ada, bob]) assert.deepEqual(await person.next("chat"), json, "JSON arrives as it was sent");
  await backend.publish(room, "news", [1, "two"]);
  for (const person of [ada, bob]) assert.deepEqual(await person.next("news"), [1, "two"], "a payload is one argument");
  const page = await ada.command("history", { room });
  assert.deepEqual(
    page.events.map(({ eventName }) => eventName),
    ["chat", "news"],
    "the history has both",
  );
}

/** Sends binary data of sizes around the marks of the framing, and with first bytes that mean something to it. */
async function binary(ada, bob, room) {
  const sizes = [0, 1, 2, 3, 125, 126, 127, 128, 1000, 65_535, 65_536];
  const blobs = [
    ...sizes.map((size) => Buffer.alloc(size, "binary")),
    ...["\x04", "4", "b", "\x04x", "4x", "bx", "451-[]", "b4\x1eb4"].map((text) => Buffer.from(text)),
    Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)),
  ];
  const bytes = (blob) => {
    assert.ok(Buffer.isBuffer(blob), `binary data arrives as a Buffer, not ${typeof blob}`);
    return blob.toString("hex");
  };
  for (const [index, blob] of blobs.entries()) {
    const what = `${blob.length} bytes, number ${index}`;
    const answer = await ada.publish(room, "blob", blob);
    assertReached(answer, 2, what);
    for (const person of [ada, bob]) assert.equal(bytes(await person.next("blob")), blob.toString("hex"), what);
    await backend.publish(room, "file", blob);
    for (const person of [ada, bob]) assert.equal(bytes(await person.next("file")), blob.toString("hex"), what);
  }
  // All at once: a packet and its attachment stay together.
  await burst(ada, bob, room, blobs.filter((blob) => blob.length <= 1000));
  // Releases before 4.5 post everything in one body, whatever its size.
  if (!("_maxPayload" in bob.socket.io.engine)) return;
  // None is empty: the library takes the size of an empty one for NaN, and splits nothing behind it.
  await burst(ada, bob, room, blobs.filter((blob) => blob.length > 0));
  // It takes 1.33 for base64's 4/3, so that a body is a little larger than the gateway announced.
  await burst(ada, bob, room, [Buffer.alloc(37_475, "a"), Buffer.alloc(37_475, "b")]);
}

async function burst(ada, bob, room, blobs) {
  // While the first one is under way, the others are gathered.
  const answers = [bob.command("ping", {}), ...blobs.map((blob) => bob.publish(room, "blob", blob))];
  await Promise.all(answers);
  for (const person of [ada, bob]) {
    for (const blob of blobs) assert.ok(blob.equals(await person.next("blob")), `${blob.length} bytes in order`);
  }
}

/** Emits before it is connected: the library keeps all of it back and then sends it at once. */
async function early(url, transports, bob, room) {
  await bob.command("join", { room });
  const ada = new Person(io(url, { forceNew: true, transports, auth: { token: adasToken } }));
  const answers = Array.from({ length: 200 }, (_, n) => ada.publish(room, "early", n));
  await Promise.all(answers);
  for (let n = 0; n < answers.length; n++) assert.equal(await bob.next("early"), n, "each once and in order");
  ada.close();
}

/** Events that nobody handles, and commands that are refused, are told so in the acknowledgement. */
async function refusals(ada, room) {
  const reason = async (...event) => (await ada.ask(...event)).error?.reason;
  assert.equal(await reason("chat", { text: "to nobody" }), "unhandled_event");
  assert.equal(await reason("chat", "several", 2, Buffer.from("arguments")), "unhandled_event");
  assert.equal(await reason("roomcast:ofTomorrow", {}), "unsupported");
  assert.equal(await reason("roomcast:join", { room: "" }), "invalid_room");
  assert.equal(await reason("roomcast:join", room, "positional"), "invalid_argument");
  assert.equal(await reason("roomcast:publish", { room, eventName: "connect", payload: 1 }), "invalid_event_name");
  assert.equal(await reason("roomcast:request", { method: "any", room, payload: {} }), "no_backend");
  assert.equal((await reason("roomcast:refresh", { token: "of nobody" })), "unauthenticated");
  await ada.command("refresh", { token: adasToken });
  // Without an acknowledgement nobody is told, and nothing breaks.
  ada.socket.emit("chat", "to nobody");
  const pong = await ada.command("ping", {});
  assert.ok(pong.serverTimeMs > 0);
}

/** A token that is not accepted is told with its code, and another one can be tried on the same socket. */
async function wrongToken(url, transports) {
  const socket = io(url, { forceNew: true, transports, auth: { token: "of nobody" } });
  const person = new Person(socket);
  const [error] = await person.once("connect_error");
  assert.equal(error.data?.code, "unauthenticated", `the refusal has a code: ${error.message}`);
  assert.match(error.message, /authentication/, "and the words that applications look for");
  assert.equal(socket.connected, false);
  socket.auth = { token: adasToken };
  socket.connect();
  await person.once("connect");
  person.close();
}

/** Two namespaces on one connection are two sessions, which end one by one. */
async function namespaces(url, transports, room) {
  const main = await connect(url, adasToken, transports);
  const chat = new Person(main.socket.io.socket("/chat", { auth: { token: bobsToken } }));
  const nowhere = new Person(main.socket.io.socket("/nowhere", { auth: { token: adasToken } }));
  const refused = nowhere.once("connect_error");
  // It connects by itself already: an impatient application sends the packet twice.
  chat.socket.connect();
  await chat.once("connect");
  const [error] = await refused;
  assert.equal(error.message, "Invalid namespace");
  assert.notEqual(chat.socket.id, main.socket.id, "each is a session of its own");
  await chat.command("join", { room });
  await main.publish(room, "chat", "to the other");
  assert.equal(await chat.next("chat"), "to the other");
  await chat.publish(room, "blob", Buffer.from("4"));
  assert.deepEqual(await chat.next("blob"), Buffer.from("4"));
  await main.command("join", { room });
  chat.close();
  const published = await main.publish(room, "chat", "to myself");
  assert.equal(await main.next("chat"), "to myself", "what the other was sent never came here");
  assertReached(published, published.reached);
  assert.notEqual(published.reached, 0);
  nowhere.close();
  main.close();
}

/** Events flow both ways while the client upgrades, if it does: none is lost, doubled or out of order. */
async function stream(proxy, transports, bob, room) {
  const upgrades = !BY_TURNS && transports[0] === "polling" && transports.length > 1;
  if (upgrades) proxy.hold();
  const ada = await connect(proxy.url, adasToken, transports);
  let upgraded = !upgrades;
  ada.socket.io.engine.once("upgrade", () => (upgraded = true));
  await ada.command("join", { room });
  await bob.command("join", { room: `${room}:up` });

  const downwards = (async () => {
    let sent = 0;
    for (let after = 0; sent < 200 || after < 50; sent++) {
      if (upgraded) after++;
      await backend.publish(room, "down", sent);
    }
    await backend.publish(room, "end", { sent });
  })();
  const answers = [];
  const upwards = (async () => {
    for (let n = 0; ; n++) {
      const event = await ada.next("down", "end");
      if (event.sent !== undefined) return assert.equal(event.sent, n, "none was lost");
      assert.equal(event, n, "in the order in which they were published");
      if (n === 60 && upgrades) {
        assert.equal(ada.transport, "polling", "the first ones came by polling");
        proxy.release();
      }
      // Without waiting for the acknowledgement.
      answers.push(ada.publish(`${room}:up`, "up", payloadOf(n)));
    }
  })();
  await Promise.all([downwards, upwards]);
  await Promise.all(answers);
  for (let n = 0; n < answers.length; n++) {
    assert.deepEqual(await bob.next("up"), payloadOf(n), "what the client sent meanwhile is in order");
  }
  if (!BY_TURNS) assert.equal(ada.transport, upgrades ? "websocket" : transports[0]);
  await ada.publish(room, "last", null);
  assert.equal(await ada.next("last"), null, "nothing came twice");
  ada.close();
}

/** Every fourth has an attachment. */
const payloadOf = (n) => (n % 4 === 0 ? Buffer.from(`${n}`) : { n });

/** Loses the connection, comes back by itself with a token of its own, and recovers what it missed. */
async function comesBack(proxy, transports, room) {
  let asked = 0;
  const auth = (give) => {
    asked++;
    give({ token: adasToken });
  };
  const ada = await connect(proxy.url, adasToken, transports, { auth, ...IMPATIENT });
  await ada.upgraded(transports);
  await ada.command("join", { room });
  const { position } = await ada.publish(room, "chat", "before");
  assert.equal(await ada.next("chat"), "before");

  const left = ada.once("disconnect");
  proxy.cut();
  const [reason] = await left;
  assert.match(reason, /^transport (close|error)$/);
  await backend.publish(room, "chat", "while you were away");
  await backend.publish(room, "blob", Buffer.from("too"));
  const back = ada.once("connect");
  proxy.mend();
  await back;
  assert.equal(asked, 2, "the token is asked for again");
  const joined = await ada.command("join", { room, since: position });
  assert.equal(joined.recovered, true);
  assert.equal(joined.replayed, 2, "exactly two events were missed");
  assert.equal(await ada.next("chat"), "while you were away");
  assert.deepEqual(await ada.next("blob"), Buffer.from("too"));

  // The client itself ends its transport, as an application does that tries to come back.
  const again = [ada.once("disconnect"), ada.once("connect")];
  ada.socket.io.engine.close();
  await Promise.all(again);
  await ada.command("join", { room });
  await ada.publish(room, "chat", "again");
  assert.equal(await ada.next("chat"), "again");
  ada.close();
}

/** A backend ends the connection: of a client that may come back, which does so by itself, and for good. */
async function kicked(url, transports, room) {
  const ada = await connect(url, adasToken, transports, IMPATIENT);
  await ada.upgraded(transports);
  const sent = [ada.once("disconnect"), ada.once("connect")];
  await backend.disconnect(ada.socket.id, true);
  const [[away]] = await Promise.all(sent);
  assert.match(away, /^transport (close|error)$/, "its transport ends, so that it comes back");
  await ada.upgraded(transports);

  const gone = ada.once("disconnect");
  await backend.disconnect(ada.socket.id, false);
  const said = await ada.next("roomcast:disconnected");
  assert.equal(said.reason, "tidied_up", "the backend's reason reaches the client");
  const [forGood] = await gone;
  assert.equal(forGood, "io server disconnect", "it is told to stay away");
  assert.equal(ada.socket.io._reconnecting, false, "it does not try again");
  assert.equal(ada.socket.io._readyState, "closed", "its connection has ended");
  const back = ada.once("connect");
  ada.socket.connect();
  await back;
  await ada.command("join", { room });
  ada.close();
}

/** A token ends: who has got a new one stays, who has not is closed and comes back by itself with another one. */
async function expires(url, transports) {
  const short = tokenUntil(2);
  let asked = 0;
  const auth = (give) => give({ token: asked++ === 0 ? short : adasToken });
  const [late, early] = [await connect(url, "", transports, { auth, ...IMPATIENT }), await connect(url, short, transports)];
  await late.next("roomcast:sessionExpiring");
  const refreshed = await early.command("refresh", { token: adasToken });
  assert.ok(refreshed.expiresAtMs > Date.now() + 60_000);
  const gone = late.once("disconnect");
  const [reason] = await gone;
  assert.match(reason, /^transport (close|error)$/, "its transport ends, so that it comes back");
  await late.once("connect");
  assert.equal(asked, 2, "the token is asked for again");
  assert.equal(early.disconnected, undefined, "who has refreshed stays connected");
  await early.command("ping", {});
  late.close();
  early.close();
}

/** Ada's token with an end in some seconds. */
function tokenUntil(seconds) {
  const part = (value) => Buffer.from(value).toString("base64url");
  const claims = JSON.parse(Buffer.from(adasToken.split(".")[1], "base64url"));
  const now = Math.floor(Date.now() / 1000);
  const signed = [{ alg: "HS256", typ: "JWT" }, { ...claims, iat: now - 60, exp: now + seconds - LEEWAY_S }]
    .map((json) => part(JSON.stringify(json)))
    .join(".");
  return `${signed}.${createHmac("sha256", process.env.ROOMCAST_DEV_SECRET).update(signed).digest("base64url")}`;
}

// The gateway accepts a token this much longer, for the sake of clocks that are behind.
const LEEWAY_S = 10;

// For clients that come back: their usual pause is a second.
const IMPATIENT = { reconnectionDelay: 20, reconnectionDelayMax: 20 };

/** A backend asks, and gets what the client acknowledges. */
async function asked(url, transports) {
  const ada = await connect(url, adasToken, transports);
  const { socket } = ada;
  socket.on("nothing", (_data, ack) => ack());
  socket.on("same", (data, ack) => ack(data));
  socket.on("several", (data, ack) => ack(data, "two", [3]));
  socket.on("twice", (data, ack) => {
    ack(data);
    ack("again");
  });
  socket.on("nested", (_data, ack) => ack({ file: Buffer.from("x") }));
  socket.on("later", (data, ack) => setImmediate(() => ack(data)));
  socket.on("silent", () => {});
  // Asked while it may be polling still, and after the upgrade that there may be.
  for (let round = 0; round < 2; round++) {
    const ask = (method, payload, timeout) => backend.ask(socket.id, method, payload, timeout);
    assert.equal(await ask("nothing", 1), null, "an acknowledgement of nothing");
    const data = { text: "héllo ✓ \u2028", deep: [[{}]], none: null };
    for (const method of ["same", "later", "twice"]) assert.deepEqual(await ask(method, data), data, method);
    assert.deepEqual(await ask("several", 1), [1, "two", [3]], "several arguments");
    for (const blob of [Buffer.alloc(0), Buffer.from("\x04 4 b"), Buffer.alloc(20_000, 7)]) {
      assert.deepEqual(await ask("same", blob), blob, `${blob.length} bytes`);
    }
    assert.equal(await ask("nested", 1), "ANSWER_INVALID", "an attachment that is not the whole answer");
    assert.equal(await ask("silent", 1, "0.1s"), "NO_ANSWER", "an event that is not acknowledged");
    const many = Array.from({ length: 16 }, (_, n) => ask("later", n));
    assert.deepEqual(await Promise.all(many), [...many.keys()], "many at once");
    await ada.upgraded(transports);
  }
  const { id } = socket;
  ada.close();
  let reason;
  do reason = await backend.ask(id, "same", 1);
  while (reason === 1 || reason === "CONNECTION_LOST");
  assert.equal(reason, "CONNECTION_NOT_FOUND", "a client that has left");
}

async function story(carrier, transports) {
  const proxy = await Proxy.to(address);
  const url = `http://${address}`;
  const room = (name) => `${library}:${carrier}:${name}`;
  const ada = await connect(url, adasToken, transports);
  const bob = await connect(url, bobsToken, transports);
  await meeting(ada, bob, room("meeting"));
  await binary(ada, bob, room("meeting"));
  await refusals(ada, room("meeting"));
  ada.close();
  await asked(url, transports);
  await early(url, transports, bob, room("early"));
  await wrongToken(url, transports);
  await namespaces(url, transports, room("namespaces"));
  await stream(proxy, transports, bob, room("stream"));
  await comesBack(proxy, transports, room("back"));
  await kicked(url, transports, room("kicked"));
  await expires(url, transports);
  bob.close();
  proxy.close();
}

for (const [carrier, transports] of Object.entries(CARRIERS)) {
  try {
    await story(carrier, transports);
    console.log(`${library}, ${carrier}: the whole story held`);
  } catch (error) {
    console.error(`${library}, ${carrier}: ${error.stack}`);
    process.exit(1);
  }
}
process.exit(0);
