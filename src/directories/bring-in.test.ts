/** What a guest has open to write, and how it comes into a copy's layer. */
import assert from "node:assert/strict";
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { directoryHelperPath } from "../host/directory-helper.ts";
import { dataPaths } from "../host/paths.ts";
import { bringIn } from "./bring-in.ts";
import { FuseClient, Op, ROOT, u32, u64 } from "./fuse-client.ts";
import { startHelper } from "./helper.ts";

const O_RDWR = 2;

async function world(t: TestContext) {
  const outside = await mkdtemp(join(tmpdir(), "bring-in-"));
  t.after(() => rm(outside, { recursive: true, force: true }));
  const [dir, machine] = [join(outside, "dir"), join(outside, "data/sb")];
  await mkdir(join(dir, "sub"), { recursive: true });
  await mkdir(machine, { recursive: true });
  const program = directoryHelperPath(dataPaths().assets);
  const options = { program, hidden: join(outside, "data"), machineDir: () => machine };
  const directory = { source: dir, path: "/work", readOnly: false, uid: 0, gid: 0 };
  return { dir, machine, options, directory };
}

test("a helper says which files are open to write, whatever is asked of it meanwhile, and none when they are closed", async (t) => {
  const { dir, options, directory } = await world(t);
  for (const name of ["read", "written", "sub/wri\nten", "gone"]) await writeFile(join(dir, name), name);
  await using helper = await startHelper(options, directory);
  assert.deepEqual(await helper.openToWrite(), []);
  const fuse = new FuseClient(helper);
  await fuse.open(await fuse.lookup(ROOT, "read"));
  const handles: bigint[] = [];
  for (const names of [["written"], ["written"], ["sub", "wri\nten"], ["gone"]])
    handles.push(await fuse.open(await fuse.lookup(ROOT, ...names), O_RDWR));
  await fuse.good(Op.UNLINK, ROOT, Buffer.from("gone\0"));
  const [paths] = await Promise.all([
    helper.openToWrite(),
    ...Array.from({ length: 200 }, () => fuse.lookup(ROOT, "sub", "wri\nten")),
  ]);
  assert.deepEqual(paths.map(String).sort(), ["sub/wri\nten", "written"]);
  for (const handle of handles) await fuse.good(Op.RELEASE, 0n, u64(handle), u32(0, 0), u64(0));
  assert.deepEqual(await helper.openToWrite(), []);
});

test("what is brought in stays as it was whatever the host does with it; the rest is the host's; too much is refused", async (t) => {
  const { dir, machine, options, directory } = await world(t);
  await writeFile(join(dir, "sub/open"), "as it was");
  await writeFile(join(dir, "other"), "other");
  await writeFile(join(dir, "large"), Buffer.alloc(2 ** 20, 1));
  const layered = { ...directory, layer: { name: "0", bytes: 2 ** 19 } };
  await bringIn(
    options,
    layered,
    ["sub/open", "sub/never", "no/such"].map((path) => Buffer.from(path)),
  );
  await appendFile(join(dir, "sub/open"), ", and more");
  await appendFile(join(dir, "other"), ", and more");
  await unlink(join(dir, "sub/open"));
  const upper = await readdir(join(machine, "layers/0/upper"), { recursive: true });
  assert.deepEqual(upper.sort(), ["sub", "sub/open"]);
  await using helper = await startHelper(options, layered);
  const fuse = new FuseClient(helper);
  const read = async (...names: string[]): Promise<string> =>
    (await fuse.read(await fuse.open(await fuse.lookup(ROOT, ...names)))).body.toString();
  assert.equal(await read("sub", "open"), "as it was");
  assert.equal(await read("other"), "other, and more");
  await assert.rejects(bringIn(options, layered, [Buffer.from("large")]), {
    code: "limit",
    message: /large is open to write and cannot be copied: the copy's own layer has no room for it/,
  });
  assert.equal((await readFile(join(dir, "large"))).length, 2 ** 20);
});
