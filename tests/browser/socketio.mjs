// The browser's build of the stock Socket.IO client in a real, headless Chromium, on a page of another origin than the gateway's:
// it polls and upgrades, publishes and receives, also with headers that ask for a preflight. Errors can be read by the page. A
// page of a foreign origin gets nowhere.
//
//   node tests/browser/socketio.mjs
//
// It prints the origin of its page, and reads a line of the gateway that accepts this origin and no other: its address and a token.
// Exit code 0: all of it was seen. Otherwise the first thing that was not is printed, with what the page said.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline/promises";
import { PATIENCE_MS, tell } from "./chromium.mjs";

const library = path.dirname(createRequire(import.meta.url).resolve("socket.io-client/package.json"));
const script = readFileSync(path.join(library, "dist", "socket.io.min.js"));
const pages = createServer((request, response) => {
  const isScript = request.url === "/io.js";
  response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
  response.end(isScript ? script : "<!doctype html><title>app</title><script src=/io.js></script>");
}).listen(0, "127.0.0.1");
await once(pages, "listening");
const { port } = pages.address();
const [origin, foreignOrigin] = [`http://127.0.0.1:${port}`, `http://localhost:${port}`];
console.log(origin);
const [address, token] = (await createInterface({ input: process.stdin }).question("")).split(" ");
const gateway = `http://${address}`;

/** A page of an origin, with the library and a few words of ours. */
async function open(browser, origin) {
  const context = await browser.newContext();
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  await page.goto(`${origin}/`);
  await page.evaluate((patience) => {
    window.within = (promise, what) =>
      Promise.race([
        promise,
        new Promise((_, reject) => setTimeout(() => reject(new Error(`${what}: nothing came in time`)), patience)),
      ]);
    window.once = (emitter, name) => within(new Promise((resolve) => emitter.once(name, resolve)), name);
    window.ask = (socket, name, fields) =>
      within(new Promise((resolve) => socket.emit(`roomcast:${name}`, fields, resolve)), name);
  }, PATIENCE_MS);
  return page;
}

/** Connects with some options, publishes text and bytes, and returns what came back. */
const talk = (page, options, room) =>
  page.evaluate(
    async ([gateway, options, room]) => {
      const socket = io(gateway, { forceNew: true, ...options });
      await once(socket, "connect");
      const { engine } = socket.io;
      const waits = engine.transport.name === "polling" && !(options.transports?.length === 1);
      if (waits) await once(engine, "upgrade");
      const events = [];
      socket.on("chat", (payload) => events.push(payload));
      socket.on("blob", (payload) => events.push([payload.constructor.name, ...new Uint8Array(payload)]));
      const answers = [
        await ask(socket, "join", { room }),
        await ask(socket, "publish", { room, eventName: "chat", payload: { text: "héllo ✓" } }),
        await ask(socket, "publish", { room, eventName: "blob", payload: new Uint8Array([4, 52, 98]) }),
        await ask(socket, "publish", { room, eventName: "blob", payload: new ArrayBuffer(0) }),
        await ask(socket, "leave", { room }),
      ];
      const { name } = engine.transport;
      socket.close();
      return { transport: name, refused: answers.filter((answer) => answer.ok !== true), events };
    },
    [gateway, options, room],
  );

/** Tries to connect, and returns the words of the error. */
const tries = (page, transports) =>
  page.evaluate(
    async ([gateway, transports, token]) => {
      const socket = io(gateway, { forceNew: true, transports, auth: { token }, reconnection: false });
      const connected = new Promise((resolve) => socket.once("connect", () => resolve("connected")));
      const failed = once(socket, "connect_error").then((error) => error.message);
      const outcome = await Promise.race([connected, failed]);
      socket.close();
      return outcome;
    },
    [gateway, transports, token],
  );

/** A request of the page: the status and the body if the page may read them. */
const request = (page, query, options = {}) =>
  page.evaluate(
    async ([url, { size, ...options }]) => {
      try {
        const large = size ? { body: "4".repeat(size) } : {};
        const response = await fetch(url, { credentials: "include", ...large, ...options });
        return [response.status, await response.text()];
      } catch (error) {
        return ["unreadable", error.message];
      }
    },
    [`${gateway}/socket.io/?${query}`, options],
  );

const EVENTS = [{ text: "héllo ✓" }, ["ArrayBuffer", 4, 52, 98], ["ArrayBuffer"]];

async function story(browser) {
  const app = await open(browser, origin);
  const auth = { token };
  const ways = [
    ["polling, then an upgrade", { auth }, "websocket"],
    ["polling only", { auth, transports: ["polling"] }, "polling"],
    ["WebSocket only", { auth, transports: ["websocket"] }, "websocket"],
    ["with credentials and a header", { auth, withCredentials: true, extraHeaders: { "X-App-Version": "7" } }, "websocket"],
    ["polling with a bearer token", { extraHeaders: { Authorization: `Bearer ${token}` }, transports: ["polling"] }, "polling"],
    ["a bearer token that no WebSocket can show", { extraHeaders: { Authorization: `Bearer ${token}` } }, "websocket"],
  ];
  for (const [way, options, transport] of ways) {
    const seen = await talk(app, options, `browser:${way}`).catch((error) => assert.fail(`${way}: ${error.message}`));
    assert.deepEqual(seen, { transport, refused: [], events: EVENTS }, way);
  }

  const isError = async (query, options, status, code) => {
    const [told, body] = await request(app, query, options);
    assert.equal(told, status, `the page reads the error of ${options.method ?? "GET"} ${query}: ${body}`);
    if (code !== undefined) assert.equal(JSON.parse(body).code, code);
  };
  await isError("EIO=3&transport=polling", {}, 400, 5);
  await isError("EIO=4&transport=carrier-pigeon", {}, 400, 0);
  await isError("EIO=4&transport=polling&sid=nobody", {}, 400, 1);
  const [, opened] = await request(app, "EIO=4&transport=polling");
  const { sid, maxPayload } = JSON.parse(opened.slice(1));
  await isError(`EIO=4&transport=polling&sid=${sid}`, { method: "POST", size: 2 * maxPayload }, 413);
  await isError(`EIO=4&transport=polling&sid=${sid}`, { method: "DELETE" }, 400, 3);
  const left = await request(app, `EIO=4&transport=polling&sid=${sid}`, { method: "POST", body: "1" });
  assert.deepEqual(left, [200, "ok"], "the page ends a connection that it polls");

  const foreign = await open(browser, foreignOrigin);
  assert.equal(await tries(foreign, ["polling"]), "xhr poll error", "a foreign page does not poll");
  assert.equal(await tries(foreign, ["websocket"]), "websocket error", "nor does it open a WebSocket");
  const [told] = await request(foreign, "EIO=4&transport=polling");
  assert.equal(told, "unreadable", "and it reads no answer");
  assert.equal(await tries(app, ["websocket"]), "connected", "the page that may connect still does");
}

await tell(story, "Socket.IO polled, upgraded, published; errors were readable; a foreign page got nowhere");
