import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { StacyError } from "../../host/error.ts";
import { FirecrackerApi } from "./api.ts";

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
