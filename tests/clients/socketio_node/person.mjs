// One socket of a stock Socket.IO client, in the hands of a story.

import assert from "node:assert/strict";

// Whether each request reaches another of several nodes. An upgrade succeeds on the node of the connection only, and a node that is
// busy may not say in time whom an event reaches.
export const BY_TURNS = process.env.ROOMCAST_BY_TURNS !== undefined;

// Bounds every single wait; the server's own work takes milliseconds.
const PATIENCE_MS = 15_000;

function within(promise, what) {
  // Made here, where its stack still tells the part of the story.
  const late = new Error(`${what}: nothing came in time`);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(late), PATIENCE_MS);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** One socket: collects what it is sent. */
export class Person {
  #events = [];
  #wake = () => {};

  constructor(socket) {
    this.socket = socket;
    socket.on("disconnect", (reason) => (this.disconnected = reason));
    socket.onAny((name, ...rest) => {
      this.#events.push({ name, rest });
      this.#wake();
    });
  }

  static async connected(socket) {
    const person = new Person(socket);
    await person.once("connect");
    return person;
  }

  /** The arguments of the library's next event of this name. */
  once(name) {
    return within(new Promise((resolve) => this.socket.once(name, (...rest) => resolve(rest))), name);
  }

  /** The acknowledgement of an event. */
  ask(name, ...rest) {
    const answered = new Promise((resolve) => this.socket.emit(name, ...rest, (...answer) => resolve(answer)));
    return within(answered, `the acknowledgement of ${name}`).then((answer) => {
      assert.equal(answer.length, 1, "an acknowledgement has one argument");
      return answer[0];
    });
  }

  async command(name, fields) {
    const answer = await this.ask(`roomcast:${name}`, fields);
    assert.equal(answer.ok, true, `${name} is carried out: ${JSON.stringify(answer)}`);
    return answer;
  }

  /** The next event, of one of these names. The gateway's own events are passed over unless one is asked for. */
  async next(...names) {
    for (;;) {
      const event = this.#events.shift();
      if (event === undefined) {
        await within(new Promise((resolve) => (this.#wake = resolve)), names.join(" or "));
      } else if (names.includes(event.name)) {
        assert.equal(event.rest.length, 1, "an event has one argument");
        return event.rest[0];
      } else {
        assert.match(event.name, /^roomcast:/, `${event.name} is not what comes next: ${names}`);
      }
    }
  }

  publish(room, eventName, payload) {
    return this.command("publish", { room, eventName, payload });
  }

  /** Waits until an upgrade that there has to be is complete. */
  async upgraded(transports) {
    if (BY_TURNS) return;
    const { engine } = this.socket.io;
    if (transports[0] !== "polling" || transports.length === 1 || this.transport === "websocket") return;
    await within(new Promise((resolve) => engine.once("upgrade", resolve)), "the upgrade");
  }

  get transport() {
    return this.socket.io.engine.transport.name;
  }

  close() {
    this.socket.close();
  }
}
