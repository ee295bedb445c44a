/**
 * The daemon is killed (-9) at every step of the crash protocol by name (docs/crash-protocol.md), with real Linux machines. Then the next
 * daemon must find: the sandbox in a state that the page allows, its process and its file as they were, every other sandbox well, and
 * nothing left over. `STACYVM_CRASH_STEPS=S,W` runs the steps whose names begin so, `STACYVM_CRASH_VMM=firecracker` takes the bare guest.
 */
import assert from "node:assert/strict";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { processesIn } from "../src/host/process.ts";
import { type Ask, crashGuest as guest } from "./crash-guests.ts";
import type { CrashPoint } from "./crash-point.ts";
import { Server } from "./server-support.ts";

const SPAWN = guest.spawn;
/** A record that is replaced for good, which every change but the first does. */
const RECORD = "sandbox.json\\..*tmp -> ";

/** Only E2B's clients ask for that, whose paths are below no base. */
const toDisk = (id: string): string => `/../../sandboxes/${id}/pause`;

type State = "running" | "paused" | "suspended";
/** `to disk`: without its memory; `boot`: the wake of one that was suspended so, which is a start of its system. */
type Operation =
  | ("spawn" | "pause" | "resume" | "suspend" | "wake" | "fork" | "checkpoint" | "restore" | "destroy")
  | ("to disk" | "boot");

interface Step {
  name: string;
  doing: Operation;
  /** Of several, whichever comes. */
  at: CrashPoint | CrashPoint[];
  /** What the sandbox may be afterwards; none: gone. Default: as before the operation. */
  states?: State[];
  /** Its client may have been answered by then. */
  answered?: true;
  /** Steps that only one of the monitors has. */
  monitor?: "qemu" | "firecracker";
}

/** What is sent to the monitor, and the program that it is. */
const MONITORS = {
  qemu: {
    stop: '"execute":"stop"',
    cont: '"execute":"cont"',
    save: '"execute":"migrate"',
    load: '"execute":"migrate-incoming"',
    program: "qemu",
  },
  firecracker: {
    stop: 'PATCH /vm [^]*"Paused"',
    cont: 'PATCH /vm [^]*"Resumed"',
    save: "PUT /snapshot/create",
    load: "PUT /snapshot/load",
    program: "(firecracker|prlimit)",
  },
};
const MONITOR = MONITORS[guest.monitor];
const send = (command: "stop" | "cont" | "save" | "load", when: CrashPoint["when"] = "after"): CrashPoint => ({
  ...{ call: "send", match: MONITOR[command], when },
});
/** A monitor in such a directory, by the daemon itself or by its spawner (src/host/spawner.ts), which is told `spawn ID CWD ...`. */
const start = (where: string, when: CrashPoint["when"] = "after"): CrashPoint[] => [
  { call: "spawn", match: `${MONITOR.program}.*${where}$`, when },
  { call: "send", match: `\\0spawn\\0\\d+\\0[^\\0]*${where}\\0`, when },
];
const record = (when: CrashPoint["when"], within = "sb-"): CrashPoint => ({
  ...{ call: "rename", match: `${within}[^/]*/${RECORD}`, when },
});
const commit = (match: string): CrashPoint => ({ call: "commit", match, when: "after" });

/** A monitor of its own, or one that waited and gets its name. */
const beginning = (where: string): CrashPoint[] => [
  ...start(where),
  { call: "rename", match: `pool-[^/]* -> .*${where}$`, when: "after" },
];

/** The bare guest has no system that could start anew. */
function ofDiskAlone(steps: Step[]): Step[] {
  return guest.hasSystem ? steps : [];
}

