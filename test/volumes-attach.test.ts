/** Volumes that are attached and detached while a sandbox runs, on a real server. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { runTool } from "../src/host/run.ts";
import { whyNot } from "./firecracker-support.ts";
import { Server } from "./server-support.ts";

interface Place {
  name: string;
  path: string;
  read_only?: boolean;
}

class Volumes {
  readonly server: Server;

  constructor(server: Server) {
    this.server = server;
  }

  async start(about: object): Promise<string> {
    const size = { image: "stacyvm/busybox", memory_mb: 256, disk_mb: 256 };
    const { status, body } = await this.server.call("POST", "/sandboxes", { ...size, ...about });
    assert.equal(status, 201, JSON.stringify(body));
    return body.id;
  }

  async sh(id: string, command: string): Promise<string> {
    const { body } = await this.server.call("POST", `/sandboxes/${id}/exec`, { command });
    assert.equal(body.exit_code, 0, JSON.stringify(body));
    return body.stdout.trim();
  }

  make(name: string, size_mb = 64): Promise<unknown> {
    return this.server.ok("POST", "/volumes", { name, size_mb });
  }

  attach(id: string, place: Place) {
    return this.server.call("POST", `/sandboxes/${id}/volumes`, place);
  }

  async attached(id: string, place: Place): Promise<void> {
    const { status, body } = await this.attach(id, place);
    assert.equal(status, 200, JSON.stringify(body));
  }

  detach(id: string, name: string, force = false) {
    return this.server.call("DELETE", `/sandboxes/${id}/volumes/${name}${force ? "?force=true" : ""}`);
  }

  async detached(id: string, name: string, force = false): Promise<void> {
    const { status, body } = await this.detach(id, name, force);
    assert.equal(status, 200, JSON.stringify(body));
  }

  remove(id: string): Promise<unknown> {
    return this.server.ok("DELETE", `/sandboxes/${id}`);
  }

  /** All of them are whole and were closed; then they go. */
  async assertCleanAndDrop(): Promise<void> {
    const root = join(this.server.root, "volumes");
    for (const name of await readdir(root)) {
      const env = { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" };
      const found = await runTool("e2fsck", ["-fn", join(root, name, "disk.ext4")], { env });
      assert.doesNotMatch(found.toString(), /recover|WARNING/i);
    }
    for (const { name } of await this.server.ok("GET", "/volumes")) await this.server.ok("DELETE", `/volumes/${name}`);
  }
}

