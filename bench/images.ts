/**
 * Images from a registry: pull and build beside the same by hand (`skopeo copy`, `umoci unpack`, `mke2fs -d`), and starting sandboxes
 * of images of three sizes, on EROFS as we write it and on ext4 of the same tree, all in one run and in turns.
 * `npm run -s bench -- images [--sizes=64,500,3072] [--n=15]` (MiB); needs docker-registry, skopeo and umoci, and the disk space of
 * about six times the images.
 */
import { mkdir, mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createEngine } from "../src/cli/engine.ts";
import { type DataPaths, dataPaths } from "../src/host/paths.ts";
import { allocatedBytes } from "../src/host/sparse.ts";
import type { Image } from "../src/images/image.ts";
import { createImages } from "../src/images/store.ts";
import { Launcher } from "../src/launcher/launcher.ts";
import { makeTree, treeImage } from "../test/image-fixture.ts";
import { push, type Registry, run, startRegistry } from "../test/images-support.ts";
import type { BenchContext, Suite } from "./harness.ts";
import { benchSpec, remove, spawnTimed } from "./spawning.ts";

/** Goal: the slowest size within this factor of the fastest. */
const GOAL = 1.15;
const GIB = 2 ** 30;

interface Made {
  /** For example `500m`. */
  name: string;
  reference: string;
  erofs: Image;
  ext4: Image;
}

export const suite: Suite = {
  name: "images",
  about: "pull and build beside the same by hand; restore and first exec by image size and filesystem",
  async run(context) {
    const option = (name: string, fallback: string): string =>
      new RegExp(`--${name}=([\\d,]+)`).exec(context.args.join(" "))?.[1] ?? fallback;
    const sizes = option("sizes", "64,500,3072").split(",").map(Number);
    const root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "bench-images-"));
    const registry = await startRegistry(join(root, "registry"));
    try {
      const paths: DataPaths = { ...dataPaths(join(root, "data")), assets: dataPaths().assets };
      const made: Made[] = [];
      for (const mib of sizes) made.push(await prepare(context, root, paths, registry, mib));
      await starts(context, paths, made, Number(option("n", "15")));
    } finally {
      await registry[Symbol.asyncDispose]();
      await rm(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    }
  },
  render({ results }) {
    const all = Object.entries(results);
    return ["restore.total", "restore.total.first-exec"].flatMap((what) => {
      const p50 = all.filter(([name]) => new RegExp(`^${what}\\.base-\\d+m$`).test(name)).map(([, { p50 }]) => p50);
      const factor = Math.max(...p50) / Math.min(...p50);
      const verdict = factor <= GOAL ? "within" : "beyond";
      return p50.length < 2 ? [] : [`${what}: sizes differ by ${factor.toFixed(3)}, ${verdict} the goal of ${GOAL}`];
    });
  },
};

