// Stock Socket.IO clients of a gateway that is shut down: they come back by themselves, to another one behind the same address.
//
//   node tests/clients/socketio_node/drain.mjs LIBRARY TOKEN ADDRESS ADDRESS
//
// Prints a line once clients on all transports are connected to the first address; that gateway is to be shut down then. Exit
// code 0 once all of them are connected to the second.

import assert from "node:assert/strict";
import { Proxy } from "./gateway.mjs";
import { Person } from "./person.mjs";

const [library, token, first, second] = process.argv.slice(2);
if (!second) {
  console.error("usage: drain.mjs LIBRARY TOKEN ADDRESS ADDRESS");
  process.exit(2);
}
const { io } = await import(library);

try {
  const proxy = await Proxy.to(first);
  const people = [];
  for (const transports of [["polling", "websocket"], ["websocket", "polling"], ["websocket"], ["polling"]]) {
    const person = await Person.connected(io(proxy.url, { forceNew: true, transports, auth: { token } }));
    await person.upgraded(transports);
    people.push(person);
  }
  const before = people.map((person) => person.socket.id);
  const left = people.map((person) => person.once("disconnect"));
  const back = people.map((person) => person.once("connect"));
  proxy.turn(second);
  console.log("connected");
  for (const [reason] of await Promise.all(left)) assert.match(reason, /^transport (close|error)$/);
  await Promise.all(back);
  people.forEach((person, index) => assert.notEqual(person.socket.id, before[index], "it is another session"));
  for (const person of people) await person.command("ping", {});
} catch (error) {
  console.error(`${library}, at a drain: ${error.stack}`);
  process.exit(1);
}
process.exit(0);
