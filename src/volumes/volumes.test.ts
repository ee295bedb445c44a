import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { access, mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { gunzipSync, gzipSync } from "node:zlib";
import { runTool } from "../host/run.ts";
import type { VolumeRecord } from "./record.ts";
import { Volumes, type VolumesParts, type VolumeUser } from "./volumes.ts";

interface World {
  root: string;
  volumes: Volumes;
  rows: Map<string, VolumeRecord>;
  users: Map<string, VolumeUser[]>;
  machines: Set<string>;
  /** Another server on the same files and rows. */
  again(): Promise<Volumes>;
}

async function world(t: TestContext, over: Partial<VolumesParts> = {}): Promise<World> {
  const dir = await mkdtemp(join(tmpdir(), "volumes-"));
  t.after(() => rm(dir, { recursive: true }));
  const root = join(dir, "volumes");
  const rows = new Map<string, VolumeRecord>();
  const users = new Map<string, VolumeUser[]>();
  const machines = new Set<string>();
  const parts: VolumesParts = {
    root,
    rows: {
      documents: <T>() => [...rows.values()] as T[],
      putDocument: async (_kind, record) => void rows.set(record.id, record as VolumeRecord),
      deleteDocument: async (_kind, id) => void rows.delete(id),
    },
    limits: { maxVolumes: 0, maxVolumeMiB: 0 },
    now: () => 1_000,
    users: (id) => users.get(id) ?? [],
    hasMachine: async (sandbox) => machines.has(sandbox),
    log: { warn() {} },
    ...over,
  };
  const again = async (): Promise<Volumes> => {
    const volumes = new Volumes(parts);
    await volumes.open();
    return volumes;
  };
  return { root, rows, users, machines, again, volumes: await again() };
}

const use = (sandbox: string, readOnly: boolean): VolumeUser => ({ sandbox, readOnly, path: "/data" });

test("a volume is an ext4 of its size that occupies little, that nobody else may open, and that the next server has", async (t) => {
  const { root, volumes, again } = await world(t);
  const made = await volumes.create("alice", { name: "data", sizeMiB: 512 });
  const path = join(root, made.id, "disk.ext4");
  const { size, mode } = await stat(path);
  assert.deepEqual([size, mode & 0o777, (await stat(root)).mode & 0o777], [512 * 2 ** 20, 0o600, 0o700]);
  assert.ok((made.usedBytes ?? 0) < 2 * 2 ** 20, String(made.usedBytes));
  const env = { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" };
  assert.match((await runTool("e2fsck", ["-fn", path], { env })).toString(), /files \(/);
  const next = await again();
  assert.equal((await next.get("alice", "data")).id, made.id);
  await assert.rejects(next.get("bob", "data"), { code: "not-found" });
  assert.deepEqual(await next.list("bob"), []);
  await next.remove("alice", "data");
  assert.deepEqual([await readdir(root), await next.list()], [[], []]);
});

test("names and sizes that cannot be are refused, and a name is an owner's once", async (t) => {
  const { volumes } = await world(t);
  for (const name of ["", "Data", "a/b", "../x", "-a", "a".repeat(64)])
    await assert.rejects(volumes.create("alice", { name, sizeMiB: 64 }), { code: "invalid" }, name);
  for (const sizeMiB of [0, 15, 1.5, 2 ** 24])
    await assert.rejects(volumes.create("alice", { name: "a", sizeMiB }), { code: "invalid" }, String(sizeMiB));
  const both = await Promise.allSettled([1, 2].map(() => volumes.create("alice", { name: "one", sizeMiB: 64 })));
  assert.deepEqual(both.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
  await volumes.create("bob", { name: "one", sizeMiB: 64 });
});

test("an owner has so many volumes, and so much in them", async (t) => {
  const { volumes } = await world(t, { limits: { maxVolumes: 2, maxVolumeMiB: 200 } });
  await volumes.create("alice", { name: "a", sizeMiB: 64 });
  await assert.rejects(volumes.create("alice", { name: "b", sizeMiB: 137 }), { code: "limit" });
  await volumes.create("alice", { name: "b", sizeMiB: 64 });
  await assert.rejects(volumes.create("alice", { name: "c", sizeMiB: 16 }), { code: "limit" });
  await assert.rejects(volumes.resize("alice", "b", 137), { code: "limit" });
  assert.equal((await volumes.resize("alice", "b", 136)).bytes, 136 * 2 ** 20);
  await volumes.create("bob", { name: "a", sizeMiB: 200 });
});

test("one sandbox writes, or any number read, and what one has is neither removed, resized nor copied under it", async (t) => {
  const { volumes, users } = await world(t);
  const made = await volumes.create("alice", { name: "data", sizeMiB: 64 });
  users.set(made.id, [use("sb-1", true), use("sb-2", true)]);
  volumes.assertAvailable(made, true);
  assert.throws(() => volumes.assertAvailable(made, false), { code: "conflict", message: /data is with sandbox sb-1/ });
  await assert.rejects(volumes.remove("alice", "data"), { code: "conflict" });
  await assert.rejects(volumes.resize("alice", "data", 128), { code: "conflict" });
  await volumes.clone("alice", "data", { name: "copy", frozen: false });
  users.set(made.id, [use("sb-3", false)]);
  assert.throws(() => volumes.assertAvailable(made, true), { code: "conflict", message: /which may write to it/ });
  await assert.rejects(volumes.clone("alice", "data", { name: "other", frozen: false }), { code: "conflict" });
  users.delete(made.id);
  volumes.assertAvailable(made, false);
});

test("what is left of a machine keeps its volume until it is gone, whatever the sandbox's row says, also for the next server", async (t) => {
  const { volumes, machines, again } = await world(t);
  const made = await volumes.create("alice", { name: "data", sizeMiB: 64 });
  await volumes.lease(made, "sb-1", false);
  // It has ended for everybody, and its monitor would not die.
  machines.add("sb-1");
  await volumes.release(made, "sb-1", false);
  const next = await again();
  for (const each of [volumes, next]) {
    await assert.rejects(each.lease(made, "sb-2", true), { code: "conflict", message: /left of sandbox sb-1/ });
    await assert.rejects(each.remove("alice", "data"), { code: "conflict" });
    await assert.rejects(each.clone("alice", "data", { name: "copy", frozen: false }), { code: "conflict" });
  }
  machines.delete("sb-1");
  const { file, bytes } = await next.lease(made, "sb-2", true);
  assert.equal(bytes, (await stat(file)).size);
  // A reader's remains are in nobody's way who reads.
  machines.add("sb-2");
  await next.lease(made, "sb-3", true);
  await assert.rejects(next.lease(made, "sb-4", false), { code: "conflict" });
});

test("a snapshot holds what there was, can be read and cloned, and never changes", async (t) => {
  const { root, volumes } = await world(t);
  const made = await volumes.create("alice", { name: "data", sizeMiB: 64 });
  const path = join(root, made.id, "disk.ext4");
  await writeFile(path, "before", { flag: "r+" });
  const saved = await volumes.clone("alice", "data", { name: "monday", frozen: true });
  await writeFile(path, "after!", { flag: "r+" });
  assert.deepEqual([saved.frozen, saved.from], [true, "data"]);
  volumes.assertAvailable(saved, true);
  assert.throws(() => volumes.assertAvailable(saved, false), { code: "conflict", message: /is a snapshot/ });
  await assert.rejects(volumes.resize("alice", "monday", 128), { code: "conflict" });
  const back = await volumes.clone("alice", "monday", { name: "again", frozen: false });
  const { stdout } = { stdout: await runTool("head", ["-c", "6", join(root, back.id, "disk.ext4")]) };
  assert.equal(stdout.toString(), "before");
  assert.equal((await stat(join(root, back.id, "disk.ext4"))).mode & 0o777, 0o600);
});

test("of a volume that was not closed in order there can be a clone, and a snapshot once it was closed", async (t) => {
  const { root, volumes } = await world(t);
  const made = await volumes.create("alice", { name: "data", sizeMiB: 16 });
  await using disk = await open(join(root, made.id, "disk.ext4"), "r+");
  const features = Buffer.alloc(4);
  await disk.read(features, 0, 4, 1024 + 0x60);
  const mark = (bits: number) => disk.write(Buffer.from([(features[0] ?? 0) | bits]), 0, 1, 1024 + 0x60);
  await mark(4);
  await assert.rejects(volumes.clone("alice", "data", { name: "saved", frozen: true }), {
    code: "conflict",
    message: /was not closed in order/,
    remedy: /write to it once, or clone it/,
  });
  await volumes.clone("alice", "data", { name: "copy", frozen: false });
  await mark(0);
  await volumes.clone("alice", "data", { name: "saved", frozen: true });
});

test("a start removes what was half made, finishes what was being removed, and leaves what it does not know", async (t) => {
  const { root, volumes, rows, again } = await world(t);
  const kept = await volumes.create("alice", { name: "kept", sizeMiB: 16 });
  const going = await volumes.create("alice", { name: "going", sizeMiB: 16 });
  await mkdir(join(root, "vol-00000001.new"));
  await mkdir(join(root, "vol-00000002"));
  await runTool("mv", [join(root, going.id), join(root, `${going.id}.removed`)]);
  const next = await again();
  assert.deepEqual((await readdir(root)).sort(), ["vol-00000002", kept.id].sort());
  assert.deepEqual([...rows.keys()], [kept.id]);
  assert.deepEqual(
    (await next.list()).map(({ name }) => name),
    ["kept"],
  );
});

test("what could not be made leaves nothing, and a file that is gone is said", async (t) => {
  const { root, volumes, rows } = await world(t);
  const made = await volumes.create("alice", { name: "data", sizeMiB: 16 });
  await rm(join(root, made.id, "disk.ext4"));
  assert.equal((await volumes.get("alice", "data")).usedBytes, undefined);
  await assert.rejects(volumes.lease(made, "sb-1", false), { code: "corrupt", message: /file of volume data/ });
  await assert.rejects(volumes.clone("alice", "data", { name: "copy", frozen: false }));
  assert.deepEqual(
    [...rows.values()].map(({ name }) => name),
    ["data"],
  );
  assert.deepEqual(await readdir(root), [made.id]);
  await assert.rejects(access(join(root, `${made.id}.new`)));
});

async function bytesOf(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}

async function* pieces(data: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < data.length; at += 10_000) yield data.subarray(at, at + 10_000);
}

test("an export is the disk itself, packed, and makes the same volume again, as sparse as it was", async (t) => {
  const { root, volumes } = await world(t);
  const made = await volumes.create("alice", { name: "data", sizeMiB: 256 });
  const path = join(root, made.id, "disk.ext4");
  await using file = await open(path, "r+");
  const word = randomBytes(70_000);
  await file.write(word, 0, word.length, 100 * 2 ** 20 - 5_000);
  const packed = await bytesOf(await volumes.export("alice", "data"));
  assert.ok(packed.length < 2 * 2 ** 20, String(packed.length));
  const digest = async (of: string): Promise<string> =>
    createHash("sha256")
      .update(await readFile(of))
      .digest("hex");
  assert.equal(createHash("sha256").update(gunzipSync(packed)).digest("hex"), await digest(path));
  const again = await volumes.import("bob", "back", pieces(packed));
  const copy = join(root, again.id, "disk.ext4");
  assert.deepEqual([again.bytes, await digest(copy)], [made.bytes, await digest(path)]);
  assert.ok((await stat(copy)).blocks <= (await stat(path)).blocks + 64);
});

test("what is nothing takes a thousandth of itself in an export, whether the filesystem says so or not", async (t) => {
  const { root, volumes } = await world(t);
  const made = await volumes.create("alice", { name: "data", sizeMiB: 2_048 });
  const holes = await bytesOf(await volumes.export("alice", "data"));
  await using file = await open(join(root, made.id, "disk.ext4"), "r+");
  await file.write(Buffer.alloc(100 * 2 ** 20), 0, 100 * 2 ** 20, 1_900 * 2 ** 20);
  const written = await bytesOf(await volumes.export("alice", "data"));
  assert.ok(holes.length < 2.5 * 2 ** 20, String(holes.length));
  assert.equal(written.length, holes.length);
});

test("what is no export is refused, too much as well, and nothing of it stays", async (t) => {
  const { root, volumes, rows } = await world(t, { limits: { maxVolumes: 0, maxVolumeMiB: 64 } });
  const made = await volumes.create("alice", { name: "data", sizeMiB: 32 });
  const packed = await bytesOf(await volumes.export("alice", "data"));
  for (const [bad, code] of [
    [Buffer.from("no gzip"), "invalid"],
    [Buffer.alloc(0), "invalid"],
    [packed.subarray(0, packed.length - 9), "invalid"],
    [gzipSync(Buffer.alloc(16 * 2 ** 20)), "invalid"],
    [gzipSync(Buffer.alloc(12_345)), "invalid"],
    [gzipSync(Buffer.alloc(33 * 2 ** 20)), "limit"],
  ] as const)
    await assert.rejects(volumes.import("alice", "bad", pieces(bad)), { code });
  assert.deepEqual([[...rows.keys()], await readdir(root)], [[made.id], [made.id]]);
  await volumes.import("alice", "good", pieces(packed));
});

test("nobody is given a volume that is being exported, until the stream has ended, read or not", async (t) => {
  const { volumes } = await world(t);
  const made = await volumes.create("alice", { name: "data", sizeMiB: 64 });
  for (const end of [
    (stream: ReadableStream<Uint8Array>) => stream.cancel(),
    (stream: ReadableStream<Uint8Array>) => bytesOf(stream),
  ]) {
    const stream = await volumes.export("alice", "data");
    assert.throws(() => volumes.assertAvailable(made, false), { code: "conflict", message: /being exported/ });
    await assert.rejects(volumes.remove("alice", "data"), { code: "conflict" });
    await end(stream);
    volumes.assertAvailable(made, false);
  }
});

test("what an owner's volumes take is told beside what they may take, to an owner that has none, too", async (t) => {
  const { volumes } = await world(t, { limits: { maxVolumes: 3, maxVolumeMiB: 100 } });
  await volumes.create("alice", { name: "one", sizeMiB: 16 });
  await volumes.create("alice", { name: "two", sizeMiB: 32 });
  await volumes.create("bob", { name: "one", sizeMiB: 16 });
  const [alice, bob] = await volumes.usage();
  assert.deepEqual([alice?.owner, alice?.volumes, alice?.bytes, bob?.owner], ["alice", 2, 48 * 2 ** 20, "bob"]);
  const listed = await volumes.list("alice");
  assert.equal(
    alice?.usedBytes,
    listed.reduce((sum, { usedBytes = 0 }) => sum + usedBytes, 0),
  );
  assert.ok((alice?.usedBytes ?? 0) > 0);
  assert.deepEqual(await volumes.usage("bob"), [bob]);
  assert.deepEqual(await volumes.usage("carol"), [
    { owner: "carol", volumes: 0, bytes: 0, usedBytes: 0, maxVolumes: 3, maxVolumeMiB: 100 },
  ]);
});
