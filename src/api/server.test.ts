import assert from "node:assert/strict";
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { connect, type Socket as TcpSocket } from "node:net";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocket } from "ws";
import { validateConfig } from "../config/load.ts";
import { HeldInput } from "../guest/held-input.ts";
import { bodyStream, readBody, readJson } from "./body.ts";
import { newApi } from "./endpoint.ts";
import { listen, type RunningServer } from "./server.ts";
import { acceptSocket, type Socket, taken } from "./socket.ts";
import { streamed } from "./streams.ts";

const KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
const UPGRADE = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";

let server: RunningServer;
/** Streams that are open; a handler that never ends keeps its lease like this. */
let open = 0;
let produced = 0;
let accepted: Socket | undefined;

before(async () => {
  const app = newApi();
  app.post("/echo", async (c) => new Response(`got ${await c.req.text()}`));
  app.post("/slow", async () => {
    await sleep(4_000);
    return new Response("done");
  });
  app.post("/no-room", async (c) => {
    for await (const _piece of bodyStream(c.req.raw, { maxBytes: 0, timeoutMs: 10_000 })) break;
    return new Response("no room", { status: 507 });
  });
  app.get("/endless", () => {
    async function* zeros(): AsyncGenerator<Uint8Array> {
      open += 1;
      try {
        for (;;) {
          produced += 65_536;
          yield new Uint8Array(65_536);
        }
      } finally {
        open -= 1;
      }
    }
    return streamed(zeros(), { "content-type": "application/octet-stream" });
  });
  app.get("/socket", (c) => {
    open += 1;
    try {
      accepted = acceptSocket(c);
    } catch (error) {
      open -= 1;
      throw error;
    }
    accepted.closed.addEventListener("abort", () => {
      open -= 1;
    });
    return taken();
  });
  app.onError((error) => new Response(error.message, { status: 400 }));
  server = await listen(app, { ...validateConfig({}, "").server, port: 0 }, { processingMs: 300 });
});
after(() => server.close(0));

function raw(text: string): TcpSocket {
  const socket = connect(server.port, "127.0.0.1").on("error", () => {});
  socket.write(text);
  return socket;
}

async function until(what: () => boolean): Promise<void> {
  while (!what()) await new Promise((wake) => setTimeout(wake, 5));
}

async function textOf(socket: TcpSocket): Promise<string> {
  return Buffer.concat(await socket.toArray()).toString("latin1");
}

test("an offer of another protocol is left alone, and the request keeps its body", async () => {
  const h2c = "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n";
  const answer = await textOf(raw(`POST /echo HTTP/1.1\r\nHost: x\r\n${h2c}Content-Length: 4\r\n\r\nbody`));
  assert.match(answer, /^HTTP\/1\.1 200 [\s\S]*got body$/);
});

test("a place without WebSockets answers one with what it answers everybody: as a stream, and only while it is read", async () => {
  const socket = raw(`GET /endless HTTP/1.1\r\n${UPGRADE}${KEY}\r\n`);
  const [first] = (await once(socket, "data")) as [Buffer];
  assert.match(first.toString("latin1"), /^HTTP\/1\.1 200 OK\r\n/);
  socket.pause();
  // It stands still when the buffers between us are full.
  for (let before = -1; before !== produced; await new Promise((wake) => setTimeout(wake, 100))) before = produced;
  assert.ok(produced < 64 * 2 ** 20, `${produced} bytes lie somewhere`);
  socket.destroy();
  await until(() => open === 0);
  assert.match(await textOf(raw(`GET /nothing HTTP/1.1\r\n${UPGRADE}${KEY}\r\n`)), /^HTTP\/1\.1 404 /);
});

test("a handshake without a key is refused, and nothing is kept for it", async () => {
  const answer = await textOf(raw(`GET /socket HTTP/1.1\r\n${UPGRADE}\r\n`));
  assert.match(answer, /^HTTP\/1\.1 400 /);
  await until(() => open === 0);
});

