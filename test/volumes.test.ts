/** Volumes on a real server: what is kept, who may have it, and what kills of machine and server leave of it. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, open, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { isRoot } from "../src/host/is-root.ts";
import { dataPaths } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { failingDisk } from "./failing-disk.ts";
import { whyNot } from "./firecracker-support.ts";
import { Server } from "./server-support.ts";

/** Kills of a machine, or of the server, in the last test; the long form makes 100. */
const KILLS = Number(process.env.STACYVM_VOLUME_KILLS ?? 6);

interface Mount {
  name: string;
  path: string;
  read_only?: boolean;
}

describe("volumes of a server, QEMU with Linux guests", () => {
  let server: Server;
  before(async () => {
    server = await Server.create("warm: { adaptive: false }\nproviders: { default: qemu }\n");
  });
  after(() => server[Symbol.asyncDispose]());

  const spawn = (volumes: Mount[]) =>
    server.call("POST", "/sandboxes", { image: "stacyvm/busybox", memory_mb: 256, disk_mb: 256, volumes });
  const started = async (...volumes: Mount[]): Promise<string> => {
    const { status, body } = await spawn(volumes);
    assert.equal(status, 201, JSON.stringify(body));
    return body.id;
  };
  const sh = async (id: string, command: string): Promise<string> => {
    const { body } = await server.call("POST", `/sandboxes/${id}/exec`, { command });
    assert.equal(body.exit_code, 0, JSON.stringify(body));
    return body.stdout.trim();
  };
  const make = (name: string, size_mb = 64) => server.ok("POST", "/volumes", { name, size_mb });
  const remove = (id: string) => server.ok("DELETE", `/sandboxes/${id}`);
  const machinePid = async (id: string): Promise<number> =>
    JSON.parse(await readFile(join(server.root, "sandboxes", id, "sandbox.json"), "utf8")).process.pid;

  /** Of the volume that was made last. */
  const disk = async (): Promise<string> => {
    const root = join(server.root, "volumes");
    const names = await readdir(root);
    return join(root, names.at(-1) ?? "", "disk.ext4");
  };
  /** Nothing is repaired: it fails unless the filesystem is clean. */
  const assertClean = async (path: string): Promise<void> => {
    const found = await runTool("e2fsck", ["-fn", path], { env: { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" } });
    assert.doesNotMatch(found.toString(), /recover|WARNING/i);
  };
  const dropVolumes = async (): Promise<void> => {
    for (const { name } of await server.ok("GET", "/volumes")) await server.ok("DELETE", `/volumes/${name}`);
  };

  test("what was written, synced or not, is there after the sandbox's end, and the filesystem was closed", async () => {
    await make("data");
    const first = await started({ name: "data", path: "/data" });
    await sh(first, "mkdir -p /data/deep/er && seq 200000 > /data/deep/er/numbers");
    const { sandboxes } = await server.ok("GET", "/volumes/data");
    assert.deepEqual(sandboxes, [{ id: first, path: "/data", read_only: false }]);
    const taken = await spawn([{ name: "data", path: "/other" }]);
    assert.equal(taken.status, 409);
    assert.match(taken.body.message, /volume data is with sandbox sb-/);
    assert.equal((await server.call("DELETE", "/volumes/data")).status, 409);
    const unsaved = await server.call("POST", `/sandboxes/${first}/checkpoints`, { volumes: "refuse" });
    assert.equal(unsaved.status, 409);
    await remove(first);
    await assertClean(await disk());
    const readers = await Promise.all([1, 2].map(() => started({ name: "data", path: "/data", read_only: true })));
    for (const id of readers) assert.equal(await sh(id, "tail -n 1 /data/deep/er/numbers"), "200000");
    const refused = await server.call("POST", `/sandboxes/${readers[0]}/exec`, { command: "echo x > /data/x" });
    assert.notEqual(refused.body.exit_code, 0);
    await Promise.all(readers.map(remove));
    await dropVolumes();
  });

  test("a new one belongs to the user of the sandbox's commands; what somebody has written to stays as it is", async () => {
    const other = async (command: string): Promise<string> => {
      const shape = { image: "stacyvm/code-interpreter", memory_mb: 256, disk_mb: 256 };
      const { id } = await server.ok("POST", "/sandboxes", { ...shape, volumes: [{ name: "owned", path: "/data" }] });
      const said = await sh(id, command);
      await remove(id);
      return said;
    };
    await make("owned");
    const said = await other("id -u; echo mine > /data/word; stat -c %u /data /data/word");
    const [user = ""] = said.split("\n");
    assert.notEqual(user, "0");
    assert.equal(said, [user, user, user].join("\n"));
    const root = await started({ name: "owned", path: "/data" });
    assert.equal(await sh(root, "chown 0:0 /data; stat -c %u /data"), "0");
    await remove(root);
    assert.equal(await other("stat -c %u /data; cat /data/word"), "0\nmine");
    await dropVolumes();
  });

  test("a sandbox that was started again from the saved machine has the volume, too", async () => {
    await make("data", 200);
    const volumes = [{ name: "data", path: "/data" }];
    await server.ok("POST", "/snapshots", { image: "stacyvm/busybox", memory_mb: 256, disk_mb: 256, volumes });
    await server.ok("POST", "/templates", { name: "kept", image: "stacyvm/busybox", memory_mb: 256, volumes });
    for (let i = 1; i <= 4; i++) {
      const { status, body } =
        i < 4 ? await spawn(volumes) : await server.call("POST", "/sandboxes", { template: "kept", disk_mb: 256 });
      assert.equal(status, 201, JSON.stringify(body));
      assert.equal(body.boot.path, "restored");
      assert.equal(await sh(body.id, `echo ${i} >> /data/rounds; wc -l < /data/rounds`), String(i));
      await remove(body.id);
    }
    await dropVolumes();
  });

  test("pause and suspend hold it, also over a kill of the server", async () => {
    await make("data");
    const id = await started({ name: "data", path: "/data" });
    await server.ok("POST", `/sandboxes/${id}/processes`, {
      command: "i=0; while true; do i=$((i+1)); echo $i > /data/counter; sleep 0.05; done",
    });
    await sh(id, "until [ -s /data/counter ]; do sleep 0.05; done");
    for (const [there, back] of [
      ["pause", "resume"],
      ["suspend", "resume"],
    ]) {
      await sh(id, `echo ${there} >> /data/words`);
      await server.ok("POST", `/sandboxes/${id}/${there}`);
      assert.equal((await spawn([{ name: "data", path: "/data", read_only: true }])).status, 409);
      if (there === "suspend") await assertClean(await disk());
      await server.stop("SIGKILL");
      await server.start();
      assert.equal((await spawn([{ name: "data", path: "/data", read_only: true }])).status, 409);
      await server.ok("POST", `/sandboxes/${id}/${back}`);
      const before = await sh(id, "cat /data/counter");
      await sh(id, `until [ "$(cat /data/counter)" != "${before}" ]; do sleep 0.05; done`);
    }
    // Ended while it stands still: what its guest had in memory is written first.
    await sh(id, "echo last >> /data/words");
    await server.ok("POST", `/sandboxes/${id}/pause`);
    await remove(id);
    await assertClean(await disk());
    const next = await started({ name: "data", path: "/data", read_only: true });
    assert.equal(await sh(next, "cat /data/words"), "pause\nsuspend\nlast");
    await remove(next);
    await dropVolumes();
  });

  test("a copy has its own clone of the volume, with its programs at work in it, or reads it, or has lost it; its source goes on", async () => {
    await make("data");
    await make("shared");
    const writer = await started({ name: "shared", path: "/shared" });
    await sh(writer, "echo shared > /shared/word");
    await remove(writer);
    const id = await started({ name: "data", path: "/data" }, { name: "shared", path: "/shared", read_only: true });
    const fork = (request: object) => server.call("POST", `/sandboxes/${id}/fork`, request);
    await sh(id, "seq 100000 > /data/numbers"); // not synced
    const sum = await sh(id, "sha256sum < /data/numbers");
    const program =
      "echo $$ > /pid; exec 3> /data/log; while echo $((i = i + 1)) > /count && cat /count >&3; do sleep 0.05; done";
    await server.ok("POST", `/sandboxes/${id}/processes`, { command: program });
    await sh(id, "until [ -s /data/log ]; do sleep 0.05; done");
    // Its program has a file open to write.
    const busy = await fork({ volumes: "read_only" });
    assert.equal(busy.status, 409, JSON.stringify(busy.body));
    assert.match(busy.body.message, /volume data: programs of the sandbox have files of it open/);
    assert.deepEqual(
      (await server.ok("GET", "/volumes")).map(({ name }: Mount) => name),
      ["data", "shared"],
    );
    const copies: string[] = [];
    const { body } = await fork({ count: 2 });
    for (const copy of body.sandboxes) {
      copies.push(copy.id);
      assert.deepEqual(copy.volumes, [
        { name: `data-${copy.id}`, path: "/data", read_only: false },
        { name: "shared", path: "/shared", read_only: true },
      ]);
      assert.equal(await sh(copy.id, "sha256sum < /data/numbers"), sum);
      assert.equal(await sh(copy.id, "cat /shared/word"), "shared");
      const before = await sh(copy.id, "tail -n 1 /data/log");
      await sh(copy.id, `until [ "$(tail -n 1 /data/log)" -gt ${before} ]; do sleep 0.05; done`);
      await sh(copy.id, `echo ${copy.id} > /data/mine; sync`);
    }
    assert.equal(await sh(id, "ls /data"), "log\nlost+found\nnumbers");
    const lost = (await fork({ volumes: "none" })).body.sandboxes[0];
    assert.equal(lost.volumes, undefined);
    assert.equal(await sh(lost.id, "ls -A /data /shared; grep -c ext4 /proc/mounts || true"), "/data:\n\n/shared:\n0");
    assert.notEqual(
      (await server.call("POST", `/sandboxes/${lost.id}/exec`, { command: "sync /proc/$(cat /pid)/fd/3" })).body
        .exit_code,
      0,
    );
    const going = await sh(id, "tail -n 1 /data/log");
    await sh(id, `until [ "$(tail -n 1 /data/log)" -gt ${going} ]; do sleep 0.05; done; kill $(cat /pid)`);
    // What it had started may have the file open for a moment longer.
    await sh(id, "while ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q /data/log; do sleep 0.05; done");
    const forked = await fork({ volumes: "read_only" });
    assert.equal(forked.status, 201, JSON.stringify(forked.body));
    const [reader] = forked.body.sandboxes;
    assert.equal(
      await sh(reader.id, "sha256sum < /data/numbers; touch /data/x 2>/dev/null || echo refused"),
      `${sum}\nrefused`,
    );
    await Promise.all([id, lost.id, reader.id, ...copies].map(remove));
    for (const copy of [...copies, reader.id]) {
      const { used_bytes } = await server.ok("GET", `/volumes/data-${copy}`);
      assert.ok(used_bytes < 32 * 2 ** 20, String(used_bytes));
    }
    for (const name of await readdir(join(server.root, "volumes")))
      await assertClean(join(server.root, "volumes", name, "disk.ext4"));
    const next = await started({ name: `data-${copies[0]}`, path: "/data" });
    assert.equal(await sh(next, "cat /data/mine; sha256sum < /data/numbers"), `${copies[0]}\n${sum}`);
    await remove(next);
    await dropVolumes();
  });

  test("a checkpoint saves the volume with it: what starts from it goes on in a volume of its own, whatever has become of the first", async () => {
    await make("data");
    const id = await started({ name: "data", path: "/data" });
    await sh(id, "seq 100000 > /data/numbers"); // not synced
    const sum = await sh(id, "sha256sum < /data/numbers");
    const program = "exec 3> /data/log; while echo $((i = i + 1)) >&3; do sleep 0.05; done";
    await server.ok("POST", `/sandboxes/${id}/processes`, { command: program });
    await sh(id, "until [ -s /data/log ]; do sleep 0.05; done");
    const saved = await server.ok("POST", `/sandboxes/${id}/checkpoints`, {});
    assert.deepEqual(saved.volumes, [{ name: "data", path: "/data", read_only: false }]);
    await sh(id, "rm /data/numbers; seq 10 > /data/later; sync");
    assert.equal((await server.call("POST", `/sandboxes/${id}/restore`, { checkpoint: saved.id })).status, 409);
    await remove(id);
    await server.ok("DELETE", "/volumes/data");
    await server.stop("SIGKILL");
    await server.start();
    const copies = [];
    for (const _ of [1, 2]) copies.push(await server.ok("POST", "/sandboxes", { checkpoint: saved.id }));
    for (const copy of copies) {
      assert.deepEqual(copy.volumes, [{ name: `data-${copy.id}`, path: "/data", read_only: false }]);
      assert.equal(await sh(copy.id, "sha256sum < /data/numbers; ls /data"), `${sum}\nlog\nlost+found\nnumbers`);
      const before = await sh(copy.id, "tail -n 1 /data/log");
      await sh(copy.id, `until [ "$(tail -n 1 /data/log)" -gt ${before} ]; do sleep 0.05; done`);
    }
    await server.ok("DELETE", `/checkpoints/${saved.id}`);
    await Promise.all(copies.map((copy) => remove(copy.id)));
    const snapshots = join(server.root, "snapshots");
    const left = (await readdir(snapshots, { recursive: true })).filter((name) => /volume-\d/.test(name));
    assert.deepEqual(left, []);
    for (const name of await readdir(join(server.root, "volumes")))
      await assertClean(join(server.root, "volumes", name, "disk.ext4"));
    await dropVolumes();
  });

  test("a full volume is an error in the sandbox alone, a damaged one is named, and a clone is another one", async () => {
    await make("data", 16);
    const id = await started({ name: "data", path: "/data" });
    const full = await server.call("POST", `/sandboxes/${id}/exec`, {
      command: "dd if=/dev/zero of=/data/much bs=1M count=64",
    });
    assert.match(full.body.stderr, /[Nn]o space/);
    await remove(id);
    await server.ok("POST", "/volumes/data/clone", { name: "copy" });
    await server.ok("PATCH", "/volumes/copy", { size_mb: 128 });
    const both = await started({ name: "data", path: "/data" }, { name: "copy", path: "/copy" });
    await sh(both, "rm /data/much && [ -s /copy/much ] && dd if=/dev/zero of=/copy/more bs=1M count=64");
    await remove(both);
    await server.ok("DELETE", "/volumes/copy");
    await using file = await open(await disk(), "r+");
    await file.write(Buffer.alloc(65_536, 0x5a), 0, 65_536, 0);
    const damaged = await spawn([{ name: "data", path: "/data" }]);
    assert.equal(damaged.status, 500);
    assert.match(damaged.body.message, /volume data: it holds no ext4/);
    assert.deepEqual(await server.ok("GET", "/sandboxes"), []);
    await dropVolumes();
  });

  test("a disk of the host that fails is an error of the programs, an event names the volume, and the sandbox goes on and ends", {
    skip: isRoot() ? false : "only root can make a disk that fails",
  }, async () => {
    await make("data");
    await using failing = await failingDisk(dirname(await disk()), 96);
    const id = await started({ name: "data", path: "/data" });
    await sh(id, "seq 1000 > /data/numbers; sync");
    await failing.fail();
    const exec = async (command: string) => (await server.ok("POST", `/sandboxes/${id}/exec`, { command })).stderr;
    assert.match(await exec("seq 1000 > /data/more; sync /data/more"), /\/data\/more: Input\/output error/);
    assert.match(await exec("echo 3 > /proc/sys/vm/drop_caches; cat /data/numbers"), /Input\/output error/);
    const { events } = await server.ok("GET", "/events/history?type=volume.failed");
    assert.equal(events.length, 1);
    const [{ sandbox_id, data }] = events;
    assert.deepEqual([sandbox_id, data.volume, data.reason], [id, "data", "Input/output error"]);
    assert.equal(await sh(id, "echo word > /word; cat /word"), "word");
    await remove(id);
    const { status, body } = await spawn([{ name: "data", path: "/data" }]);
    assert.equal(status, 503, JSON.stringify(body));
    assert.match(body.message, /volume data: the host's disk fails \(EIO\)/);
    assert.deepEqual(await server.ok("GET", "/sandboxes"), []);
    await failing[Symbol.asyncDispose]();
    await dropVolumes();
  });

  test(`what was synced is there after each of ${KILLS} kills of machine and server, and the filesystem is whole`, async () => {
    await make("data", 64);
    const path = await disk();
    const sums = new Map<string, string>();
    /** What is left of a machine that was killed is removed beside, and has the volume until then: the server says to try again. */
    const startedAgain = async (): Promise<string> => {
      for (;;) {
        const { status, body } = await spawn([{ name: "data", path: "/data" }]);
        if (status === 201) return body.id;
        assert.match(JSON.stringify(body), /what is left of sandbox/);
      }
    };
    for (let round = 0; round < KILLS; round++) {
      const id = await startedAgain();
      for (const [name, sum] of sums)
        assert.equal((await sh(id, `sha256sum < /data/${name}`)).split(" ")[0], sum, name);
      const name = `file-${round}`;
      const written = await sh(
        id,
        `head -c $((4096 * (1 + ${round} % 64))) /dev/urandom > /data/${name} && sync /data/${name} && sha256sum < /data/${name}`,
      );
      sums.set(name, written.split(" ")[0] ?? "");
      // What is under way when it dies may be there or not.
      await server.ok("POST", `/sandboxes/${id}/processes`, {
        command:
          "i=0; while true; do i=$((i+1)); cp /data/file-0 /data/copy-$((i % 8)); rm -f /data/copy-$(((i+4) % 8)); done",
      });
      const pid = await machinePid(id);
      if (round % 3 === 2) {
        await server.stop("SIGKILL");
        process.kill(pid, "SIGKILL");
        await server.start();
      } else process.kill(pid, "SIGKILL");
      for (;;) {
        const { body } = await server.call("GET", `/sandboxes/${id}`);
        if (body.state === "error") break;
      }
      // Without its end being asked for: a machine that is gone has no volume.
      if (round % 2 === 0) await remove(id);
    }
    const last = await startedAgain();
    for (const [name, sum] of sums)
      assert.equal((await sh(last, `sha256sum < /data/${name}`)).split(" ")[0], sum, name);
    for (const { id } of await server.ok("GET", "/sandboxes")) await remove(id);
    await assertClean(path);
    await dropVolumes();
  });
});

test("no collection and no start of the server touches a volume that nobody has", async (t) => {
  const root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "collected-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  await writeFile(
    join(root, "stacyvm.yaml"),
    "snapshots: { max_bytes: 1, max_unused: 1s, checkpoints: true }\nimages: { max_bytes: 1 }\n",
  );
  // Its images are its own: they are collected, too.
  await symlink(dataPaths().assets, join(root, "assets"));
  await using server = await Server.open(root);
  await server.ok("POST", "/volumes", { name: "data", size_mb: 16 });
  await server.ok("POST", "/volumes/data/clone", { name: "saved", read_only: true });
  const place = join(root, "volumes");
  const all = async (): Promise<string[]> => {
    const names = (await readdir(place)).sort();
    const read = async (name: string) =>
      `${name} ${createHash("sha256")
        .update(await readFile(join(place, name, "disk.ext4")))
        .digest("hex")}`;
    return Promise.all(names.map(read));
  };
  const before = await all();
  assert.equal(before.length, 2);
  await server.ok("POST", "/snapshots/gc", { checkpoints: true });
  await server.ok("POST", "/images/gc", { max_bytes: 1 });
  await server.ok("DELETE", "/sandboxes");
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    await server.stop(signal);
    await server.start();
  }
  assert.deepEqual(await all(), before);
  const kept = await server.ok("GET", "/volumes");
  assert.deepEqual(kept.map(({ name }: Mount) => name).sort(), ["data", "saved"]);
});

describe("volumes of a server, Firecracker with the bare guest", { skip: (await whyNot()) ?? false }, () => {
  test("a volume is with a machine, and with the next one after it", async () => {
    await using server = await Server.create("warm: { adaptive: false }\nproviders: { default: firecracker }\n");
    await server.ok("POST", "/volumes", { name: "data", size_mb: 64 });
    const spawn = (read_only: boolean) =>
      server.call("POST", "/sandboxes", {
        ...{ image: "stacyvm/bare", memory_mb: 128, disk_mb: 64 },
        volumes: [{ name: "data", path: "/data", read_only }],
      });
    const first = await spawn(false);
    assert.equal(first.status, 201, JSON.stringify(first.body));
    const block = async (id: string, command: string): Promise<string> => {
      const asked = { mode: "argv", command: "block", args: command.split(" ") };
      const { body } = await server.call("POST", `/sandboxes/${id}/exec`, asked);
      assert.equal(body.exit_code, 0, JSON.stringify(body));
      return body.stdout.trim();
    };
    await block(first.body.id, "write 2 mine");
    assert.equal((await spawn(false)).status, 409);
    assert.equal((await spawn(true)).status, 409);
    await server.stop("SIGKILL");
    await server.start();
    assert.equal((await spawn(true)).status, 409);
    await server.ok("DELETE", `/sandboxes/${first.body.id}`);
    for (let i = 0; i < 3; i++) {
      const reader = await spawn(true);
      assert.equal(reader.status, 201, JSON.stringify(reader.body));
      assert.equal(await block(reader.body.id, "read 2"), "mine");
    }
    assert.equal((await spawn(false)).status, 409);
  });
});
