/**
 * Spawn, exec and destroy over and over, ten at a time: what the server holds afterwards is what it held before. The long form:
 * `STACYVM_CHURN=10000`, and with `STACYVM_CHURN_VMM=firecracker` the bare guest, which takes milliseconds for each, `firecracker-linux` for
 * Linux there; `STACYVM_CHURN_MINUTES` to end earlier.
 */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { processesIn } from "../src/host/process.ts";
import { runTool } from "../src/host/run.ts";
import { Server } from "./server-support.ts";

const ROUNDS = Number(process.env.STACYVM_CHURN ?? 30);
/** It ends after so many minutes, however many that were. */
const MINUTES = Number(process.env.STACYVM_CHURN_MINUTES ?? Number.POSITIVE_INFINITY);
const [FIRECRACKER, BARE] = [/^firecracker/, /^firecracker$/].map((name) =>
  name.test(process.env.STACYVM_CHURN_VMM ?? ""),
);
/** An interpreted kernel has two cores here, and no more at once to say for itself. */
const PARALLEL = FIRECRACKER && !BARE ? 3 : 10;
const MOST_WAITING = 8;
const LINUX = {
  image: "stacyvm/busybox",
  memory_mb: FIRECRACKER ? 256 : 128,
  ...(FIRECRACKER ? { disk_mb: 256 } : {}),
};
const SPAWN = BARE ? { image: "stacyvm/bare", memory_mb: 128 } : LINUX;

interface Holdings {
  files: number;
  rssMiB: number;
  directories: number;
  processes: number;
  /** Processes that the server and its spawner started otherwise, also those that have ended and nobody has asked for. */
  children: number;
  /** Monitors that wait for a machine, in directories of their own: as many as the server keeps ready at that moment. */
  waiting: number;
  /** UNIX sockets of machines, as the kernel lists them. */
  sockets: number;
  /** Of the data directory, without images and assets. */
  diskMiB: number;
}

test(`${ROUNDS} sandboxes, ${PARALLEL} at a time, leave nothing`, async (t) => {
  // Without a pool that follows demand, since its machines would be counted too.
  await using server = await Server.create(FIRECRACKER ? "providers: { default: firecracker }\n" : undefined);
  await server.stop("SIGTERM");
  await server.start({ STACYVM_WARM_ADAPTIVE: "false", STACYVM_LOGGING_LEVEL: "warn" });
  assert.equal((await server.call("POST", "/snapshots", SPAWN)).status, 201);

  const one = async (i: number): Promise<void> => {
    // Every other one has a network, and is refused something by it.
    const network = i % 2 === 1 && !BARE;
    const spawned = await server.call(
      "POST",
      "/sandboxes",
      network ? { ...SPAWN, allowed_hosts: ["a.example"] } : SPAWN,
    );
    assert.equal(spawned.status, 201, JSON.stringify(spawned.body));
    const { id } = spawned.body;
    const command = network
      ? "printf 'CONNECT b.example:443 HTTP/1.1\\r\\n\\r\\n' | nc 127.0.0.1 3128 | head -n 1"
      : `echo ${i}`;
    const result = await server.call(
      "POST",
      `/sandboxes/${id}/exec`,
      BARE ? { command: "echo", args: [String(i)], mode: "argv" } : { command },
    );
    assert.equal(result.status, 200, `${id}: ${JSON.stringify(result.body)}\n${server.log.slice(-2_000)}`);
    assert.equal(
      result.body.stdout.trim(),
      network ? "HTTP/1.1 403 Forbidden" : String(i),
      JSON.stringify(result.body),
    );
    assert.equal((await server.call("DELETE", `/sandboxes/${id}`)).status, 200);
  };
  const churn = async (count: number): Promise<void> => {
    let next = 0;
    await Promise.all(
      Array.from({ length: PARALLEL }, async () => {
        while (next < count) await one(next++);
      }),
    );
  };
  const holdings = async (): Promise<Holdings> => {
    const sandboxes = join(server.root, "sandboxes");
    // Before those that wait are looked for: another one may begin to at any moment.
    const processes = await processesIn(sandboxes);
    const children = await descendants(server.pid);
    const waiting = (await readdir(sandboxes)).filter((name) => name.startsWith("pool-"));
    const idle = (await Promise.all(waiting.map((name) => processesIn(join(sandboxes, name))))).flat();
    const status = await readFile(`/proc/${server.pid}/status`, "utf8");
    return {
      files: (await readdir(`/proc/${server.pid}/fd`)).length,
      rssMiB: Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024),
      directories: (await server.machines()).length,
      processes: processes.filter((pid) => !idle.includes(pid)).length,
      children: children.filter((pid) => !idle.includes(pid)).length,
      waiting: waiting.length,
      sockets: (await readFile("/proc/net/unix", "utf8")).split(server.root).length - 1,
      diskMiB: Math.round(Number((await runTool("du", ["-sk", server.root])).toString("utf8").split("\t")[0]) / 1024),
    };
  };

  await churn(PARALLEL); // caches, compiled code and connections are there from now on
  const before = await holdings();
  t.diagnostic(`before: ${JSON.stringify(before)}`);
  const parts = ROUNDS >= 1_000 ? 20 : 1;
  let after = before;
  let done = 0;
  const rss = [before.rssMiB + 128];
  const until = performance.now() + MINUTES * 60_000;
  for (let part = 1; part <= parts && performance.now() < until; part++) {
    const begun = performance.now();
    const count = Math.round((ROUNDS * part) / parts) - done;
    await churn(count);
    done += count;
    after = await holdings();
    rss.push(after.rssMiB);
    const each = ((performance.now() - begun) / count).toFixed(1);
    t.diagnostic(`after ${done}: ${JSON.stringify(after)}, ${each} ms for one of ${PARALLEL} at a time`);
  }
  assert.equal(after.directories, 0, "directories of machines");
  assert.equal(after.processes, 0, "processes");
  assert.equal(after.children, before.children, "children");
  assert.ok(after.waiting <= MOST_WAITING, `${after.waiting} monitors wait`);
  assert.equal(after.sockets, before.sockets, "sockets");
  // The history is bounded (store.ts); until then it grows.
  assert.ok(after.diskMiB <= before.diskMiB + 64, `disk: ${before.diskMiB} MiB before, ${after.diskMiB} after`);
  // The HTTP client's own connections come and go.
  assert.ok(after.files <= before.files + PARALLEL, `open files: ${before.files} before, ${after.files} after`);
  // V8 takes memory while there is some, and gives it back late: 10,000 sandboxes ended at 258 MiB on one day and at 397 on another, with the
  // same heap after a collection. A leak is what goes on: it ends above all that the first half needed.
  const most = Math.max(...rss.slice(0, Math.ceil(rss.length / 2)));
  assert.ok(after.rssMiB <= most + 32, `memory, MiB: ${rss.slice(1)}; at most ${most} in the first half`);
  assert.deepEqual((await server.call("GET", "/sandboxes")).body, []);
});

/** Pids of a process's children and of theirs, ended ones that were not waited for included. */
async function descendants(pid: number): Promise<number[]> {
  const parents = new Map<number, number>();
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const stat = await readFile(`/proc/${name}/stat`, "latin1").catch(() => "");
    // The name in parentheses may hold anything.
    parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
  }
  const below = (of: number): number[] =>
    [...parents].filter(([, parent]) => parent === of).flatMap(([child]) => [child, ...below(child)]);
  return below(pid);
}