const ALL: Step[] = [
  { name: "P1", doing: "spawn", at: commit('"state":"creating"') },
  { name: "P2", doing: "spawn", at: { call: "symlink", match: "sandboxes/sb-.*base.img", when: "after" } },
  { name: "P3", doing: "spawn", at: beginning("sandboxes/sb-[^/]*") },
  { name: "P3 loading", doing: "spawn", at: send("load") },
  { name: "P4", doing: "spawn", at: { call: "rename", match: "sandbox.json.new -> ", when: "after" } },
  { name: "P5", doing: "spawn", at: commit('"state":"running"'), states: ["running"] },
  { name: "U1", doing: "pause", at: send("stop"), states: ["running"] },
  { name: "U1 done", doing: "pause", at: record("before"), states: ["running"] },
  { name: "U2", doing: "pause", at: record("after"), states: ["paused"] },
  { name: "R1", doing: "resume", at: send("cont"), states: ["paused"] },
  { name: "R2", doing: "resume", at: record("before"), states: ["paused"] },
  { name: "R3", doing: "resume", at: record("after"), states: ["running"] },
  { name: "S1", doing: "suspend", at: send("stop"), states: ["running"] },
  { name: "S2 saving", doing: "suspend", at: send("save"), states: ["running"] },
  { name: "S2", doing: "suspend", at: { call: "rename", match: "sealed.json", when: "after" }, states: ["running"] },
  {
    name: "S3",
    doing: "suspend",
    at: { call: "rename", match: "suspended.new -> ", when: "after" },
    states: ["running"],
  },
  { name: "S4", doing: "suspend", at: record("after"), states: ["suspended"] },
  { name: "S5", doing: "suspend", at: commit('"state":"suspended"'), states: ["suspended"] },
  {
    name: "W1",
    doing: "wake",
    at: { call: "rm", match: "sb-[^/]*/rootfs.ext4", when: "before" },
    states: ["suspended"],
  },
  { name: "W2", doing: "wake", at: start("", "before"), states: ["suspended"] },
  { name: "W3", doing: "wake", at: start(""), states: ["suspended"] },
  { name: "W3 loading", doing: "wake", at: send("load"), states: ["suspended"] },
  { name: "W4", doing: "wake", at: record("before"), states: ["suspended"] },
  { name: "W5", doing: "wake", at: record("after"), states: ["running"] },
  ...ofDiskAlone([
    { name: "S1 frozen", doing: "to disk", at: send("stop", "before"), states: ["running"] },
    { name: "S1 to disk", doing: "to disk", at: send("stop"), states: ["running"] },
    {
      name: "S2 to disk",
      doing: "to disk",
      at: { call: "rename", match: "sealed.json", when: "after" },
      states: ["running"],
    },
    {
      name: "S3 to disk",
      doing: "to disk",
      at: { call: "rename", match: "suspended.new -> ", when: "after" },
      states: ["running"],
    },
    { name: "S4 to disk", doing: "to disk", at: record("after"), states: ["suspended"] },
    { name: "S5 to disk", doing: "to disk", at: commit('"state":"suspended"'), states: ["suspended"] },
    {
      name: "W1 boot",
      doing: "boot",
      at: { call: "rm", match: "sb-[^/]*/rootfs.ext4", when: "before" },
      states: ["suspended"],
    },
    { name: "W2 boot", doing: "boot", at: start("", "before"), states: ["suspended"] },
    { name: "W3 boot", doing: "boot", at: start(""), states: ["suspended"] },
    { name: "W4 boot", doing: "boot", at: record("before"), states: ["suspended"] },
    { name: "W5 boot", doing: "boot", at: record("after"), states: ["running"] },
  ]),
  { name: "F1", doing: "fork", at: { call: "mkdir", match: "tmp/fork-", when: "after" } },
  { name: "F2", doing: "fork", at: send("stop", "before") },
  { name: "F3", doing: "fork", at: send("save", "before") },
  { name: "F4", doing: "fork", at: send("save") },
  { name: "F4 done", doing: "fork", at: send("cont", "before") },
  { name: "F5", doing: "fork", at: send("cont") },
  { name: "F6", doing: "fork", at: { call: "mkdir", match: "normalise", when: "before" }, monitor: "qemu" },
  { name: "F7", doing: "fork", at: { call: "rename", match: "tmp/fork-.* -> .*snapshots/", when: "after" } },
  { name: "F8", doing: "fork", at: { call: "rename", match: "sandbox.json.new -> ", when: "after" } },
  { name: "F1 of a checkpoint", doing: "checkpoint", at: commit('"saving":true') },
  { name: "F3 of a checkpoint", doing: "checkpoint", at: send("save") },
  { name: "F5 of a checkpoint", doing: "checkpoint", at: send("cont") },
  {
    name: "F7 of a checkpoint",
    doing: "checkpoint",
    at: { call: "rename", match: "tmp/checkpoint-.* -> ", when: "after" },
  },
  {
    name: "B1",
    doing: "restore",
    at: beginning("-next"),
  },
  { name: "B1 loading", doing: "restore", at: send("load") },
  { name: "B2", doing: "restore", at: record("after", "-next") },
  { name: "B3", doing: "restore", at: { call: "rename", match: " -> .*-former", when: "before" } },
  { name: "B4 half", doing: "restore", at: { call: "rename", match: " -> .*-former", when: "after" } },
  { name: "B4", doing: "restore", at: { call: "rename", match: "-next -> ", when: "after" } },
  { name: "B5", doing: "restore", at: record("after") },
  { name: "D1", doing: "destroy", at: commit('"state":"destroyed"') },
  {
    name: "D2",
    doing: "destroy",
    at: { call: "rm", match: "sandboxes/sb-[0-9a-f]*$", when: "before" },
    answered: true,
  },
  { name: "D3", doing: "destroy", at: { call: "rm", match: "sandboxes/sb-[0-9a-f]*$", when: "after" }, answered: true },
];