test("messages that nobody takes hold the client back; a close is seen all the same", async () => {
  const client = new WebSocket(`ws://127.0.0.1:${server.port}/socket`);
  await once(client, "open");
  for (let i = 0; i < 64; i++) client.send(Buffer.alloc(1 << 20));
  await new Promise((wake) => setTimeout(wake, 200));
  assert.ok(client.bufferedAmount > 16 << 20, "the rest waits at the client");
  accepted?.close(1001, "enough");
  const [code] = (await once(client, "close")) as [number];
  assert.equal(code, 1001);
  await until(() => open === 0);
  assert.equal(await accepted?.send("late"), false);
});

test("a healthy client that is held back is not taken for dead", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  const client = new WebSocket(`ws://127.0.0.1:${server.port}/socket`);
  await once(client, "open");
  for (let i = 0; i < 4; i++) client.send(Buffer.alloc(1 << 20));
  await new Promise((wake) => setTimeout(wake, 100));
  for (let i = 0; i < 10; i++) t.mock.timers.tick(30_000); // held back all the time: no pong was read
  const messages = accepted?.messages();
  for (let i = 0; i < 4; i++) assert.equal((await messages?.next())?.value.data.length, 1 << 20);
  t.mock.timers.tick(30_000);
  client.send("still here");
  assert.equal(String((await messages?.next())?.value.data), "still here");
  // One that answers nothing is.
  client.pause();
  t.mock.timers.tick(30_000);
  t.mock.timers.tick(30_000);
  t.mock.timers.tick(30_000);
  await until(() => open === 0);
  client.terminate();
});

test("a stop ends streams that last longer than its grace, and what they say then arrives before the connections are cut", async () => {
  const app = newApi();
  const stopped = Promise.withResolvers<void>();
  const late = Promise.withResolvers<void>();
  app.get("/stream", () => {
    async function* lines(): AsyncGenerator<string> {
      yield "begun\n";
      await stopped.promise;
      yield "why\n";
    }
    return streamed(lines(), { "content-type": "text/plain" });
  });
  // One that does not end even then.
  app.get("/deaf", () => streamed(deaf(late.promise), { "content-type": "text/plain" }));
  const stopping = await listen(app, { ...validateConfig({}, "").server, port: 0 });
  const [stream, silent] = await Promise.all(["stream", "deaf"].map((path) => fetch(`${stopping.url}/${path}`)));
  const cut = assert.rejects((silent as Response).text());
  const [text] = await Promise.all([(stream as Response).text(), stopping.close(50, stopped.resolve), cut]);
  assert.equal(text, "begun\nwhy\n");
  late.resolve();
});

test("the last line of an answer that breaks off arrives, at clients that read slowly too", async (t) => {
  const app = newApi();
  app.get("/stream", () => {
    async function* lines(): AsyncGenerator<string> {
      yield "begun\n";
      yield "why\n";
      throw new Error("the sandbox has ended");
    }
    return streamed(lines(), { "content-type": "text/plain" });
  });
  const server = await listen(app, { ...validateConfig({}, "").server, port: 0 });
  t.after(() => server.close(0));
  const { body } = await fetch(`${server.url}/stream`);
  let text = "";
  await assert.rejects(async () => {
    for await (const part of body ?? []) text += Buffer.from(part).toString();
  });
  assert.equal(text, "begun\nwhy\n");
});

test("a server knows when it was last used: now, as long as a request is open", async (t) => {
  const app = newApi();
  const end = Promise.withResolvers<void>();
  app.get("/stream", () => streamed(deaf(end.promise), { "content-type": "text/plain" }));
  const server = await listen(app, { ...validateConfig({}, "").server, port: 0 });
  t.after(() => server.close(0));
  const start = server.usedAt;
  await new Promise((wake) => setTimeout(wake, 5));
  assert.equal(server.usedAt, start, "nobody has used it");
  const answer = await fetch(`${server.url}/stream`);
  const open = server.usedAt;
  await new Promise((wake) => setTimeout(wake, 5));
  assert.ok(open > start && server.usedAt > open);
  end.resolve();
  await answer.text();
  await until(() => {
    const before = performance.now();
    return server.usedAt < before;
  });
});

