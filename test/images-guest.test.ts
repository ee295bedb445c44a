/**
 * What a guest sees of a pulled image, beside what `umoci unpack` makes of the same one. The short form runs always;
 * `IMAGES_SIZE=full` takes 100,000 small files and an image of 3 GiB.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { sandboxId } from "../bench/spawning.ts";
import { dataPaths } from "../src/host/paths.ts";
import { directoryLayer } from "../src/images/directory.ts";
import { createImages } from "../src/images/store.ts";
import { readTar } from "../src/images/tar.ts";
import { Launcher } from "../src/launcher/launcher.ts";
import { removeMachineDir } from "../src/launcher/machine-dir.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { makeTree, type TreeSize, treeImage } from "./image-fixture.ts";
import { push, type Registry, run, scratch, startRegistry } from "./images-support.ts";
import { scratchPaths } from "./launcher-support.ts";

const FULL = process.env.IMAGES_SIZE === "full";

let work: Awaited<ReturnType<typeof scratch>>;
let registry: Registry;

before(async () => {
  work = await scratch();
  registry = await startRegistry(join(work.path, "registry-data"));
});
after(async () => {
  await registry[Symbol.asyncDispose]();
  await work[Symbol.asyncDispose]();
});

interface Seen {
  type: string;
  mode: number;
  uid: number;
  gid: number;
  link: string;
  size: number;
  sha256: string;
  /** The first of the names that share the file, where several do. */
  same: string;
}

/** Every entry of an archive of a tree, by path. Which name of a hard link comes first is the archive's affair, not the tree's. */
async function entries(tar: AsyncIterable<Uint8Array>): Promise<Map<string, Seen>> {
  const found = new Map<string, Seen>();
  const groups = new Map<string, string[]>();
  const name = (path: string): string => path.replace(/^(\.?\/)+/, "").replace(/\/$/, "");
  await readTar(tar, async (entry, body) => {
    const path = name(entry.path);
    if (path === "") return;
    if (entry.type === "hardlink") {
      const first = name(entry.link);
      groups.set(first, [...(groups.get(first) ?? [first]), path]);
      return;
    }
    const hash = createHash("sha256");
    let size = 0;
    for await (const chunk of body) {
      hash.update(chunk);
      size += chunk.length;
    }
    const { type, mode, uid, gid, link } = entry;
    found.set(path, { type, mode, uid, gid, link, size, sha256: hash.digest("hex"), same: "" });
  });
  for (const [first, names] of groups) {
    const seen = found.get(first);
    assert.ok(seen, first);
    const [same = ""] = [...names].sort();
    for (const path of names) found.set(path, { ...seen, same });
  }
  return found;
}

async function compare(name: string, size: TreeSize): Promise<void> {
  const paths = { ...(await scratchPaths()), images: join(work.path, `images-${name}`) };
  const tree = join(work.path, `tree-${name}`);
  const layout = join(work.path, `layout-${name}`);
  await mkdir(tree);
  await makeTree(tree, size, createImages(dataPaths()));
  await treeImage(tree, layout, "1");
  await push(layout, "1", `${registry.host}/tree/${name}:1`);
  const bundle = join(work.path, `bundle-${name}`);
  const rootless = process.getuid?.() === 0 ? [] : ["--rootless"];
  await run("umoci", ["unpack", ...rootless, "--image", `${layout}:1`, bundle]);
  const theirs = await entries(directoryLayer(join(bundle, "rootfs", "data"), true).open(undefined));
  const images = createImages(paths, { credentialFiles: [] });
  const launcher = new Launcher({ vmm: createQemu(), images, paths });
  try {
    const spec = {
      image: `${registry.host}/tree/${name}:1`,
      vcpus: 1,
      memoryMiB: 512,
      diskMiB: 64,
      setup: [],
      setupEnv: {},
    };
    const launched = await launcher.launch(spec, { id: sandboxId(), mode: "cold" });
    try {
      const ours = await entries(await launched.agent.tarOut("/data"));
      assert.equal(ours.size, theirs.size);
      for (const [path, entry] of theirs) assert.deepEqual(ours.get(path), entry, path);
      const bytes = [...theirs.values()].reduce((sum, entry) => sum + entry.size, 0);
      process.stdout.write(`# ${name}: ${theirs.size} names, ${(bytes / 2 ** 20).toFixed(0)} MiB equal\n`);
    } finally {
      await launched.agent.close();
      await launched.machine.kill();
      launched.releaseSnapshot();
      await removeMachineDir(launched.dir);
    }
  } finally {
    await launcher.close();
  }
}

test("many small files: every path, type, mode, owner, target, size and content as umoci unpacks them", () =>
  compare("many", { bytes: 0, smallFiles: FULL ? 100_000 : 4_000 }));

test("a large image: the same", () => compare("large", { bytes: (FULL ? 3072 : 48) * 2 ** 20, smallFiles: 0 }));
