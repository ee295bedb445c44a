import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { test } from "node:test";
import { type Asked, Upstream } from "./upstream.ts";

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
  const upstream = new Upstream({
    ...{ target: { host: "127.0.0.1", port }, scheme: "http", trusted: [] },
    dial: async () => {
      const socket = connect(port, "127.0.0.1");
      await once(socket, "connect");
      return socket;
    },
  });
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