describe("volumes that come and go, QEMU with Linux guests", () => {
  let server: Server;
  let at: Volumes;
  before(async () => {
    server = await Server.create("warm: { adaptive: false }\nproviders: { default: qemu }\n");
    at = new Volumes(server);
  });
  after(() => server[Symbol.asyncDispose]());

  test("a volume is attached, used, and with another sandbox after it was detached; its place takes others, larger ones too", async () => {
    await at.make("data");
    await at.make("large", 2_000);
    const without = await at.start({});
    const refused = await at.attach(without, { name: "data", path: "/data" });
    assert.equal(refused.status, 409);
    assert.match(`${refused.body.message} ${refused.body.remedy}`, /no free place.*--volume-slots 1/);
    const id = await at.start({ volume_slots: 1, volume_slots_read_only: 1 });
    const { free_volume_slots } = await server.ok("GET", `/sandboxes/${id}`);
    assert.deepEqual(free_volume_slots, { volume_slots: 1, volume_slots_read_only: 1 });
    for (const [round, name] of ["data", "large", "data"].entries()) {
      await at.attached(id, { name, path: "/data" });
      assert.equal((await at.attach(id, { name, path: "/other" })).status, 409);
      await at.sh(id, `echo ${round} >> /data/rounds; head -c 3000000 /dev/urandom > /data/${round}`);
      assert.equal(
        (await server.call("POST", "/sandboxes", { image: "stacyvm/busybox", volumes: [{ name, path: "/d" }] })).status,
        409,
      );
      await at.detached(id, name);
      assert.equal(await at.sh(id, "grep -c /data /proc/mounts || true; ls /data"), "0");
    }
    const other = await at.start({ volumes: [{ name: "data", path: "/data" }] });
    assert.equal(await at.sh(other, "cat /data/rounds"), "0\n2");
    await at.remove(other);
    for (const name of ["data", "large"]) {
      await at.attached(id, { name, path: "/read", read_only: true });
      assert.equal(
        await at.sh(id, "ls /read | grep -c rounds; touch /read/x 2>/dev/null || echo refused"),
        "1\nrefused",
      );
      const device = "$(awk '$2 == \"/read\" { print $1 }' /proc/mounts)";
      assert.equal(
        await at.sh(id, `dd if=/dev/zero of=${device} bs=512 count=1 2>/dev/null || echo refused`),
        "refused",
      );
      await at.detached(id, name);
    }
    for (const each of [id, without]) await at.remove(each);
    await at.assertCleanAndDrop();
  });

  test("what programs hold is not detached, and they are named; by force they lose it, and its place is used up", async () => {
    await at.make("data");
    const id = await at.start({ volume_slots: 1 });
    await at.attached(id, { name: "data", path: "/data" });
    await server.ok("POST", `/sandboxes/${id}/processes`, {
      command: "exec 3> /data/log; while echo x >&3; do sleep 0.05; done; sleep 1000",
    });
    await at.sh(id, "until [ -s /data/log ]; do sleep 0.05; done");
    const held = await at.detach(id, "data");
    assert.equal(held.status, 409);
    assert.match(held.body.message, /volume data: programs of the sandbox .*: \w+ \(\d+\)/);
    const before = await at.sh(id, "wc -l < /data/log");
    await at.sh(id, `until [ "$(wc -l < /data/log)" -gt ${before} ]; do sleep 0.05; done`);
    // Another mount namespace is a holder, too.
    await at.detached(id, "data", true);
    const { free_volume_slots, volumes } = await server.ok("GET", `/sandboxes/${id}`);
    assert.deepEqual([free_volume_slots.volume_slots, volumes], [0, undefined]);
    assert.equal((await at.attach(id, { name: "data", path: "/data" })).status, 409);
    const other = await at.start({ volumes: [{ name: "data", path: "/data" }] });
    assert.notEqual(await at.sh(other, "wc -l < /data/log"), "0");
    for (const each of [id, other]) await at.remove(each);
    await at.assertCleanAndDrop();
  });

  test("what was attached is there after pause, suspend and kills of the server, in copies and from a checkpoint; all can attach more", async () => {
    await at.make("data");
    await at.make("more");
    const id = await at.start({ volume_slots: 2 });
    const empty = await server.ok("POST", `/sandboxes/${id}/checkpoints`, {});
    await at.attached(id, { name: "data", path: "/data" });
    await at.sh(id, "echo first > /data/word");
    for (const there of ["pause", "suspend"]) {
      await server.ok("POST", `/sandboxes/${id}/${there}`);
      assert.equal((await at.attach(id, { name: "more", path: "/more" })).status, 409);
      await server.stop("SIGKILL");
      await server.start();
      await server.ok("POST", `/sandboxes/${id}/resume`);
      assert.equal(
        await at.sh(id, `cat /data/word; echo ${there} >> /data/words; wc -l < /data/words`),
        `first\n${there === "pause" ? 1 : 2}`,
      );
      await at.attached(id, { name: "more", path: "/data/more" });
      await at.sh(id, "echo more > /data/more/word");
      // One lies in it.
      assert.equal((await at.detach(id, "data")).status, 409);
      await at.detached(id, "more");
    }
    const saved = await server.ok("POST", `/sandboxes/${id}/checkpoints`, {});
    const { sandboxes } = await server.ok("POST", `/sandboxes/${id}/fork`, {});
    const copy = sandboxes[0].id;
    const again = (await server.ok("POST", "/sandboxes", { checkpoint: saved.id })).id;
    for (const each of [copy, again]) {
      assert.equal(await at.sh(each, "cat /data/word"), "first");
      await at.attached(each, { name: "more", path: "/more" });
      assert.equal(await at.sh(each, "cat /more/word"), "more");
      await at.detached(each, "more");
      await at.detached(each, `data-${each}`);
      await at.attached(each, { name: "more", path: "/more" });
      await at.remove(each);
    }
    const back = () => server.call("POST", `/sandboxes/${id}/restore`, { checkpoint: empty.id });
    assert.equal((await back()).status, 409);
    await at.detached(id, "data");
    const { status, body } = await back();
    assert.equal(status, 200, JSON.stringify(body));
    await at.attached(id, { name: "data", path: "/data" });
    assert.equal(await at.sh(id, "cat /data/word"), "first");
    await at.remove(id);
    await at.assertCleanAndDrop();
  });
});

describe("volumes that come and go, Firecracker with the bare guest", { skip: (await whyNot()) ?? false }, () => {
  test("a volume is attached and detached, and its place is used again", async () => {
    await using server = await Server.create("warm: { adaptive: false }\nproviders: { default: firecracker }\n");
    const at = new Volumes(server);
    await at.make("data");
    await at.make("other");
    const bare = { image: "stacyvm/bare", memory_mb: 128, disk_mb: 64 };
    const id = await at.start({ ...bare, volume_slots: 1, volume_slots_read_only: 1 });
    const block = async (command: string): Promise<string> => {
      const asked = { mode: "argv", command: "block", args: command.split(" ") };
      const { body } = await server.call("POST", `/sandboxes/${id}/exec`, asked);
      assert.equal(body.exit_code, 0, JSON.stringify(body));
      return body.stdout.trim();
    };
    for (const name of ["data", "other"]) {
      await at.attached(id, { name, path: "/data" });
      await block(`write 2 ${name}`);
      await at.detached(id, name);
      assert.notEqual(await block("read 2"), name);
    }
    for (const name of ["data", "other"]) {
      await at.attached(id, { name, path: "/read", read_only: true });
      assert.equal(await block("read 3"), name);
      await at.detached(id, name);
    }
    await at.attached(id, { name: "data", path: "/data" });
    await server.ok("POST", `/sandboxes/${id}/suspend`);
    await server.ok("POST", `/sandboxes/${id}/resume`);
    assert.equal(await block("read 2"), "data");
    await at.detached(id, "data");
    await at.remove(id);
  });
});
