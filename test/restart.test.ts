/** What the next daemon makes of machines that do not answer, of records and databases that do not fit, and of what is not its own. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { processesIn } from "../src/host/process.ts";
import { runTool } from "../src/host/run.ts";
import { EventStream } from "./event-stream.ts";
import { Server } from "./server-support.ts";

const SPAWN = { image: "stacyvm/busybox", memory_mb: 128 };

describe("a daemon that comes after another", () => {
  let server: Server;
  const ok = (method: string, path: string, body?: unknown) => server.ok(method, path, body);
  const sh = async (id: string, command: string): Promise<string> =>
    (await ok("POST", `/sandboxes/${id}/exec`, { command })).stdout.trim();
  const fresh = async (): Promise<string> => {
    const { id } = await ok("POST", "/sandboxes", SPAWN);
    await sh(id, "echo kept >/workspace/file");
    return id;
  };
  const monitorOf = async (id: string): Promise<number> => {
    const [pid] = await processesIn(join(server.root, "sandboxes", id));
    assert.ok(pid !== undefined);
    return pid;
  };
  /** Waits until the server says that it has taken the sandbox over. */
  const adopted = async (id: string): Promise<void> => {
    await using events = await EventStream.open(server.url, { type: "reconcile.action" }, "evt-0");
    await events.next((event) => event.sandbox_id === id && event.data?.action === "adopted");
  };

  before(async () => {
    server = await Server.create();
    await server.stop("SIGTERM");
    await server.start({ STACYVM_WARM_ADAPTIVE: "false" });
    await ok("POST", "/snapshots", SPAWN);
  });
  after(() => server[Symbol.asyncDispose]());
  afterEach(async () => {
    for (const { id } of await ok("GET", "/sandboxes")) await ok("DELETE", `/sandboxes/${id}`);
  });

  for (const state of ["running", "paused"] as const) {
    test(`a stopped monitor (${state}) holds up nobody; its sandbox is kept, shown, and taken over when it goes on`, async () => {
      const [silent, other] = [await fresh(), await fresh()];
      if (state === "paused") await ok("POST", `/sandboxes/${silent}/pause`);
      const pid = await monitorOf(silent);
      process.kill(pid, "SIGSTOP");
      await server.stop("SIGKILL");
      await server.start();
      const shown = await ok("GET", `/sandboxes/${silent}`);
      assert.equal(shown.state, state);
      assert.match(shown.unreachable.reason, /answer|listens/);
      const refused = await server.call("POST", `/sandboxes/${silent}/exec`, { command: "true" });
      assert.equal(refused.status, 503, JSON.stringify(refused.body));
      assert.equal((await server.call("POST", `/sandboxes/${silent}/suspend`)).status, 503);
      assert.ok(Array.isArray(await ok("GET", `/sandboxes/${silent}/logs`)));
      assert.equal(await sh(other, "cat /workspace/file"), "kept");
      process.kill(pid, "SIGCONT");
      await adopted(silent);
      const back = await ok("GET", `/sandboxes/${silent}`);
      assert.deepEqual([back.state, back.unreachable], [state, undefined]);
      if (state === "paused") await ok("POST", `/sandboxes/${silent}/resume`);
      assert.equal(await sh(silent, "cat /workspace/file"), "kept");
      assert.equal(await monitorOf(silent), pid);
    });
  }

  const long = process.env.STACYVM_LONG !== "1" && "a long form: STACYVM_LONG=1 runs it";
  test("an agent that stands still: calls end, its sandbox is kept and shown, and taken over when the agent goes on", {
    skip: long,
  }, async () => {
    const [silent, other] = [await fresh(), await fresh()];
    // Nobody can signal a guest's first process; its user can stop it by a control group, and this one lets it go on.
    const group = "/sys/fs/cgroup/stopped";
    const freeze = `mkdir ${group} && echo 1 >${group}/cgroup.procs && echo 1 >${group}/cgroup.freeze`;
    const command = `${freeze} || echo failed >/workspace/file; sleep 16; echo 0 >${group}/cgroup.freeze`;
    await ok("POST", `/sandboxes/${silent}/processes`, { command });
    const late = performance.now() + 10_000;
    while (performance.now() < late && (await server.answers(silent, 2_000))) {}
    assert.equal(await server.answers(silent, 2_000), false, "its agent goes on");
    await server.stop("SIGKILL");
    await server.start();
    const shown = await ok("GET", `/sandboxes/${silent}`);
    assert.equal(shown.state, "running");
    assert.match(shown.unreachable.reason, /answer/);
    assert.equal((await server.call("POST", `/sandboxes/${silent}/exec`, { command: "true" })).status, 503);
    assert.equal(await sh(other, "cat /workspace/file"), "kept");
    await adopted(silent);
    assert.equal(await sh(silent, "cat /workspace/file"), "kept");
  });

  test("a host so loaded that taking over needs more than a minute: it is kept and asked until it answers", {
    skip: long,
  }, async (t) => {
    const [slow, other] = [await fresh(), await fresh()];
    const pid = await monitorOf(slow);
    await server.stop("SIGKILL");
    const pause = (ms: number): Promise<void> => new Promise((wake) => setTimeout(wake, ms));
    const shown = (): Promise<{ state: string; unreachable?: { reason: string } }> => ok("GET", `/sandboxes/${slow}`);
    // For a minute it gets no time at all, then a twentieth.
    let share = 0;
    let over = false;
    const slowly = (async () => {
      while (!over) {
        if (share > 0) process.kill(pid, "SIGCONT");
        await pause(2_000 * share);
        process.kill(pid, "SIGSTOP");
        await pause(2_000);
      }
    })();
    process.kill(pid, "SIGSTOP");
    const reasons = new Set<string>();
    const begun = performance.now();
    let tookMs = 0;
    try {
      await server.start();
      for (;;) {
        const { state, unreachable } = await shown();
        tookMs = performance.now() - begun;
        assert.equal(state, "running");
        if (unreachable === undefined) break;
        reasons.add(unreachable.reason);
        assert.equal(await sh(other, "cat /workspace/file"), "kept");
        if (tookMs > 65_000) share = 0.05;
        await pause(500);
      }
    } finally {
      over = true;
      await slowly;
      process.kill(pid, "SIGCONT");
    }
    t.diagnostic(`taken over after ${Math.round(tookMs)} ms; before: ${[...reasons].join("; ")}`);
    assert.ok(tookMs > 60_000, "it was not slow enough to mean anything");
    assert.equal(await sh(slow, "cat /workspace/file"), "kept");
    assert.equal(await monitorOf(slow), pid);
  });

  test("a clock that was set back by a day: everything is taken over, wakes, ends and is made as before", {
    skip: long,
  }, async () => {
    const [running, suspended] = [await fresh(), await fresh()];
    await ok("POST", `/sandboxes/${suspended}/suspend`);
    await server.stop("SIGKILL");
    const shift = -24 * 3_600_000;
    const preload = new URL("shifted-clock.ts", import.meta.url).href;
    await server.start({
      STACYVM_WARM_ADAPTIVE: "false",
      STACYVM_TEST_CLOCK_SHIFT: String(shift),
      NODE_OPTIONS: `--import=${preload}`,
    });
    const states = ((await ok("GET", "/sandboxes")) as { id: string; state: string }[]).map(({ id, state }) => [
      id,
      state,
    ]);
    assert.deepEqual(
      states.sort(),
      [
        [running, "running"],
        [suspended, "suspended"],
      ].sort(),
    );
    await ok("POST", `/sandboxes/${suspended}/resume`);
    for (const id of [running, suspended]) assert.equal(await sh(id, "cat /workspace/file"), "kept");
    // A guest is told the host's time, whatever that is now.
    const off = Number(await sh(suspended, "date +%s")) * 1_000 - (Date.now() + shift);
    assert.ok(Math.abs(off) < 30_000, `${off} ms off`);
    const made = await fresh();
    const { expires_at } = await ok("POST", `/sandboxes/${running}/extend`, { ttl: "1h" });
    assert.ok(Math.abs(Date.parse(expires_at) - (Date.now() + shift + 3_600_000)) < 60_000, expires_at);
    for (const id of [running, suspended, made]) await ok("DELETE", `/sandboxes/${id}`);
    assert.deepEqual(await server.machines(), []);
    await server.stop("SIGTERM");
    await server.start({ STACYVM_WARM_ADAPTIVE: "false" });
    assert.deepEqual(await ok("GET", "/sandboxes"), []);
  });

  test("one that does not answer ends when its user says so", async () => {
    const silent = await fresh();
    process.kill(await monitorOf(silent), "SIGSTOP");
    await server.stop("SIGKILL");
    await server.start();
    assert.ok((await ok("GET", `/sandboxes/${silent}`)).unreachable !== undefined);
    await ok("DELETE", `/sandboxes/${silent}`);
    assert.deepEqual(await processesIn(join(server.root, "sandboxes")), []);
    assert.deepEqual(await server.machines(), []);
  });

  test("a record that cannot be read costs one sandbox its adoption, until it can be read again", async () => {
    const [damaged, other] = [await fresh(), await fresh()];
    const path = join(server.root, "sandboxes", damaged, "sandbox.json");
    const record = await readFile(path, "utf8");
    for (const bad of ["{", JSON.stringify({ ...JSON.parse(record), process: { pid: -1 } })]) {
      await server.stop("SIGTERM");
      await writeFile(path, bad);
      await server.start();
      assert.match((await ok("GET", `/sandboxes/${damaged}`)).unreachable.reason, /sandbox.json cannot be read/);
      assert.equal(await sh(other, "cat /workspace/file"), "kept");
    }
    await writeFile(path, record);
    while ((await ok("GET", `/sandboxes/${damaged}`)).unreachable !== undefined) {
      await new Promise((wake) => setTimeout(wake, 100));
    }
    assert.equal(await sh(damaged, "cat /workspace/file"), "kept");
  });

  test("a database that does not know the machines stops the start and harms none of them", async () => {
    const id = await fresh();
    const pid = await monitorOf(id);
    await server.stop("SIGTERM");
    const database = join(server.root, "stacyvm.db");
    const moved = `${database}.moved`;
    for (const suffix of ["", "-wal", "-shm"]) await rename(database + suffix, moved + suffix).catch(() => {});
    await assert.rejects(server.start(), (error: Error) => {
      assert.match(error.message, new RegExp(`does not know a machine.*${id}`));
      assert.match(error.message, /database\.path/);
      return true;
    });
    assert.equal(await monitorOf(id), pid);
    for (const suffix of ["", "-wal", "-shm"]) {
      await rm(database + suffix, { force: true });
      await rename(moved + suffix, database + suffix).catch(() => {});
    }
    await server.start();
    assert.equal(await sh(id, "cat /workspace/file"), "kept");

    // Who wants to be rid of them says so.
    await server.stop("SIGTERM");
    for (const suffix of ["", "-wal", "-shm"]) await rm(database + suffix, { force: true });
    await server.start({}, ["--remove-unknown"]);
    assert.deepEqual([await server.machines(), await processesIn(join(server.root, "sandboxes"))], [[], []]);
  });

  test("a server on a copy of the data directory ends none of the original's machines", async () => {
    const id = await fresh();
    const pid = await monitorOf(id);
    await server.stop("SIGTERM");
    const copy = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "copy-"));
    try {
      await runTool("cp", ["-a", "--sparse=always", `${server.root}/.`, copy]);
      await using other = await Server.open(copy);
      const [row] = (await other.call("GET", "/sandboxes")).body;
      assert.deepEqual([row.id, row.state], [id, "error"], "its machine is another directory's");
      await other.call("DELETE", `/sandboxes/${id}`);
    } finally {
      await rm(copy, { recursive: true, force: true });
    }
    assert.equal(await monitorOf(id), pid);
    await server.start();
    assert.equal(await sh(id, "cat /workspace/file"), "kept");
  });

  test("no process is ended that is not proven to be ours", async () => {
    const [asleep, gone] = [await fresh(), await fresh()];
    await ok("POST", `/sandboxes/${asleep}/suspend`);
    const shells = [asleep, gone].map((id) =>
      spawn("sleep", ["1000"], { cwd: join(server.root, "sandboxes", id), stdio: "ignore" }),
    );
    try {
      const pid = await monitorOf(gone).catch(() => 0);
      const machine = (await processesIn(join(server.root, "sandboxes", gone))).filter(
        (each) => each !== shells[1]?.pid,
      );
      assert.ok(pid > 0 && machine.length === 1);
      await server.stop("SIGKILL");
      process.kill(machine[0] as number, "SIGKILL");
      await server.start();
      assert.equal((await ok("GET", `/sandboxes/${asleep}`)).state, "suspended");
      assert.equal((await ok("GET", `/sandboxes/${gone}`)).state, "error");
      await ok("POST", `/sandboxes/${asleep}/resume`);
      assert.equal(await sh(asleep, "cat /workspace/file"), "kept");
      for (const id of [asleep, gone]) await ok("DELETE", `/sandboxes/${id}`);
      for (const shell of shells) assert.equal(shell.exitCode ?? shell.signalCode, null, "an administrator's shell");
    } finally {
      for (const shell of shells) shell.kill("SIGKILL");
    }
  });

  const unprivileged = process.getuid?.() !== 0 && "network and process namespaces need root";
  test("a second daemon in other namespaces, as in another container, is refused", { skip: unprivileged }, async () => {
    const id = await fresh();
    const main = new URL("../src/cli/main.ts", import.meta.url).pathname;
    const within = ["--net", "--pid", "--fork", "--mount-proc", "--kill-child"];
    const args = [...within, process.execPath, main, "serve", "--data-dir", server.root, "--port", "0"];
    const second = spawn("unshare", args, { stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    second.stderr.on("data", (text) => {
      said += text;
    });
    const [code] = await once(second, "exit");
    assert.notEqual(code, 0);
    assert.match(said, /another server runs on the data directory/);
    assert.equal(await sh(id, "cat /workspace/file"), "kept");
  });

  test("asked twice to stop, it stops at once; its sandboxes run on", async () => {
    const id = await fresh();
    const pending = server.call("POST", `/sandboxes/${id}/exec`, { command: "sleep 60" }).catch(() => {});
    while ((await sh(id, "pidof sleep || true")) === "") {}
    const ended = server.ended();
    process.kill(server.pid, "SIGTERM");
    // Two at the same moment would be one: the first has arrived when nobody is let in any more.
    const letsIn = (): Promise<boolean> =>
      fetch(`${server.url}/api/v1/health`).then(
        () => true,
        () => false,
      );
    while (await letsIn()) {}
    process.kill(server.pid, "SIGTERM");
    assert.equal(await ended, 130);
    await pending;
    await server.start();
    assert.equal(await sh(id, "cat /workspace/file"), "kept");
  });
});
