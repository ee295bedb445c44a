/** How a stream breaks off with its sandbox. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { breakable } from "./lost.ts";

/** A connection's two ends. */
async function connection(): Promise<{ client: Socket; socket: Socket; close: () => void }> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = connect((server.address() as { port: number }).port, "127.0.0.1");
  const [socket] = (await once(server, "connection")) as [Socket];
  socket.on("error", () => {});
  const close = (): void => {
    for (const each of [client, socket, server]) "destroy" in each ? each.destroy() : each.close();
  };
  return { client, socket, close };
}

function stream(): { answer: Response; end: () => void } {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  void writer.write(Buffer.from("begun")).catch(() => {});
  const answer = new Response(readable, { headers: { "content-type": "application/connect+json" } });
  return { answer, end: () => void writer.close().catch(() => {}) };
}

test("a stream whose sandbox ends breaks its connection off by a reset", async (t) => {
  const { client, socket, close } = await connection();
  t.after(close);
  const lost = new AbortController();
  const reader = breakable(stream().answer, lost.signal, socket).body?.getReader();
  assert.equal(Buffer.from((await reader?.read())?.value ?? []).toString(), "begun");
  const broken = once(client, "error");
  lost.abort(new Error("its sandbox is gone"));
  await assert.rejects(async () => await reader?.read(), /its sandbox is gone/);
  const [error] = (await broken) as [NodeJS.ErrnoException];
  assert.equal(error.code, "ECONNRESET");
});

test("one that has ended, or that its client has left, leaves the connection to whoever has it then", async (t) => {
  for (const left of [false, true]) {
    const { client, socket, close } = await connection();
    t.after(close);
    const lost = new AbortController();
    const { answer, end } = stream();
    const { body } = breakable(answer, lost.signal, socket);
    assert.ok(body !== null);
    if (left) await body.cancel();
    else {
      end();
      assert.equal(await text(body as never), "begun");
    }
    lost.abort(new Error("its sandbox is gone"));
    socket.end("the next answer");
    assert.equal(await text(client), "the next answer");
  }
});