/** One image of `mib` in the registry, pulled by us and by hand. */
async function prepare(
  context: BenchContext,
  root: string,
  paths: DataPaths,
  registry: Registry,
  mib: number,
): Promise<Made> {
  const name = `${mib}m`;
  const at = (what: string): string => join(root, `${what}-${name}`);
  context.signal.throwIfAborted();
  context.progress(`an image of ${mib} MiB`);
  await mkdir(at("tree"));
  await makeTree(at("tree"), { bytes: mib * 2 ** 20, smallFiles: 2000 }, createImages(dataPaths()));
  await treeImage(at("tree"), at("layout"), "1");
  const reference = `${registry.host}/bench/${name}:1`;
  await push(at("layout"), "1", reference);
  const bytes = Number((await run("du", ["-sb", at("tree")])).stdout.split("\t")[0]);
  for (const what of ["tree", "layout"]) await rm(at(what), { recursive: true });

  const per = async (result: string, work: () => Promise<unknown>): Promise<number> => {
    const start = performance.now();
    await work();
    const ms = performance.now() - start;
    context.sample(`${result}.base-${name}`, ms);
    context.sample(`${result}.per-gib.base-${name}`, (ms / bytes) * GIB);
    return ms;
  };
  const images = createImages(paths, { credentialFiles: [] });
  let built = performance.now();
  let erofs: Image | undefined;
  const note = ({ step }: { step: string }): void => {
    if (step.startsWith("pulling")) built = performance.now();
  };
  await per("pull-build", async () => {
    erofs = await images.resolve(reference, { progress: note });
  });
  // The last progress of the pull is its end: from there on the base is built.
  context.sample(`build.base-${name}`, performance.now() - built);
  if (erofs === undefined) throw new Error("the pull gave nothing");
  const layout = at("by-hand");
  const bundle = at("bundle");
  const rootfs = join(bundle, "rootfs");
  const ext4 = join(root, `${name}.ext4`);
  let total = await per("by-hand.pull", () =>
    run("skopeo", ["copy", "--src-tls-verify=false", `docker://${reference}`, `oci:${layout}:1`]),
  );
  const rootless = process.getuid?.() === 0 ? [] : ["--rootless"];
  total += await per("by-hand.unpack", () => run("umoci", ["unpack", ...rootless, "--image", `${layout}:1`, bundle]));
  // With room for the inodes and tables of many files: too small a disk fails, a large one is sparse.
  const blocks = Math.ceil((bytes * 1.25 + 64 * 2 ** 20) / 4096);
  total += await per("by-hand.mke2fs", () =>
    run("mke2fs", [
      "-q",
      "-t",
      "ext4",
      "-b",
      "4096",
      "-O",
      "^has_journal",
      "-m",
      "0",
      "-d",
      rootfs,
      ext4,
      String(blocks),
    ]),
  );
  context.sample(`by-hand.base-${name}`, total);
  context.sample(`by-hand.per-gib.base-${name}`, (total / bytes) * GIB);
  await mkfsErofs(context, rootfs, join(root, "peer.erofs"), name);
  context.sample(`size.content.base-${name}`, bytes, "bytes");
  context.sample(`size.erofs.base-${name}`, await allocatedBytes(erofs.base), "bytes");
  context.sample(`size.ext4.base-${name}`, await allocatedBytes(ext4), "bytes");
  for (const dir of [layout, bundle]) await rm(dir, { recursive: true, force: true });
  const digest = `sha256:${Buffer.from(`ext4 ${name}`).toString("hex").padEnd(64, "0")}`;
  return {
    name,
    reference,
    erofs,
    ext4: { ...erofs, reference: `bench/ext4:${name}`, digest, base: ext4, filesystem: "ext4" },
  };
}

/** The distribution's own writer from the unpacked tree, where it is installed. */
async function mkfsErofs(context: BenchContext, rootfs: string, path: string, name: string): Promise<void> {
  const start = performance.now();
  const done = await run("mkfs.erofs", [path, rootfs], { maxBuffer: 1 << 28 }).catch(() => undefined);
  if (done === undefined) return context.note("mkfs.erofs is not installed, or cannot do it, so it was not measured");
  context.sample(`by-hand.mkfs-erofs.base-${name}`, performance.now() - start);
  context.sample(`size.mkfs-erofs.base-${name}`, (await stat(path)).size, "bytes");
  await rm(path);
}

async function starts(context: BenchContext, paths: DataPaths, made: Made[], rounds: number): Promise<void> {
  const library = createImages(paths, { credentialFiles: [] });
  // The ext4 disks are no images of the library: this process alone knows them.
  const others = new Map(made.map(({ ext4 }) => [ext4.reference, ext4]));
  const images: typeof library = Object.create(library, {
    resolve: {
      value: (name: string, options?: object) => {
        const other = others.get(name);
        return other === undefined ? library.resolve(name, options) : Promise.resolve(other);
      },
    },
  });
  const { vmm } = (await createEngine()).launcher;
  const probe = await vmm.probe();
  if (!probe.usable) throw new Error(probe.reason);
  context.guest = "linux";
  Object.assign(context.versions, { vmm: `${vmm.name} ${probe.version}`, accelerator: probe.accelerator });
  const launcher = new Launcher({ vmm, images, paths });
  const variants = made.flatMap(({ name, reference, ext4 }) => [
    { suffix: `base-${name}`, spec: benchSpec(reference) },
    { suffix: `ext4-${name}`, spec: benchSpec(ext4.reference) },
  ]);
  try {
    for (const { suffix, spec } of variants) {
      context.progress(`golden snapshot of ${suffix}`);
      await launcher.ensureGolden(await launcher.targets.resolve(spec));
    }
    context.progress(`${rounds} rounds of ${variants.length} images`);
    for (let i = 0; i < rounds; i++) {
      for (const { suffix, spec } of variants) {
        context.signal.throwIfAborted();
        try {
          const timed = await spawnTimed(launcher, spec, undefined, ["echo", "hello"]);
          if (timed.launched.boot.path !== "restored") throw new Error(`it came ${timed.launched.boot.path}`);
          context.sample(`restore.total.${suffix}`, timed.total);
          context.sample(`restore.total.first-exec.${suffix}`, timed.firstExec ?? 0);
          await remove(timed.launched);
        } catch (error) {
          context.failure(suffix, error);
        }
      }
    }
  } finally {
    await launcher.close();
  }
}
