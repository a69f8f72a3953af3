// The client bundle that a gateway serves, in a real, headless Chromium: a page of another origin loads the client from the gateway, as
// a script and as a module, and talks with it.
//
//   node tests/browser/bundle.mjs ADDRESS TOKEN
//
// The gateway serves the directory `dist` of `socket.io-client`, and takes pages of every origin. Exit code 0: all of it was seen.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { PATIENCE_MS, tell } from "./chromium.mjs";

const [address, token] = process.argv.slice(2);
const gateway = `http://${address}`;
const FILES = `${gateway}/socket.io`;
const PAGES = {
  "/plain": `<script src="${FILES}/socket.io.js"></script>`,
  "/minified": `<script src="${FILES}/socket.io.min.js"></script>`,
  "/msgpack": `<script src="${FILES}/socket.io.msgpack.min.js"></script>`,
  "/module": `<script type="module">import { io } from "${FILES}/socket.io.esm.min.js"; window.io = io;</script>`,
};
const pages = createServer((request, response) => {
  response.setHeader("content-type", "text/html");
  response.end(`<!doctype html><title>app</title>${PAGES[request.url] ?? ""}`);
}).listen(0, "127.0.0.1");
await once(pages, "listening");
const origin = `http://127.0.0.1:${pages.address().port}`;

/** Connects, and returns what a ping comes to. */
const pings = (page) =>
  page.evaluate(
    ([gateway, token, patience]) =>
      new Promise((resolve, reject) => {
        setTimeout(() => reject(new Error("nothing came in time")), patience);
        const socket = window.io(gateway, { auth: { token }, forceNew: true });
        socket.on("connect_error", reject);
        socket.on("connect", () => socket.emit("roomcast:ping", (answer) => resolve([answer.ok, socket.close().id])));
      }),
    [gateway, token, PATIENCE_MS],
  );

async function story(browser) {
  const context = await browser.newContext();
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const seen = [];
  page.on("response", (response) => seen.push([new URL(response.url()).pathname, response.status()]));
  for (const path of ["/plain", "/minified", "/module"]) {
    await page.goto(`${origin}${path}`);
    assert.equal((await pings(page))[0], true, path);
  }
  // Speaks another protocol; it is served, and found.
  await page.goto(`${origin}/msgpack`);
  assert.equal(await page.evaluate(() => typeof window.io), "function");
  const served = seen.filter(([path]) => path.endsWith(".js"));
  assert.deepEqual(
    served,
    ["js", "min.js", "esm.min.js", "msgpack.min.js"].map((end) => [`/socket.io/socket.io.${end}`, 200]),
  );
  const map = await page.evaluate(async (url) => (await (await fetch(url)).json()).version, `${FILES}/socket.io.js.map`);
  assert.equal(map, 3, "a map for who debugs");
}

await tell(story, "the client came from the gateway, as a script and as a module");