const STEPS = ALL.filter(({ monitor }) => monitor === undefined || monitor === guest.monitor);
const only = process.env.STACYVM_CRASH_STEPS?.split(",");

const skip = (await guest.whyNot()) ?? false;
describe(`kill -9 at every step of the crash protocol (${guest.monitor})`, { skip }, () => {
  let server: Server;
  /** One that has nothing to do with the others. */
  let bystander: string;
  let kills = 0;
  const point = (): string => join(server.root, "crash-point.json");

  const ok = (method: string, path: string, body?: unknown) => server.ok(method, path, body);
  const asking =
    (id: string): Ask =>
    async (method, path, body) => ({ body: await ok(method, `/sandboxes/${id}${path}`, body) });
  const startServer = (): Promise<void> =>
    server.start({
      STACYVM_WARM_ADAPTIVE: "false",
      STACYVM_CRASH_POINT: point(),
      NODE_OPTIONS: `--import=${new URL("crash-point.ts", import.meta.url).href}`,
    });
  const fresh = async (): Promise<string> => {
    const { id } = await ok("POST", "/sandboxes", SPAWN);
    await guest.begin(asking(id));
    assert.equal(await guest.count(asking(id)), 1);
    await guest.write(asking(id), "kept");
    return id;
  };

  before(async () => {
    server = await Server.create(guest.config);
    await server.stop("SIGTERM");
    await startServer();
    await ok("POST", "/snapshots", SPAWN);
    bystander = await fresh();
  });
  after(async () => {
    await server[Symbol.asyncDispose]();
  });

  const operations: Record<Operation, (id: string, checkpoint: string) => [string, string, unknown?]> = {
    spawn: () => ["POST", "/sandboxes", SPAWN],
    pause: (id) => ["POST", `/sandboxes/${id}/pause`],
    resume: (id) => ["POST", `/sandboxes/${id}/resume`],
    suspend: (id) => ["POST", `/sandboxes/${id}/suspend`],
    wake: (id) => ["POST", `/sandboxes/${id}/resume`],
    fork: (id) => ["POST", `/sandboxes/${id}/fork`, { count: 2 }],
    checkpoint: (id) => ["POST", `/sandboxes/${id}/checkpoints`, {}],
    restore: (id, checkpoint) => ["POST", `/sandboxes/${id}/restore`, { checkpoint }],
    destroy: (id) => ["DELETE", `/sandboxes/${id}`],
    "to disk": (id) => ["POST", toDisk(id), { memory: false }],
    boot: (id) => ["POST", `/sandboxes/${id}/resume`],
  };
  /** What has been done before it can be. */
  const prepare = async (doing: Operation, id: string): Promise<void> => {
    const first = ({ resume: "pause", wake: "suspend", boot: "to disk" } as const)[doing as "wake"];
    if (first !== undefined) await ok(...operations[first](id, ""));
  };

  for (const { name, doing, at, states, answered: mayBe } of STEPS) {
    if (only !== undefined && !only.some((prefix) => name.startsWith(prefix))) continue;
    test(`${name} (${doing})`, async () => {
      // What a step that failed left is no matter of the next one.
      for (const { id } of await ok("GET", "/sandboxes")) if (id !== bystander) await ok("DELETE", `/sandboxes/${id}`);
      const id = doing === "spawn" ? "" : await fresh();
      const checkpoint = doing === "restore" ? (await ok("POST", `/sandboxes/${id}/checkpoints`, {})).id : "";
      await prepare(doing, id);
      await writeFile(point(), JSON.stringify([at].flat()));
      const died = server.ended();
      const [method, path, body] = operations[doing](id, checkpoint);
      const answered = await server.call(method, path, body).then(
        ({ status, body }) => `${status} ${JSON.stringify(body)}`,
        () => undefined,
      );
      if (answered !== undefined) await rm(point(), { force: true });
      if (mayBe === undefined) assert.equal(answered, undefined, `the step was not met: ${answered}`);
      assert.equal(await died, "SIGKILL");
      kills += 1;
      await startServer();

      const rows = (await ok("GET", "/sandboxes")) as { id: string; state: State; unreachable?: unknown }[];
      assert.deepEqual(
        rows.filter(({ unreachable }) => unreachable !== undefined),
        [],
      );
      const mine = rows.filter((row) => row.id !== bystander);
      const expected = doing === "spawn" || doing === "destroy" ? (states ?? []) : (states ?? ["running"]);
      if (expected.length === 0) assert.deepEqual(mine, []);
      else {
        assert.equal(mine.length, 1, JSON.stringify(mine));
        assert.ok(expected.includes(mine[0]?.state as State), `${mine[0]?.state}, not ${expected.join(" or ")}`);
      }
      await nothingLeft(rows, doing === "restore");
      // The same sandbox, with its process and its file where they were.
      for (const { id: found, state } of mine) {
        if (state !== "running") await ok("POST", `/sandboxes/${found}/resume`);
        if (doing !== "spawn") {
          const anew = doing === "boot" || (doing === "to disk" && state === "suspended");
          if (anew) await guest.begin(asking(found));
          assert.equal(await guest.count(asking(found)), anew ? 1 : 2);
          assert.equal(await guest.read(asking(found)), "kept");
        }
        assert.equal(await guest.echo(asking(found)), "fine");
        // And what was cut off can be done now.
        if (doing !== "spawn" && doing !== "destroy") {
          await prepare(doing, found);
          const again = await ok(...operations[doing](found, checkpoint));
          for (const child of doing === "fork" ? again.sandboxes : []) await ok("DELETE", `/sandboxes/${child.id}`);
          if (doing === "checkpoint") await ok("DELETE", `/checkpoints/${again.id}`);
        }
        await ok("DELETE", `/sandboxes/${found}`);
      }
      if (doing === "restore") await ok("DELETE", `/checkpoints/${checkpoint}`);
      assert.equal(await guest.read(asking(bystander)), "kept");
    });
  }

  test("every step was met", (t) => {
    t.diagnostic(`${kills} kills at ${STEPS.length} steps`);
    if (only === undefined) assert.equal(kills, STEPS.length);
  });

  /** Processes, directories and snapshots are those of the sandboxes that there are. */
  async function nothingLeft(rows: { id: string; state: State }[], hasCheckpoint: boolean): Promise<void> {
    const ids = rows.map(({ id }) => id).sort();
    assert.deepEqual((await readdir(join(server.root, "sandboxes"))).sort(), ids, "directories of machines");
    for (const { id, state } of rows) {
      const running = await processesIn(join(server.root, "sandboxes", id));
      assert.equal(running.length, state === "suspended" ? 0 : 1, `processes of ${id}, ${state}`);
    }
    await mkdir(join(server.root, "tmp"), { recursive: true });
    assert.deepEqual(await readdir(join(server.root, "tmp")), [], "half-made things");
    const kinds = (await readdir(join(server.root, "snapshots"))).filter((name) => /^[0-9a-f]{64}$/.test(name));
    assert.equal(kinds.length, hasCheckpoint ? 2 : 1, "snapshots: the golden one, and a checkpoint where there is one");
    assert.equal((await ok("GET", "/checkpoints")).length, hasCheckpoint ? 1 : 0);
  }
});