test("a body in chunks of a byte comes in a few pieces, and whole", async (t) => {
  const app = newApi();
  app.post("/body", async (c) => {
    let [bytes, pieces] = [0, 0];
    for await (const piece of bodyStream(c.req.raw, { maxBytes: 0, timeoutMs: 600_000 })) {
      bytes += piece.length;
      pieces += 1;
    }
    return c.json({ bytes, pieces });
  });
  app.post(
    "/whole",
    async (c) =>
      new Response((await readBody(c.req.raw, { maxBytes: 0, timeoutMs: 600_000 }, new HeldInput("owner"))) as never),
  );
  const server = await listen(app, { ...validateConfig({}, "").server, port: 0 });
  t.after(() => server.close(0));
  const send = async (path: string, body: string): Promise<string> => {
    const socket = connect(server.port, "127.0.0.1");
    const head = `POST ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n`;
    socket.write(`${head}${[...body].map((byte) => `1\r\n${byte}\r\n`).join("")}0\r\n\r\n`);
    const answer = await textOf(socket);
    return answer.slice(answer.indexOf("\r\n\r\n") + 4);
  };
  const { bytes, pieces } = JSON.parse(await send("/body", "x".repeat(200_000)));
  assert.equal(bytes, 200_000);
  assert.ok(pieces < 4_000, `${pieces} pieces`);
  const letters = Array.from({ length: 20_000 }, (_, i) => String.fromCharCode(97 + (i % 26))).join("");
  assert.equal(await send("/whole", letters), letters);
});

test("a small body is taken as it came, without a stream for it; one that comes later, or is too long, as any other", async (t) => {
  const streams: boolean[] = [];
  const app = newApi();
  app.post("/json", async (c) => {
    const made = countStreams(c.env.incoming);
    const limits = { maxBytes: 100, timeoutMs: 600_000 };
    try {
      const body = await readJson(c.req.raw, limits, new HeldInput("owner"), c.env.incoming);
      return c.json({ body });
    } catch (error) {
      return c.text(String((error as { status?: number }).status), 413);
    } finally {
      streams.push(made());
    }
  });
  const server = await listen(app, { ...validateConfig({}, "").server, port: 0 });
  t.after(() => server.close(0));
  const socket = connect(server.port, "127.0.0.1");
  const ask = async (length: number, ...pieces: string[]): Promise<string> => {
    const head = `POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\n`;
    const [first = "", ...later] = pieces;
    const answer = once(socket, "data");
    socket.write(head + first);
    for (const piece of later) {
      await sleep(20);
      socket.write(piece);
    }
    return String((await answer)[0]);
  };
  assert.match(await ask(7, '{"a":1}'), /^HTTP\/1\.1 200 .*\{"body":\{"a":1\}\}$/s);
  assert.match(await ask(7, '{"a"', ":2}"), /^HTTP\/1\.1 200 .*\{"body":\{"a":2\}\}$/s);
  assert.match(await ask(0, ""), /^HTTP\/1\.1 200 .*\{\}$/s);
  assert.match(await ask(102, JSON.stringify("x".repeat(100))), /^HTTP\/1\.1 413 .*413$/s);
  assert.match(await ask(7, '{"a":3}'), /^HTTP\/1\.1 200 .*\{"body":\{"a":3\}\}$/s);
  assert.deepEqual(streams, [false, true, false, false, false]);
  socket.destroy();
});

