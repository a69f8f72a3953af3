// Compares the golden frames of the native protocol with the AsyncAPI document: each is one of its messages, of the
// right direction, and says nothing that the document does not.
//
//   node tests/asyncapi/golden.mjs

import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";
import Ajv from "ajv";

const { document } = await new Parser().parse(await readFile("docs/asyncapi.yaml", "utf8"));
const ajv = new Ajv({ strict: false });

// The document leaves the server's messages open, for what later versions add; here that would hide what it forgets.
// Schemas that are referred to twice are one object each, which may refer to itself.
const closed = new Map();
function close(schema) {
  if (schema === null || typeof schema !== "object") return schema;
  if (Array.isArray(schema)) return schema.map(close);
  if (closed.has(schema)) return closed.get(schema);
  const copy = {};
  closed.set(schema, copy);
  // What the parser adds for itself is none of the schema.
  for (const [key, value] of Object.entries(schema)) if (!key.startsWith("x-parser-")) copy[key] = close(value);
  if (copy.type === "object") copy.additionalProperties ??= false;
  return copy;
}

const messages = { client: new Map(), server: new Map() };
function add(from, message) {
  if (!messages[from].has(message.name())) messages[from].set(message.name(), ajv.compile(close(message.payload().json())));
}
for (const operation of document.operations().all()) {
  const from = operation.action() === "receive" ? "client" : "server";
  for (const message of operation.messages().all()) add(from, message);
  for (const message of operation.reply()?.messages().all() ?? []) add("server", message);
}

let wrong = 0;
const seen = new Set();
const lines = (await readFile("tests/golden/native.jsonl", "utf8")).trimEnd().split("\n");
for (const line of lines) {
  const { name, from, json } = JSON.parse(line);
  const matching = [...messages[from]].filter(([, validate]) => validate(json)).map(([message]) => message);
  matching.forEach((message) => seen.add(`${from} ${message}`));
  if (matching.length === 1) continue;
  wrong += 1;
  const kind = Object.keys(json).find((key) => key !== "id");
  const why = ajv.errorsText(messages[from].get(kind)?.errors);
  console.error(`${name}: is ${matching.length ? matching.join(" and ") : `no message of the document: ${why}`}`);
}
for (const from of ["client", "server"]) {
  for (const message of messages[from].keys()) {
    if (seen.has(`${from} ${message}`)) continue;
    wrong += 1;
    console.error(`${message}: has no golden frame from the ${from}`);
  }
}
console.log(`${lines.length} golden frames, ${messages.client.size} commands, ${messages.server.size} messages`);
process.exit(wrong > 0 ? 1 : 0);
