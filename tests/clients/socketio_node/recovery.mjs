// The story of a stock Socket.IO client that is cut off and comes back to its session, for each of its transports.
//
//   node tests/clients/socketio_node/recovery.mjs LIBRARY ADDRESS ADAS_TOKEN BOBS_TOKEN GRPC_ADDRESS SERVICE_TOKEN TENANT
//
// The gateway recovers sessions, and has the namespaces `/` and `/chat`. Exit code 0 when all of the story held.

import assert from "node:assert/strict";
import { Backend, Proxy } from "./gateway.mjs";

const [library, address, adasToken, , grpc, serviceToken, tenant] = process.argv.slice(2);
const { io } = await import(library);
const backend = new Backend(grpc, serviceToken, tenant);

// Bounds every single wait; the server's own work takes milliseconds.
const PATIENCE_MS = 15_000;

/** What a condition comes to; asked again after each thing that happens to the socket. */
function until(socket, what, condition) {
  const late = new Error(`${what}: it did not come to it in time`);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(late), PATIENCE_MS);
    // Afterwards: listeners for any event come before those for one.
    const look = () => setImmediate(() => {
      if (!condition()) return;
      clearTimeout(timer);
      socket.offAny(look);
      socket.off("connect", look);
      socket.off("disconnect", look);
      resolve();
    });
    socket.onAny(look);
    socket.on("connect", look);
    socket.on("disconnect", look);
    look();
  });
}

async function story(transports, namespace) {
  const proxy = await Proxy.to(address);
  const socket = io(`${proxy.url}${namespace}`, {
    forceNew: true,
    transports,
    auth: { token: adasToken },
    reconnectionDelay: 20,
    reconnectionDelayMax: 20,
  });
  const numbers = [];
  let connects = 0;
  socket.on("connect", () => (connects += 1));
  socket.on("said", ({ n }, offset) => {
    assert.equal(typeof offset, "string", "an event has its offset");
    numbers.push(n);
  });
  await until(socket, "connected", () => connects === 1);
  assert.equal(socket.recovered, false);
  const { id } = socket;
  const room = `${transports}${namespace}`;
  const joined = await socket.emitWithAck("roomcast:join", { room });
  assert.equal(joined.ok, true, JSON.stringify(joined));

  const expected = [];
  const say = async () => {
    expected.push(expected.length);
    await backend.publish(room, "said", { n: expected.length - 1 });
  };
  // Before the first event, behind each of some, and several times in a row.
  for (let round = 1; round <= 8; round += 1) {
    proxy.cut();
    await until(socket, "cut off", () => !socket.connected);
    for (let missed = 0; missed < round % 4; missed += 1) await say();
    proxy.mend();
    await until(socket, "back", () => connects === round + 1);
    assert.equal(socket.recovered, true, `round ${round} of ${room}`);
    assert.equal(socket.id, id, "it is the same session");
    assert.deepEqual(numbers, expected, "what was missed came with the connection");
    await say();
    await until(socket, "live", () => numbers.length === expected.length);
  }
  assert.deepEqual(numbers, expected, "each once, in order");
  // It goes for good, and begins anew.
  socket.disconnect();
  socket.connect();
  await until(socket, "begun anew", () => connects === 10);
  assert.equal(socket.recovered, false);
  assert.notEqual(socket.id, id);
  socket.close();
  proxy.close();
}

for (const transports of [["polling", "websocket"], ["websocket"], ["polling"]]) {
  for (const namespace of ["/", "/chat"]) await story(transports, namespace);
}
process.exit(0);
