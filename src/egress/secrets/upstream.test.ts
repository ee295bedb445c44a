import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { countTurns } from "../../../test/count-turns.ts";
import { StacyError } from "../../host/error.ts";
import { type Asked, Upstream } from "./upstream.ts";

function upstreamTo(port: number): Upstream {
  return new Upstream({
    ...{ target: { host: "127.0.0.1", port }, scheme: "http", trusted: [] },
    dial: async () => {
      const socket = connect(port, "127.0.0.1");
      await once(socket, "connect");
      return socket;
    },
  });
}

test("of requests to a host that does not answer few wait, those of clients that have gone do not, and a free place goes to the next", async (t) => {
  const sockets: Socket[] = [];
  const seen: string[] = [];
  const host = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    socket.on("data", (data) => seen.push(String(data).split(" ")[1] ?? ""));
  });
  await once(host.listen(0, "127.0.0.1"), "listening");
  const { port } = host.address() as AddressInfo;
  const upstream = upstreamTo(port);
  t.after(() => {
    upstream.close();
    for (const socket of sockets) socket.destroy();
    host.close();
  });
  const stays = new AbortController().signal;
  const asked = (path: string): Asked => {
    return { method: "GET", path, authority: "x", headers: {}, body: undefined, http2: false };
  };
  const first = await Promise.all(Array.from({ length: 64 }, (_, i) => upstream.ask(asked(`/${i}`), stays)));
  for (const { answer } of first) answer.catch(() => {});
  while (seen.length < 64) await new Promise((wake) => setImmediate(wake));
  const leaving = new AbortController();
  const waiting = Array.from({ length: 255 }, () => upstream.ask(asked("/gone"), leaving.signal));
  const next = upstream.ask(asked("/next"), stays);
  await assert.rejects(upstream.ask(asked("/more"), stays), { code: "limit" });
  leaving.abort();
  for (const each of await Promise.allSettled(waiting)) {
    assert.equal(each.status === "rejected" && each.reason.code, "cancelled");
  }
  first[0]?.request.destroy();
  (await next).answer.catch(() => {});
  while (seen.length < 65) await new Promise((wake) => setImmediate(wake));
  assert.equal(seen.at(-1), "/next");
  await assert.rejects(upstream.ask(asked("/late"), AbortSignal.abort()), { code: "cancelled" });
});

/** Opens connections when it is told to, and not otherwise. */
function upstreamByHand() {
  const dials: { resolve(socket: Socket): void; reject(error: Error): void }[] = [];
  const upstream = new Upstream({
    ...{ target: { host: "127.0.0.1", port: 1 }, scheme: "http", trusted: [] },
    dial: () => new Promise<Socket>((resolve, reject) => dials.push({ resolve, reject })),
  });
  return { upstream, dials };
}

test("of WebSockets to a host that does not answer few wait, and those of clients that have gone give their places back", async (t) => {
  const { upstream, dials } = upstreamByHand();
  t.after(() => upstream.close());
  const asked: Asked = { method: "GET", path: "/", authority: "x", headers: {}, body: undefined, http2: false };
  const leaving = new AbortController();
  const stays = new AbortController().signal;
  const asks = Array.from({ length: 64 + 256 }, () => upstream.upgrade(asked, leaving.signal));
  await assert.rejects(upstream.upgrade(asked, stays), { code: "limit" });
  await new Promise((wake) => setImmediate(wake));
  assert.equal(dials.length, 64);
  leaving.abort();
  const waited = await Promise.allSettled(asks.slice(64));
  assert.deepEqual(
    new Set(waited.map((each) => each.status === "rejected" && each.reason.code)),
    new Set(["cancelled"]),
  );
  const next = upstream.upgrade(asked, stays);
  // Node tells one request of several of these; an event that nobody hears would end the process.
  const told = Promise.allSettled([...asks, next]);
  let over = false;
  void told.then(() => {
    over = true;
  });
  while (!over) {
    for (const each of dials.splice(0)) each.reject(new StacyError("permission", "not among the hosts"));
    await new Promise((wake) => setImmediate(wake));
  }
  assert.ok((await told).every((each) => each.status === "rejected"));
  await assert.rejects(next, { code: "permission" });
});

const END = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/** A host that answers every request with these bytes. */
async function hostThatSays(t: TestContext, bytes: string, later = "") {
  const host = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => {
      socket.write(bytes);
      // What is read with the last of the others is an answer all the same.
      if (later !== "") setTimeout(() => socket.write(later), 200).unref();
    });
  });
  await once(host.listen(0, "127.0.0.1"), "listening");
  const { port } = host.address() as AddressInfo;
  const upstream = upstreamTo(port);
  t.after(() => {
    upstream.close();
    host.close();
  });
  const asked: Asked = { method: "GET", path: "/", authority: "x", headers: {}, body: undefined, http2: false };
  return { upstream, asked };
}

test("of interim answers a few are taken, and the request ends with one more; for a WebSocket too", async (t) => {
  const many = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(65);
  const { upstream, asked } = await hostThatSays(t, many, END);
  const { answer } = await upstream.ask(asked, new AbortController().signal);
  await assert.rejects(answer, { message: /one interim answer after another/ });
  await assert.rejects(upstream.upgrade(asked, new AbortController().signal), {
    message: /one interim answer after another/,
  });
  const few = await hostThatSays(t, many.slice(many.length / 65), END);
  const exchange = await few.upstream.ask(few.asked, new AbortController().signal);
  assert.equal((await exchange.answer).status, 200);
});

test("an answer in chunks of a byte is passed on in a few pieces, and whole, and others have their turn meanwhile", async (t) => {
  const letters = Array.from({ length: 50_000 }, (_, i) => String.fromCharCode(97 + (i % 26))).join("");
  const chunks = [...letters].map((letter) => `1\r\n${letter}\r\n`).join("");
  const { upstream, asked } = await hostThatSays(
    t,
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}0\r\n\r\n`,
  );
  const { answer } = await upstream.ask(asked, new AbortController().signal);
  const turns = countTurns();
  const pieces = await Array.fromAsync((await answer).body as AsyncIterable<Buffer>);
  assert.equal(Buffer.concat(pieces).toString(), letters);
  assert.ok(pieces.length < 1_000, `${pieces.length} pieces`);
  // 64 KiB of them would be one.
  const had = turns();
  assert.ok(had > 20, `${had} turns`);
});
