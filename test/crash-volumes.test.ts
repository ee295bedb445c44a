/**
 * The server is killed (-9) at every step of what is done with volumes (docs/crash-protocol.md): they are attached and detached, copied for
 * forks, saved with checkpoints, made from those. Nothing is lost, no volume has two writers or is left behind, and what was cut off can be
 * done afterwards. Real Linux machines under QEMU. `STACYVM_CRASH_STEPS=attach,fork` runs the steps whose names begin so.
 */
import assert from "node:assert/strict";
import { readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { runTool } from "../src/host/run.ts";
import type { CrashPoint } from "./crash-point.ts";
import { Server } from "./server-support.ts";

const SPAWN = { image: "stacyvm/busybox", memory_mb: 256, disk_mb: 256, volume_slots: 1 };

interface Step {
  doing: "attach" | "detach" | "fork" | "checkpoint" | "start";
  name: string;
  at: CrashPoint;
  /** Whether the sandbox has the volume afterwards. */
  has: boolean;
}

const after_ = (call: CrashPoint["call"], match: string): CrashPoint => ({ call, match, when: "after" });
const before_ = (call: CrashPoint["call"], match: string): CrashPoint => ({ call, match, when: "before" });
const PLACED = "sb-[^/]*/volume-0.ext4.new -> ";
const TAKEN = '"execute":"blockdev-reopen"';

const STEPS: Step[] = [
  { doing: "attach", name: "V1", at: after_("commit", '"changing":"attach"'), has: false },
  { doing: "attach", name: "V2", at: after_("rename", PLACED), has: false },
  { doing: "attach", name: "V3 shown", at: before_("send", TAKEN), has: false },
  { doing: "attach", name: "V3", at: after_("send", TAKEN), has: false },
  { doing: "attach", name: "V4", at: before_("commit", '"slot":0\\}'), has: false },
  { doing: "attach", name: "V5", at: after_("commit", '"slot":0\\}'), has: true },
  { doing: "detach", name: "V1", at: after_("commit", '"changing":"detach"'), has: false },
  { doing: "detach", name: "V4", at: before_("rename", PLACED), has: false },
  { doing: "detach", name: "V2", at: after_("rename", PLACED), has: false },
  { doing: "detach", name: "V3", at: after_("send", TAKEN), has: false },
  { doing: "detach", name: "V5 given", at: after_("rm", "uses/sb-"), has: false },
  { doing: "fork", name: "made", at: after_("mkdir", "volumes/vol-[^/]*\\.new$"), has: true },
  { doing: "fork", name: "row", at: after_("commit", '"madeFor"'), has: true },
  { doing: "fork", name: "copied", at: before_("rename", "volumes/vol-[^/]*\\.new -> "), has: true },
  { doing: "fork", name: "there", at: after_("rename", "volumes/vol-[^/]*\\.new -> "), has: true },
  { doing: "fork", name: "F8", at: after_("rename", "sandbox.json.new -> "), has: true },
  { doing: "checkpoint", name: "F4", at: before_("rename", "tmp/checkpoint-.* -> "), has: true },
  { doing: "checkpoint", name: "F7", at: after_("rename", "tmp/checkpoint-.* -> "), has: true },
  { doing: "start", name: "made", at: after_("mkdir", "volumes/vol-[^/]*\\.new$"), has: true },
  { doing: "start", name: "row", at: after_("commit", '"madeFor"'), has: true },
  { doing: "start", name: "P4", at: after_("rename", "sandbox.json.new -> "), has: true },
];
const only = process.env.STACYVM_CRASH_STEPS?.split(",");
const chosen = STEPS.filter(({ doing }) => only === undefined || only.includes(doing));

describe("kill -9 at every step of volumes (qemu)", () => {
  let server: Server;
  const point = (): string => join(server.root, "crash-point.json");
  const ok = (method: string, path: string, body?: unknown) => server.ok(method, path, body);
  const startServer = (): Promise<void> =>
    server.start({
      STACYVM_WARM_ADAPTIVE: "false",
      STACYVM_CRASH_POINT: point(),
      NODE_OPTIONS: `--import=${new URL("crash-point.ts", import.meta.url).href}`,
    });
  const sh = async (id: string, command: string): Promise<string> => {
    const body = await ok("POST", `/sandboxes/${id}/exec`, { command });
    assert.equal(body.exit_code, 0, JSON.stringify(body));
    return body.stdout.trim();
  };
  const attach = (id: string): [string, string, object] => [
    "POST",
    `/sandboxes/${id}/volumes`,
    { name: "data", path: "/data" },
  ];

  before(async () => {
    server = await Server.create("providers: { default: qemu }\n");
    await server.stop("SIGTERM");
    await startServer();
    await ok("POST", "/snapshots", SPAWN);
    await ok("POST", "/volumes", { name: "data", size_mb: 64 });
  });
  after(() => server[Symbol.asyncDispose]());

  for (const { doing, name, at, has } of chosen) {
    test(`${doing}, ${name}`, async () => {
      // What a step that failed left is no matter of the next one.
      for (const each of await ok("GET", "/sandboxes")) await ok("DELETE", `/sandboxes/${each.id}`);
      for (const each of await ok("GET", "/checkpoints")) await ok("DELETE", `/checkpoints/${each.id}`);
      for (const each of await ok("GET", "/volumes"))
        if (each.name !== "data") await ok("DELETE", `/volumes/${each.name}`);
      const { id } = await ok("POST", "/sandboxes", SPAWN);
      await ok(...attach(id));
      await sh(id, "echo kept > /data/word; echo mine > /word; sync");
      if (doing === "attach") await ok("DELETE", `/sandboxes/${id}/volumes/data`);
      const checkpoint = doing === "start" ? (await ok("POST", `/sandboxes/${id}/checkpoints`, {})).id : "";
      const operations: Record<Step["doing"], [string, string, object?]> = {
        attach: attach(id),
        detach: ["DELETE", `/sandboxes/${id}/volumes/data`],
        fork: ["POST", `/sandboxes/${id}/fork`, {}],
        checkpoint: ["POST", `/sandboxes/${id}/checkpoints`, {}],
        start: ["POST", "/sandboxes", { checkpoint }],
      };
      await writeFile(point(), JSON.stringify([at]));
      const died = server.ended();
      const answered = await server.call(...operations[doing]).then(
        ({ status, body }) => `${status} ${JSON.stringify(body)}`,
        () => undefined,
      );
      if (answered !== undefined) await rm(point(), { force: true });
      assert.equal(answered, undefined, `the step was not met: ${answered}`);
      assert.equal(await died, "SIGKILL");
      await startServer();

      // What it puts right beside comes to its end.
      for (;;) {
        const { volumes = [] } = await ok("GET", `/sandboxes/${id}`);
        if ((volumes.length === 1) === has) break;
      }
      assert.equal(await sh(id, "cat /word"), "mine");
      assert.deepEqual(
        (await ok("GET", "/volumes")).map((volume: { name: string }) => volume.name),
        ["data"],
      );
      assert.deepEqual(await readdir(join(server.root, "sandboxes")), [id]);
      assert.equal((await readdir(join(server.root, "volumes"))).length, 1, "a disk that no row knows");
      const taken = await server.call("POST", "/sandboxes", {
        ...SPAWN,
        volume_slots: 0,
        volumes: [{ name: "data", path: "/data" }],
      });
      assert.equal(taken.status, has ? 409 : 201, JSON.stringify(taken.body));
      if (taken.status === 201) {
        assert.equal(await sh(taken.body.id, "cat /data/word"), "kept");
        await ok("DELETE", `/sandboxes/${taken.body.id}`);
        await ok(...attach(id));
      }
      assert.equal(await sh(id, "cat /data/word"), "kept");
      // And what was cut off can be done now.
      if (doing !== "attach") {
        const again = await ok(...operations[doing]);
        const made = doing === "start" ? [again] : (again.sandboxes ?? []);
        for (const each of doing === "detach" || doing === "checkpoint" ? [] : made) {
          assert.equal(await sh(each.id, "cat /data/word"), "kept");
          await ok("DELETE", `/sandboxes/${each.id}`);
          await ok("DELETE", `/volumes/data-${each.id}`);
        }
      }
      await ok("DELETE", `/sandboxes/${id}`);
      for (const each of await ok("GET", "/checkpoints")) await ok("DELETE", `/checkpoints/${each.id}`);
      const [volume] = await readdir(join(server.root, "volumes"));
      const env = { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" };
      const disk = join(server.root, "volumes", volume ?? "", "disk.ext4");
      assert.doesNotMatch((await runTool("e2fsck", ["-fn", disk], { env })).toString(), /recover|WARNING/i);
    });
  }
});
