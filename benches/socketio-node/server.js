#!/usr/bin/env node
// Socket.IO on Node, the peer most people compare with. Its interface is in ../README.md.
//
// Tuned, where its documentation says so ("Performance tuning", "Memory usage"): WebSocket only; the native add-on of its
// WebSocket library is installed; the first HTTP request of each connection is let go of; no bundle for browsers is served.
// Compression is off by default and stays so. Another WebSocket engine (eiows) is not used: its users are few.

import { createServer } from "node:http";
import { createServer as createTcpServer } from "node:net";
import { parseArgs } from "node:util";
import { Server } from "socket.io";

// Connections the kernel completes before they are accepted, as for the other peers.
const backlog = 4096;
const host = "127.0.0.1";

const { values: ports } = parseArgs({
  options: { port: { type: "string", default: "0" }, "control-port": { type: "string", default: "0" } },
});

const members = createServer();
const io = new Server(members, { transports: ["websocket"], serveClient: false });
io.engine.on("connection", (socket) => {
  socket.request = null;
});
io.on("connection", (socket) => {
  socket.on("join", (rooms, acknowledge) => {
    socket.join(rooms);
    acknowledge();
  });
});

// u32 length of the rest, u16 length of the room, room, text; big endian.
const control = createTcpServer((connection) => {
  let unfinished = Buffer.alloc(0);
  connection.on("data", (chunk) => {
    const bytes = unfinished.length === 0 ? chunk : Buffer.concat([unfinished, chunk]);
    let at = 0;
    while (at + 4 <= bytes.length) {
      const end = at + 4 + bytes.readUInt32BE(at);
      if (end > bytes.length) break;
      const text = at + 6 + bytes.readUInt16BE(at + 4);
      io.to(bytes.toString("utf8", at + 6, text)).emit("event", bytes.toString("utf8", text, end));
      at = end;
    }
    unfinished = bytes.subarray(at);
  });
  connection.on("error", (error) => console.error(`error: a control connection ended: ${error.message}`));
});

const listen = (server, port) => new Promise((ready) => server.listen({ port, host, backlog }, ready));
await listen(members, ports.port);
await listen(control, ports["control-port"]);
const url = `ws://${host}:${members.address().port}/socket.io/?EIO=4&transport=websocket`;
console.log(JSON.stringify({ url, control: `${host}:${control.address().port}` }));

// Whoever started it is gone: so is the reason to run.
process.stdin.on("end", () => process.exit(0)).resume();
