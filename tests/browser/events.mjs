// A page's EventSource in a real, headless Chromium, and Node's fetch, on event streams of the gateway.
//
//   node tests/browser/events.mjs WEBSOCKET_URL TOKEN
//
// The page is of another origin than the stream. Its connection is cut three times while events are published to two rooms: it
// comes back by itself and dispatches each event once and in order. A stream whose token is refused ends for good.
//
// Exit code 0: all of it was seen. Otherwise the first thing that was not is printed.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import { WebSocket } from "ws";
import { tell } from "./chromium.mjs";

const [url, token] = process.argv.slice(2);
if (!token) {
  console.error("usage: node tests/browser/events.mjs WEBSOCKET_URL TOKEN");
  process.exit(2);
}

const PATIENCE_MS = 30_000;
const ROUNDS = 20;
const gateway = new URL(url);
const rooms = [`events-${process.pid}`, `events ${process.pid} +`];

async function listening(server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `127.0.0.1:${server.address().port}`;
}

/** A network that can be cut. */
class Proxy {
  requests = [];
  #sockets = new Set();
  #server = net.createServer((client) => {
    const upstream = net.connect(gateway.port, gateway.hostname);
    client.on("data", (bytes) => {
      const line = bytes.toString("latin1").split("\r\n")[0];
      if (line.startsWith("GET ")) this.requests.push(line);
    });
    client.pipe(upstream).pipe(client);
    for (const socket of [client, upstream]) {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
  });

  async start() {
    this.address = await listening(this.#server);
    return this;
  }

  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** Publishes over the native protocol. */
class Publisher {
  #socket = new WebSocket(url, "roomcast.v1.json");
  #lastId = 0;

  async #command(command) {
    const id = ++this.#lastId;
    this.#socket.send(JSON.stringify({ id, ...command }));
    for (;;) {
      const [data] = await once(this.#socket, "message", { signal: AbortSignal.timeout(PATIENCE_MS) });
      const frame = JSON.parse(data.toString());
      if (frame.id !== id) continue;
      assert.ok(!frame.error, JSON.stringify(frame));
      return frame;
    }
  }

  async start() {
    await once(this.#socket, "open");
    await this.#command({ connect: { token } });
    return this;
  }

  publish(room, payload) {
    return this.#command({ publish: { room, eventName: "n", payload } });
  }

  close() {
    this.#socket.close();
  }
}

const query = (named, more = {}) =>
  new URLSearchParams([...named.map((room) => ["room", room]), ...Object.entries(more)]).toString();

async function reads(page, proxy, publisher) {
  await page.evaluate(
    (address) => {
      window.seen = [];
      window.joined = [];
      const stream = new EventSource(address);
      stream.addEventListener("n", (event) => window.seen.push(JSON.parse(event.data)));
      stream.addEventListener("roomcast:joined", (event) => window.joined.push(JSON.parse(event.data)));
    },
    `http://${proxy.address}/v1/events?${query(rooms, { token, envelope: "1" })}`,
  );
  const isIn = (named) => named.every((room) => window.joined.some((joined) => joined.room === room));
  await page.waitForFunction(isIn, rooms);
  const first = await page.evaluate(() => window.joined.length);
  for (let n = 0; n < ROUNDS; n += 1) {
    for (const room of rooms) await publisher.publish(room, { n });
    if (n % 5 === 4) proxy.cut();
  }
  await page.waitForFunction((count) => window.seen.length >= count, ROUNDS * rooms.length);
  // What comes now would come behind anything twice.
  for (const room of rooms) await publisher.publish(room, { n: ROUNDS });
  await page.waitForFunction((count) => window.seen.length >= count, (ROUNDS + 1) * rooms.length);
  const seen = await page.evaluate(() => window.seen);
  for (const room of rooms) {
    const numbers = seen.filter((event) => event.room === room).map((event) => event.payload.n);
    assert.deepEqual(numbers, [...Array(ROUNDS + 1).keys()], `${room} in order and once`);
  }
  const again = (await page.evaluate(() => window.joined)).slice(first);
  assert.ok(again.length >= 2, "the page came back");
  assert.ok(again.every((joined) => joined.recovered), JSON.stringify(again));
}

async function isSentAway(page, proxy) {
  const asked = () => proxy.requests.filter((line) => line.includes("token=refused")).length;
  const told = await page.evaluate(
    (address) =>
      new Promise((resolve) => {
        const told = [];
        const stream = new EventSource(address);
        for (const name of ["refused", "closing"]) {
          stream.addEventListener(`roomcast:${name}`, (event) => told.push([name, JSON.parse(event.data).reason]));
        }
        stream.onerror = () => stream.readyState === EventSource.CLOSED && resolve(told);
      }),
    `http://${proxy.address}/v1/events?${query(rooms, { token: "refused" })}`,
  );
  assert.deepEqual(told, [["refused", "unauthenticated"], ["closing", "unauthenticated"]]);
  assert.equal(asked(), 2, "it came back once, and was stopped");
}

/** Reads the blocks of a response until one is of this event and holds a text. */
async function blockOf(response, name, held) {
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of response.body) {
    text += decoder.decode(chunk, { stream: true });
    const blocks = text.split("\n\n").slice(0, -1);
    const block = blocks.find((candidate) => candidate.includes(`event: ${name}\n`) && candidate.includes(held));
    if (block) return block;
  }
  throw new Error(`no ${name} in ${text}`);
}

async function fetches(publisher) {
  const asked = (id) => {
    const headers = { authorization: `Bearer ${token}`, ...(id && { "last-event-id": id }) };
    const address = `http://${gateway.host}/v1/events?${query(rooms.slice(0, 1))}`;
    return fetch(address, { headers, signal: AbortSignal.timeout(PATIENCE_MS) });
  };
  const id = (await blockOf(await asked(), "roomcast:joined", rooms[0])).match(/^id: (.+)$/m)[1];
  await publisher.publish(rooms[0], "missed");
  await blockOf(await asked(id), "n", 'data: "missed"');
}

async function story(browser) {
  const blank = http.createServer((_, response) => {
    response.setHeader("content-type", "text/html");
    response.end("<title>a page</title>");
  });
  const [proxy, publisher] = [await new Proxy().start(), await new Publisher().start()];
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  await page.goto(`http://${await listening(blank)}/`);
  await reads(page, proxy, publisher);
  await isSentAway(page, proxy);
  await fetches(publisher);
  publisher.close();
}

await tell(story, "was cut off, missed nothing, and stopped where it was sent away");
