import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { after, before, describe, test } from "node:test";
import { processesIn } from "../src/host/process.ts";
import { EventStream } from "./event-stream.ts";
import { Server } from "./server-support.ts";

const SPAWN = { image: "stacyvm/busybox", memory_mb: 256 };

describe("the server with real QEMU sandboxes", () => {
  let server: Server;
  before(async () => {
    server = await Server.create();
  });
  after(() => server[Symbol.asyncDispose]());

  test("health, readiness and the document of the interface", async () => {
    assert.equal((await server.call("GET", "/health")).body.status, "ok");
    assert.equal((await server.call("GET", "/ready")).status, 200);
    const document = (await server.call("GET", "/openapi.json")).body;
    assert.match(document.openapi, /^3\.1/);
    assert.ok(document.paths["/api/v1/sandboxes"] ?? document.paths["/sandboxes"]);
  });

  test("spawn, exec, files, destroy", async () => {
    const spawned = await server.call("POST", "/sandboxes", SPAWN);
    assert.equal(spawned.status, 201, JSON.stringify(spawned.body));
    const { id } = spawned.body;
    assert.match(id, /^sb-[0-9a-f]{8}$/);
    assert.equal(spawned.body.state, "running");
    const result = await server.call("POST", `/sandboxes/${id}/exec`, { command: "echo", args: ["it's", "me"] });
    assert.equal(result.body.stdout, "it's me\n");
    assert.equal(result.body.exit_code, 0);
    assert.equal((await server.call("POST", `/sandboxes/${id}/exec`, { command: "exit 7" })).body.exit_code, 7);
    const late = await server.call("POST", `/sandboxes/${id}/exec`, { command: "sleep 30", timeout: "300ms" });
    assert.equal(late.status, 408);
    assert.equal(
      (await server.call("POST", `/sandboxes/${id}/files`, { path: "/tmp/a/b", content: "text" })).status,
      200,
    );
    assert.equal((await server.call("GET", `/sandboxes/${id}/files?path=/tmp/a/b`)).body, "text");
    assert.equal((await server.call("GET", `/sandboxes/${id}/files?path=/tmp/none`)).status, 404);
    const stream = await fetch(`${server.url}/api/v1/sandboxes/${id}/exec`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ command: "echo one; echo two >&2; exit 3", stream: true }),
    });
    const lines = (await stream.text())
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    assert.deepEqual(lines.at(-1), { type: "exit", exit_code: 3, data: "", ...lines.at(-1) });
    assert.ok(lines.some((line) => line.stream === "stdout" && line.data.includes("one")));
    assert.deepEqual((await server.call("DELETE", `/sandboxes/${id}`)).body, { status: "destroyed" });
    assert.equal((await server.call("GET", `/sandboxes/${id}`)).status, 404);
    assert.ok(!(await server.machines()).includes(id));
  });

  test("a file of 128 MiB goes in and out without the daemon growing by it; 30 MB of output are collected whole", async () => {
    const { id } = (await server.call("POST", "/sandboxes", SPAWN)).body;
    const piece = Buffer.alloc(1 << 20, "0123456789abcde\n");
    const peak = async () =>
      Number(/VmHWM:\s+(\d+)/.exec(await readFile(`/proc/${server.pid}/status`, "utf8"))?.[1]) / 1024;
    // The peak counts from here on (Linux, proc(5), clear_refs).
    await writeFile(`/proc/${server.pid}/clear_refs`, "5");
    const base = await peak();
    const path = `${server.url}/api/v1/sandboxes/${id}/files/raw?path=/large`;
    const sent = await fetch(path, {
      method: "PUT",
      duplex: "half",
      body: ReadableStream.from(Array(128).fill(piece)),
    } as RequestInit);
    assert.equal(sent.status, 200, await sent.text());
    let size = 0;
    const received = await fetch(path);
    for await (const part of received.body ?? []) size += part.length;
    assert.equal(size, 128 << 20);
    const grown = (await peak()) - base;
    process.stdout.write(`# the daemon grew by ${Math.round(grown)} MiB\n`);
    assert.ok(grown < 96, `${grown} MiB`);
    const ticks = async () =>
      (await readFile(`/proc/${server.pid}/stat`, "utf8"))
        .split(") ")[1]
        ?.split(" ")
        .slice(11, 13)
        .reduce((sum, n) => sum + Number(n), 0) ?? 0;
    const [before, begun] = [await ticks(), performance.now()];
    const { body } = await server.call("POST", `/sandboxes/${id}/exec`, {
      command: "yes 'a line of output' | head -c 30000000",
      timeout: "200s",
    });
    assert.deepEqual([body.stdout.length, body.truncated], [30_000_000, undefined]);
    process.stdout.write(
      `# 30 MB: ${Math.round(performance.now() - begun)} ms, ${((await ticks()) - before) * 10} ms of the daemon's processor time\n`,
    );
    await server.call("DELETE", `/sandboxes/${id}`);
  });

  test("bad requests are 400 with a message, unknown things 404", async () => {
    for (const [body, status] of [
      [{ ...SPAWN, ttl: "soon" }, 400],
      [{ ...SPAWN, provider: "nothing" }, 404],
      [{ ...SPAWN, memory_mb: 1 }, 400],
    ] as const) {
      const answer = await server.call("POST", "/sandboxes", body);
      assert.equal(answer.status, status, JSON.stringify(answer.body));
      assert.ok(answer.body.code && answer.body.message);
    }
    // Deep in its levels it breaks off, which is the end of a process whose parser is not kept from it.
    const body = `${'{"a":1,"b":'.repeat(20_000)}"\u0001`;
    for (let i = 0; i < 50; i++) {
      assert.equal((await fetch(`${server.url}/api/v1/sandboxes`, { method: "POST", body })).status, 400);
    }
    assert.equal((await server.call("GET", "/sandboxes/sb-00000000")).status, 404);
    assert.equal((await server.call("GET", "/sandboxes/..%2f..%2fetc")).status, 404);
    assert.equal((await server.call("DELETE", "/sandboxes/sb-00000000")).status, 200);
    assert.equal((await server.call("GET", "/nothing")).body.code, "NOT_FOUND");
  });

  test("kill -9 of the daemon loses no sandbox and leaves no orphan", async () => {
    const kept = (await server.call("POST", "/sandboxes", SPAWN)).body.id;
    await server.call("POST", `/sandboxes/${kept}/files`, { path: "/workspace/kept", content: "still here" });
    const dead = (await server.call("POST", "/sandboxes", SPAWN)).body.id;
    await server.call("DELETE", `/sandboxes/${dead}`);
    // In the middle of a spawn: its row is there, its answer is not.
    let middle = "";
    let answer: Awaited<ReturnType<typeof server.call>> | undefined;
    {
      await using events = await EventStream.open(server.url, { type: "sandbox.created" });
      const cut = server.call("POST", "/sandboxes", SPAWN).catch(() => undefined);
      middle = (await events.next(() => true)).sandbox_id ?? "";
      await server.stop("SIGKILL");
      answer = await cut;
    }
    await server.start();
    const list = (await server.call("GET", "/sandboxes")).body as { id: string; state: string }[];
    assert.ok(
      list.some(({ id, state }) => id === kept && state === "running"),
      JSON.stringify(list),
    );
    assert.equal((await server.call("GET", `/sandboxes/${kept}/files?path=/workspace/kept`)).body, "still here");
    const running = list.filter(({ state }) => state === "running").map(({ id }) => id);
    assert.equal(answer, undefined, "the kill came too late to be in the middle");
    assert.ok(middle !== "" && !list.some(({ id }) => id === middle), "what no client was told of is removed");
    assert.deepEqual((await server.machines()).sort(), running.sort());
    for (const id of running) await server.call("DELETE", `/sandboxes/${id}`);
  });

  test("SIGTERM leaves sandboxes running for the next daemon", async () => {
    const { id } = (await server.call("POST", "/sandboxes", SPAWN)).body;
    await server.stop("SIGTERM");
    assert.ok((await processesIn(`${server.root}/sandboxes/${id}`)).length > 0);
    await server.start();
    const result = await server.call("POST", `/sandboxes/${id}/exec`, { command: "echo again" });
    assert.equal(result.body.stdout, "again\n");
    await server.call("DELETE", `/sandboxes/${id}`);
  });

  test("a machine that is killed is noticed", async () => {
    const { id } = (await server.call("POST", "/sandboxes", SPAWN)).body;
    const [pid] = await processesIn(`${server.root}/sandboxes/${id}`);
    process.kill(pid as number, "SIGKILL");
    let state = "running";
    for (let i = 0; i < 100 && state === "running"; i++) {
      state = (await server.call("GET", `/sandboxes/${id}`)).body.state;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.equal(state, "error");
    await server.call("DELETE", `/sandboxes/${id}`);
  });

  test("pause, resume, fork and checkpoint keep a running process's memory", async () => {
    const { id } = (await server.call("POST", "/sandboxes", SPAWN)).body;
    await server.call("POST", `/sandboxes/${id}/exec`, {
      command:
        "(i=0; while true; do i=$((i+1)); echo $i >/workspace/new; mv /workspace/new /workspace/count; sleep 0.05; done) >/dev/null 2>&1 &",
    });
    const count = async (of: string): Promise<number> =>
      Number((await server.call("POST", `/sandboxes/${of}/exec`, { command: "cat /workspace/count" })).body.stdout);
    assert.equal((await server.call("POST", `/sandboxes/${id}/pause`)).status, 200);
    assert.equal((await server.call("POST", `/sandboxes/${id}/resume`)).status, 200);
    const at = await count(id);
    const forked = await server.call("POST", `/sandboxes/${id}/fork`, { count: 2 });
    assert.ok(forked.status < 300, JSON.stringify(forked.body));
    const copies = (forked.body.sandboxes ?? forked.body) as { id: string }[];
    assert.equal(copies.length, 2);
    const names = await Promise.all(
      [id, ...copies.map((copy) => copy.id)].map(
        async (of) => (await server.call("POST", `/sandboxes/${of}/exec`, { command: "hostname" })).body.stdout,
      ),
    );
    assert.equal(new Set(names).size, 3, names.join());
    for (const of of [id, ...copies.map((copy) => copy.id)]) assert.ok((await count(of)) >= at);
    for (const of of [id, ...copies.map((copy) => copy.id)]) await server.call("DELETE", `/sandboxes/${of}`);
  });
});

test("a stop waits for a request under way; the second signal does not", async () => {
  await using server = await Server.create();
  const { port } = new URL(server.url);
  const request = connect(Number(port), "127.0.0.1").on("error", () => {});
  request.write("POST /api/v1/templates HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{");
  await new Promise((resolve) => setTimeout(resolve, 300)); // the server has no event for half a request
  const begun = performance.now();
  process.kill(server.pid, "SIGTERM");
  while (!server.log.includes('"stopping"')) await new Promise((resolve) => setTimeout(resolve, 10));
  process.kill(server.pid, 0);
  await server.stop("SIGTERM");
  assert.ok(performance.now() - begun < 9_000, "the grace of 10 s is not over");
  request.destroy();
});

test("a second daemon on one data directory is refused", async () => {
  await using server = await Server.create();
  const { runTool } = await import("../src/host/run.ts");
  const { join } = await import("node:path");
  const { packageRoot } = await import("../src/host/paths.ts");
  await assert.rejects(
    runTool(
      process.execPath,
      [join(packageRoot, "src/cli/main.ts"), "serve", "--data-dir", server.root, "--port", "0"],
      { timeoutMs: 20_000 },
    ),
    /another server/,
  );
});
