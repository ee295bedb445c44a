import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { MONITOR_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import { FirecrackerApi, faultMessage } from "./api.ts";

/** A server that lets the first request wait for ever and answers what comes over later connections. */
test("a request that waits behind one without an answer goes over a new connection", async () => {
  const dir = await mkdtemp(join(tmpdir(), "api-"));
  const path = join(dir, "api.sock");
  const asked: string[][] = [];
  const server = createServer((socket) => {
    const requests: string[] = [];
    const first = asked.push(requests) === 1;
    socket.on("data", (bytes) => {
      requests.push(bytes.toString("latin1").split(" HTTP")[0] ?? "");
      if (!first) socket.write("HTTP/1.1 204 No Content\r\n\r\n");
    });
  }).listen(path);
  const open = async (): Promise<Socket> => {
    const socket = connect(path);
    await once(socket, "connect");
    return socket;
  };
  try {
    const api = new FirecrackerApi(await open(), {
      reopen: open,
      why: async () => new StacyError("machine-exited", "its connection is gone"),
      gone: () => {},
    });
    const silent = api.patch("/vm", { state: "Paused" }, { phase: "pause", timeoutMs: 50 });
    const next = api.patch("/vm", { state: "Resumed" }, { phase: "resume", timeoutMs: 10_000 });
    const later = api.put("/later", {}, { phase: "later", timeoutMs: 10_000 });
    await assert.rejects(silent, { code: "timeout", phase: "pause" });
    await next;
    await later;
    assert.deepEqual(asked, [["PATCH /vm"], ["PATCH /vm", "PUT /later"]]);
    api.close();
    await assert.rejects(api.put("/over", {}, { phase: "over", timeoutMs: 10_000 }), { code: "machine-exited" });
  } finally {
    server.close();
    await rm(dir, { recursive: true });
  }
});

/** Asks once, of a server that answers with `said`, and once more, of one that answers well. */
async function askedOf(said: string): Promise<{ first: unknown; connections: number; received: number }> {
  const dir = await mkdtemp(join(tmpdir(), "api-"));
  const path = join(dir, "api.sock");
  let connections = 0;
  let received = 0;
  const server = createServer((socket) => {
    const first = ++connections === 1;
    socket.on("error", () => {});
    socket.on("data", () => {
      if (!first) return void socket.write("HTTP/1.1 204 No Content\r\n\r\n");
      const more = (): void => {
        if (socket.destroyed || received > 64 * MONITOR_BOUNDS.answerBytes) return;
        received += said.length;
        socket.write(said, () => setImmediate(more));
      };
      more();
    });
  }).listen(path);
  const open = async (): Promise<Socket> => {
    const socket = connect(path);
    await once(socket, "connect");
    return socket;
  };
  try {
    const gone = Promise.withResolvers<void>();
    const api = new FirecrackerApi(await open(), {
      reopen: open,
      why: async () => new StacyError("machine-exited", "its connection is gone"),
      gone: gone.resolve,
    });
    const limit = { phase: "first", timeoutMs: 60_000 };
    const first = await api.put("/first", {}, limit).catch((error: StacyError) => error);
    await gone.promise;
    await api.put("/second", {}, limit);
    api.close();
    return { first, connections, received };
  } finally {
    server.close();
    await rm(dir, { recursive: true });
  }
}

test("a monitor's answer without an end, and what it says without being asked, end that connection and no more", async () => {
  const long = await askedOf("x".repeat(16_384));
  assert.equal((long.first as StacyError).code, "machine-exited");
  assert.ok(long.received < 32 * MONITOR_BOUNDS.answerBytes, `${long.received} bytes`);
  const interim = await askedOf("HTTP/1.1 100 Continue\r\n\r\n".repeat(100));
  assert.equal((interim.first as StacyError).code, "machine-exited");
  const more = await askedOf("HTTP/1.1 204 No Content\r\n\r\n".repeat(2));
  assert.deepEqual([more.first, more.connections], [undefined, 2]);
});

test("of a monitor's words as many are kept as an error needs", () => {
  const body = JSON.stringify({ fault_message: "long ".repeat(10_000) });
  for (const each of [body, "long ".repeat(10_000)])
    assert.equal(faultMessage({ status: 400, body: each }).length, MONITOR_BOUNDS.errorBytes);
});
