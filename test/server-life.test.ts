/** What the server does by itself over a sandbox's life, and what it tells: with real machines, waiting for events only. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { isThere } from "../src/host/exists.ts";
import { processesIn, processStartTime } from "../src/host/process.ts";
import { checkpointKey } from "../src/providers/provider.ts";
import { flip } from "./damage.ts";
import { EventStream } from "./event-stream.ts";
import { Server } from "./server-support.ts";

const SPAWN = { image: "stacyvm/busybox", memory_mb: 128 };
/** Nothing is kept ready but what a template asks for. */
const QUIET = { STACYVM_WARM_ADAPTIVE: "false", STACYVM_SERVER_EVENT_HEARTBEAT: "300ms" };
/** Counts on a line of its own until it is ended. */
const COUNTER = "i=0; while :; do i=$((i+1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; sleep 0.05; done";

describe("a server over its sandboxes' lives", () => {
  let server: Server;
  /** Settings of one test: the daemon is started anew with them, on the same data. */
  const restart = async (settings: Record<string, string> = {}): Promise<void> => {
    await server.stop("SIGTERM");
    await server.start({ ...QUIET, ...settings });
  };
  // biome-ignore lint/suspicious/noExplicitAny: any answer's body
  const spawn = async (more: object = {}): Promise<any> => {
    const { status, body } = await server.call("POST", "/sandboxes", { ...SPAWN, ...more });
    assert.equal(status, 201, JSON.stringify(body));
    return body;
  };
  const sh = async (id: string, command: string): Promise<string> => {
    const { status, body } = await server.call("POST", `/sandboxes/${id}/exec`, { command });
    assert.equal(status, 200, JSON.stringify(body));
    return body.stdout.trim();
  };
  const destroy = async (id: string): Promise<void> => {
    assert.equal((await server.call("DELETE", `/sandboxes/${id}`)).status, 200);
  };

  before(async () => {
    server = await Server.create();
    await restart();
    assert.equal((await server.call("POST", "/snapshots", SPAWN)).status, 201);
  });
  after(() => server[Symbol.asyncDispose]());
  // What a failed test leaves must not fail the next.
  afterEach(async () => {
    for (const { id } of (await server.call("GET", "/sandboxes")).body) await server.call("DELETE", `/sandboxes/${id}`);
  });

  for (const [action, state] of [
    ["pause", "paused"],
    ["suspend", "suspended"],
  ] as const) {
    test(`an idle sandbox is ${state}, and the next call finds its processes where they were`, async () => {
      await using events = await EventStream.open(server.url, { type: `sandbox.${state}` });
      const { id } = await spawn({ idle_timeout: "1s", idle_action: action, idle_counts: "calls" });
      await server.call("POST", `/sandboxes/${id}/processes`, { command: COUNTER });
      await events.next((event) => event.sandbox_id === id);
      assert.equal((await server.call("GET", `/sandboxes/${id}`)).body.state, state);
      const running = await processesIn(join(server.root, "sandboxes", id));
      assert.equal(running.length, action === "pause" ? 1 : 0);
      const first = Number(await sh(id, "cat /tmp/count"));
      assert.ok(first > 0);
      assert.equal((await server.call("GET", `/sandboxes/${id}`)).body.state, "running");
      assert.ok(
        Number(await sh(id, "until [ $(cat /tmp/count) -gt 3 ]; do sleep 0.05; done; cat /tmp/count")) >= first,
      );
      await destroy(id);
    });
  }

  test("a sandbox ends when its time is up, also a stuck one; one that was extended stays", async () => {
    await using events = await EventStream.open(server.url, { type: "sandbox.expired,sandbox.destroyed" });
    const [stuck, other, kept] = await Promise.all([1, 2, 3].map(() => spawn({ ttl: "3s" })));
    const [pid] = await processesIn(join(server.root, "sandboxes", stuck.id));
    process.kill(pid as number, "SIGSTOP");
    const extended = await server.call("POST", `/sandboxes/${kept.id}/extend`, { ttl: "1h" });
    assert.ok(Date.parse(extended.body.expires_at) > Date.now() + 3_000_000);
    const ended = new Set<string>();
    while (ended.size < 2) ended.add((await events.next((event) => event.type === "sandbox.expired")).sandbox_id ?? "");
    assert.deepEqual([...ended].sort(), [stuck.id, other.id].sort());
    for (const { id } of [stuck, other]) {
      while ((await processesIn(join(server.root, "sandboxes", id))).length > 0) await events.next(() => true);
      const { status, body } = await server.call("GET", `/sandboxes/${id}`);
      assert.ok(status === 404 || body.state === "expired", JSON.stringify(body));
    }
    assert.equal(await sh(kept.id, "echo here"), "here");
    await destroy(kept.id);
  });

  test("an owner's quota refuses what is beyond it, and only to that owner", async () => {
    assert.equal((await server.call("PUT", "/quotas/modest", { max_sandboxes: 1, max_ttl: "1h" })).status, 200);
    const first = await spawn({ owner_id: "modest" });
    const second = await server.call("POST", "/sandboxes", { ...SPAWN, owner_id: "modest" });
    assert.deepEqual([second.status, second.body.code], [429, "RESOURCE_LIMIT"]);
    const other = await spawn({ owner_id: "other" });
    await destroy(first.id);
    const long = await server.call("POST", "/sandboxes", { ...SPAWN, owner_id: "modest", ttl: "2h" });
    assert.equal(long.status, 429, JSON.stringify(long.body));
    const again = await spawn({ owner_id: "modest" });
    assert.equal((await server.call("DELETE", "/quotas/modest")).status, 200);
    await Promise.all([destroy(other.id), destroy(again.id)]);
  });

  test("events: a sign of life in silence, also where others are busy; what was missed comes again, over a restart too", async () => {
    await using silent = await EventStream.open(server.url, { sandbox_id: "sb-00000000" });
    await using all = await EventStream.open(server.url);
    const { id } = await spawn();
    await Promise.all([silent.heartbeat(), sh(id, "for i in 1 2 3; do sleep 0.2; done")]);
    const created = await all.next((event) => event.type === "sandbox.created" && event.sandbox_id === id);
    await destroy(id);
    const ended = await all.next((event) => event.type === "sandbox.destroyed" && event.sandbox_id === id);
    for (const fresh of [false, true]) {
      if (fresh) await restart();
      await using again = await EventStream.open(server.url, { sandbox_id: id }, created.id);
      const seen = [await again.next(() => true)];
      while (seen.at(-1)?.id !== ended.id) seen.push(await again.next(() => true));
      assert.equal(seen[0]?.type, "sandbox.running", "it begins after the one that was named");
      const numbers = seen.map((event) => Number(event.id.slice(4)));
      assert.deepEqual(
        numbers,
        [...new Set(numbers)].sort((a, b) => a - b),
      );
    }
  });

  test("a spawn waits in the queue until there is room, or its time is up; a full queue refuses at once", async () => {
    await restart({
      STACYVM_DEFAULTS_MAX_SANDBOXES: "1",
      STACYVM_DEFAULTS_SPAWN_OVERFLOW: "queue",
      STACYVM_DEFAULTS_SPAWN_QUEUE_TIMEOUT: "2s",
      STACYVM_DEFAULTS_MAX_SPAWN_QUEUE: "1",
    });
    await using events = await EventStream.open(server.url, { type: "spawn.*" });
    const { id } = await spawn();
    const waiting = server.call("POST", "/sandboxes", SPAWN);
    await events.next((event) => event.type === "spawn.queued");
    const refused = await server.call("POST", "/sandboxes", SPAWN);
    assert.deepEqual([refused.status, refused.body.code], [429, "RESOURCE_LIMIT"]);
    assert.ok(Number(refused.headers.get("retry-after")) > 0);
    await destroy(id);
    const served = await waiting;
    assert.equal(served.status, 201, JSON.stringify(served.body));
    const late = await server.call("POST", "/sandboxes", SPAWN);
    assert.equal(late.status, 408, JSON.stringify(late.body));
    await events.next((event) => event.type === "spawn.queue_timeout");
    await destroy(served.body.id);
    await restart();
  });

  test("a rate limit holds one client back, says until when, and leaves others alone", async () => {
    const [greedy, modest] = ["greedy", "modest"].map((name) => name.padEnd(40, "-"));
    await restart({
      STACYVM_RATE_LIMIT_ENABLED: "true",
      STACYVM_RATE_LIMIT_KEY_BY: "api_key",
      STACYVM_RATE_LIMIT_BURST: "3",
      STACYVM_RATE_LIMIT_REQUESTS_PER_MINUTE: "6",
      STACYVM_AUTH_API_KEY: greedy as string,
      STACYVM_AUTH_ADMIN_API_KEY: modest as string,
    });
    // What a client says of itself makes it no other one.
    const ask = (key = "", user = "somebody"): Promise<Response> =>
      fetch(`${server.url}/api/v1/sandboxes`, { headers: { "x-api-key": key, "x-user-id": user } });
    const answers = [];
    for (let i = 0; i < 4; i++) answers.push(await ask(greedy, `user-${i}`));
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200, 200, 429],
    );
    const wait = Number(answers[3]?.headers.get("retry-after"));
    assert.ok(wait >= 1 && wait <= 10, `retry after ${wait} s`);
    assert.equal((await ask(modest)).status, 200);
    await restart();
  });

  test("of a run whose server is killed the next one leaves nothing", async () => {
    const before = await server.machines();
    const run = server.call("POST", "/run", { ...SPAWN, command: "sleep 600" });
    run.catch(() => {}); // it breaks off
    const lent = async (): Promise<string | undefined> =>
      (await server.machines()).find((name) => !before.includes(name));
    let id = await lent();
    while (id === undefined || (await server.call("GET", `/sandboxes/${id}`)).body.state !== "running")
      id = await lent();
    assert.equal(await isThere(join(server.root, "sandboxes", id, "sandbox.json")), false);
    const [pid] = await processesIn(join(server.root, "sandboxes", id));
    await server.stop("SIGKILL");
    assert.notEqual(await processStartTime(pid ?? 0), undefined, "its machine has outlived the server");
    await server.start(QUIET);
    assert.equal((await server.call("GET", `/sandboxes/${id}`)).status, 404);
    assert.deepEqual(await server.machines(), before);
    assert.equal(await processStartTime(pid ?? 0), undefined);
  });

  test("a template's pool is kept filled: a spawn from it is warm, and its place is taken", async () => {
    await using events = await EventStream.open(server.url, { type: "pool.filled" });
    const template = { name: "ready", image: SPAWN.image, memory_mb: SPAWN.memory_mb, pool_size: 2, env: { A: "1" } };
    assert.ok((await server.call("POST", "/templates", template)).status < 300);
    await events.next((event) => event.data?.warm === 2);
    const [one, two] = await Promise.all([1, 2].map(() => spawn({ template: "ready", image: "" })));
    assert.deepEqual([one.boot.path, two.boot.path], ["warm", "warm"]);
    assert.equal(await sh(one.id, "echo $A"), "1");
    await events.next((event) => event.data?.warm === 2);
    const { body } = await server.call("GET", "/pool/status");
    assert.equal(body.vms, 2);
    // Killed with a full pool: nothing that waited is left over, and the next daemon keeps the promise as well.
    const waited = (await processesIn(join(server.root, "sandboxes"))).length;
    await server.stop("SIGKILL");
    await server.start(QUIET);
    await using later = await EventStream.open(server.url, { type: "pool.filled" }, "evt-0");
    while ((await server.call("GET", "/pool/status")).body.vms !== 2) await later.next(() => true);
    const names = await readdir(join(server.root, "sandboxes"));
    assert.deepEqual(names.filter((name) => name.startsWith("sb-")).sort(), [one.id, two.id].sort());
    assert.equal(await sh(one.id, "echo $A"), "1");
    // The idle monitors that stand behind the warm ones may still be on their way.
    assert.ok((await processesIn(join(server.root, "sandboxes"))).length <= waited);
    assert.equal((await server.call("DELETE", "/templates/ready")).status, 200);
    await Promise.all([destroy(one.id), destroy(two.id)]);
  });

  test("a client that does not read holds back the command, not the server; when it goes, so does the command", async () => {
    const { id } = await spawn();
    const abort = new AbortController();
    const response = await fetch(`${server.url}/api/v1/sandboxes/${id}/exec`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ command: "yes 0123456789012345678901234567890123456789", stream: true }),
      signal: abort.signal,
    });
    const reader = response.body?.getReader();
    await reader?.read();
    // All buffers between them are full when it writes no more.
    const written = (): Promise<string> => sh(id, "sed -n 's/^wchar: //p' /proc/$(pidof yes)/io");
    let before = await written();
    for (let now = await written(); now !== before; now = await written()) before = now;
    assert.ok(Number(before) < 64 << 20, `it wrote ${before} bytes that nobody read`);
    abort.abort();
    await sh(id, "while pidof yes; do sleep 0.05; done");
    await destroy(id);
  });

  test("a checkpoint that was damaged is refused by its name, works once its file is put back, and leaves nothing when it is removed", async () => {
    const { id } = await spawn();
    assert.equal(await sh(id, "echo kept > /tmp/file && echo fine"), "fine");
    const { body: checkpoint } = await server.call("POST", `/sandboxes/${id}/checkpoints`, { name: "good2" });
    const from = { checkpoint: checkpoint.id };
    const snapshots = join(server.root, "snapshots");
    const path = join(snapshots, checkpointKey(checkpoint.id), "memory.bin");
    const names = await readdir(snapshots);
    await flip(path, 5_000_000);
    for (const _ of [1, 2]) {
      const { status, body } = await server.call("POST", "/sandboxes", from);
      assert.ok(status >= 400, JSON.stringify(body));
      assert.equal(body.message, "the checkpoint good2 is damaged: memory.bin does not match its checksum");
      assert.match(body.remedy, /from a backup, or remove it/);
      assert.match((await server.call("POST", `/sandboxes/${id}/restore`, from)).body.message, /good2 is damaged/);
    }
    const damage = async () => (await server.call("GET", "/checkpoints")).body[0].damaged;
    assert.equal(await damage(), "memory.bin does not match its checksum");
    assert.equal(await sh(id, "cat /tmp/file"), "kept");
    await flip(path, 5_000_000);
    assert.equal(await damage(), undefined);
    const { body: copy } = await server.call("POST", "/sandboxes", from);
    assert.equal(await sh(copy.id, "cat /tmp/file"), "kept");
    await destroy(copy.id);
    await flip(path, 5_000_000);
    assert.ok((await server.call("POST", "/sandboxes", from)).status >= 400);
    assert.deepEqual((await readdir(snapshots)).sort(), names.sort());
    assert.equal((await server.call("DELETE", `/checkpoints/${checkpoint.id}`)).status, 200);
    assert.deepEqual(
      (await readdir(snapshots)).filter((name) => name.startsWith(checkpointKey(checkpoint.id))),
      [],
    );
    await destroy(id);
  });

  test("a snapshot that was damaged under the daemon: the sandbox works, and event, log and number say what happened", async () => {
    await using events = await EventStream.open(server.url, { type: "snapshot.rejected,restore.failed" });
    const { boot, id } = await spawn();
    await destroy(id);
    const path = join(server.root, "snapshots", boot.key, "memory.bin");
    await flip(path, 5_000_000);
    const saved = await spawn();
    assert.equal(saved.boot.path, "cold");
    assert.match(saved.boot.fallback, /damaged/);
    assert.equal(await sh(saved.id, "echo fine"), "fine");
    assert.match(JSON.stringify((await events.next(() => true)).data), /damaged/);
    assert.match(server.log, /is damaged/);
    const numbers = await (await fetch(`${server.url}/api/v1/metrics/prometheus`)).text();
    assert.match(numbers, /^stacyvm_spawn_fallbacks_total\S* 1$/m);
    await destroy(saved.id);
  });

  test("a command that a stop of the server cuts off is answered with that, which is no error in the log", async () => {
    await restart({ STACYVM_SHUTDOWN_GRACE: "300ms" });
    const { id } = await spawn();
    const cut = server.call("POST", `/sandboxes/${id}/exec`, { command: "touch /tmp/begun; sleep 600" });
    await sh(id, "until [ -e /tmp/begun ]; do sleep 0.05; done");
    await server.stop("SIGTERM");
    const { status, body } = await cut;
    assert.deepEqual([status, body.code], [503, "UNAVAILABLE"], JSON.stringify(body));
    // What a process has said can come after the news of its end.
    const saying = (): string => server.log.slice(server.log.lastIndexOf('"msg":"stopping"'));
    while (!saying().includes('"msg":"stopped"')) await setImmediate();
    const said = saying();
    assert.match(said, /"level":30,[^\n]*"msg":"cut off: /);
    assert.doesNotMatch(said, /"level":(50|60)|"stack"/);
    await restart();
    await destroy(id);
  });

  test("snapshots over the limit go by themselves, the one used longest ago first, but none in use", async () => {
    // The test before has damaged it, and it is built anew.
    assert.equal((await server.call("POST", "/snapshots", SPAWN)).status, 201);
    const held = await spawn();
    assert.equal(held.boot.path, "restored");
    await restart({ STACYVM_SNAPSHOTS_MAX_BYTES: "1" });
    const build = (memory_mb: number) => server.call("POST", "/snapshots", { ...SPAWN, memory_mb });
    const [first, second] = [await build(160), await build(192)];
    assert.deepEqual([first.status, second.status], [201, 201]);
    await using events = await EventStream.open(server.url, { type: "snapshot.removed" }, "evt-0");
    await events.next((event) => event.data?.key === first.body.key);
    const left = (await server.call("GET", "/snapshots")).body.map(({ key }: { key: string }) => key);
    assert.deepEqual(left.sort(), [held.boot.key, second.body.key].sort());
    const { body } = await server.call("POST", "/snapshots/gc", { dry_run: true });
    assert.match(JSON.stringify(body.kept), /1 machine runs from it/);
    assert.deepEqual(
      body.removed.map(({ key }: { key: string }) => key),
      [second.body.key],
    );
    await destroy(held.id);
  });
});