test("a body that has come in several pieces is whole, however they are cut", async (t) => {
  const app = newApi();
  app.post("/json", async (c) => {
    await sleep(20); // all of it is there by then
    const body = await readJson(c.req.raw, { maxBytes: 0, timeoutMs: 600_000 }, new HeldInput("owner"), c.env.incoming);
    return c.json({ length: (body as { text: string } | undefined)?.text.length ?? null });
  });
  const server = await listen(app, { ...validateConfig({}, "").server, port: 0 });
  t.after(() => server.close(0));
  const socket = connect(server.port, "127.0.0.1");
  for (const length of [500, 5_000, 60_000]) {
    const whole = JSON.stringify({ text: "x".repeat(length) });
    for (const cut of [1, Math.floor(whole.length / 2), whole.length - 1]) {
      const pieces = [" ".repeat(4_096), whole.slice(0, cut), whole.slice(cut)];
      const chunks = pieces.map((piece) => `${piece.length.toString(16)}\r\n${piece}\r\n`).join("");
      for (const request of [
        `Content-Length: ${whole.length}\r\n\r\n${whole}`,
        `Transfer-Encoding: chunked\r\n\r\n${chunks}0\r\n\r\n`,
      ]) {
        const answer = once(socket, "data");
        socket.write(`POST /json HTTP/1.1\r\nHost: x\r\n${request}`);
        assert.match(String((await answer)[0]), new RegExp(`^HTTP/1.1 200 .*\\{"length":${length}\\}$`, "s"));
      }
    }
  }
  socket.destroy();
});

/** @returns whether somebody has made a stream of the message since then: it listens to its data */
function countStreams(message: IncomingMessage | undefined): () => boolean {
  let made = false;
  message?.on("newListener", (event) => {
    made ||= event === "data";
  });
  return () => made;
}

test("who goes on sending a body that was answered long ago is cut off, whoever has answered", async (t) => {
  const app = newApi();
  const front = {
    request(_incoming: IncomingMessage, outgoing: ServerResponse) {
      outgoing.writeHead(403).end("no");
      return true;
    },
    upgrade: () => false,
  };
  const server = await listen(app, { ...validateConfig({}, "").server, port: 0 }, { front });
  t.after(() => server.close(0));
  const socket = connect(server.port, "127.0.0.1").on("error", () => {});
  t.after(() => socket.destroy());
  socket.write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
  await once(socket, "data");
  const sending = setInterval(() => socket.write("x".repeat(1_000)), 20);
  t.after(() => clearInterval(sending));
  // Not `once`: what was sent to a connection that has been cut is an error of it, as often as not.
  await new Promise((resolve) => socket.once("close", resolve));
});

test("what is left of a body that was answered before its end does not stand before the next request on its connection", async () => {
  const body = "x".repeat(1_000_000);
  const socket = raw(`POST /no-room HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
  const [early] = await once(socket, "data");
  assert.match(String(early), /^HTTP\/1\.1 507 /);
  socket.write("POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnext");
  assert.match(await textOf(socket), /^HTTP\/1\.1 200 .*got next$/s);
});

async function* deaf(end: Promise<void>): AsyncGenerator<string> {
  yield "begun\n";
  await end;
}

test("a client that asks for it hears that its answer is being made, and does not give it up; others hear nothing", async () => {
  // The class behind Node's own `fetch`, whose limit for the beginning of an answer has no other setting.
  const { constructor: Agent } = [2, 1]
    .map((version) => (globalThis as Record<symbol, unknown>)[Symbol.for(`undici.globalDispatcher.${version}`)])
    .find((each) => each?.constructor.name === "Agent") as { constructor: new (options: object) => never };
  const impatient = { method: "POST", dispatcher: new Agent({ headersTimeout: 1_500 }) };
  const patient = fetch(`${server.url}/slow`, { ...impatient, headers: { prefer: "processing" } });
  const socket = raw("POST /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
  const heard = (await socket.toArray()).join("");
  const answer = await patient;
  assert.deepEqual([answer.status, await answer.text()], [200, "done"]);
  assert.match(heard, /^HTTP\/1\.1 200 /);
});
