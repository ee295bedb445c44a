/**
 * What a volume costs a restore: machines with none, one and two of them, in turns. `--n=N` rounds under Firecracker, a fifth under QEMU. Then
 * what files on one, and in a directory of the host, cost beside the machine's own disk, in turns (`--files` alone: only that, in `--rounds=N`, 5),
 * and beside QEMU's virtiofs (`--beside` alone: only that);
 * and `git status` of `--count=50000` files on each, and in a copy's own layer over such a directory (`--status` alone: only that).
 */
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createEngine } from "../src/cli/engine.ts";
import type { HostDirectory } from "../src/directories/directory.ts";
import { ServedDirectories } from "../src/directories/serving.ts";
import type { Agent } from "../src/guest/agent.ts";
import { directoryHelperPath } from "../src/host/directory-helper.ts";
import { dataPaths } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import type { Launched } from "../src/launcher/launcher.ts";
import { formatVolume } from "../src/volumes/format.ts";
import type { BenchContext, Suite } from "./harness.ts";
import { benchSpec, remove, sandboxId } from "./spawning.ts";
import { findVirtiofsd, virtiofsMachine } from "./virtiofs.ts";

const COUNTS = [0, 1, 2];
const VOLUME_BYTES = 256 * 2 ** 20;

export const suite: Suite = {
  name: "volumes",
  about:
    "restores with no volume, one and two; files on a volume, in a directory of the host and on the machine's own disk",
  async run(context) {
    const rounds = Number(/--n=(\d+)/.exec(context.args.join(" "))?.[1] ?? 100);
    context.guest = "linux";
    const fileRounds = Number(/--rounds=(\d+)/.exec(context.args.join(" "))?.[1] ?? 5);
    if (context.args.includes("--beside")) return measureBeside(context, fileRounds);
    if (!context.args.includes("--status")) {
      await measureFiles(context, fileRounds);
      await measureBeside(context, fileRounds);
    }
    if (context.args.includes("--files")) return;
    const count = Number(/--count=(\d+)/.exec(context.args.join(" "))?.[1] ?? 50_000);
    await measureStatus(context, fileRounds, count);
    if (context.args.includes("--status")) return;
    for (const [provider, image, n] of [
      ["firecracker", "stacyvm/bare", rounds],
      ["qemu", "stacyvm/busybox", Math.ceil(rounds / 5)],
    ] as const)
      await measure(context, provider, image, n);
  },
};

async function measure(
  context: BenchContext,
  provider: "firecracker" | "qemu",
  image: string,
  rounds: number,
): Promise<void> {
  const { launcher } = await createEngine({ provider });
  const { vmm, paths } = launcher;
  const probe = await vmm.probe();
  if (!probe.usable) {
    context.note(`${provider} cannot be used: ${probe.reason}`);
    return launcher.close();
  }
  context.versions[provider] = `${probe.version}, ${probe.accelerator}`;
  await mkdir(paths.tmp, { recursive: true });
  const dir = await mkdtemp(join(paths.tmp, "bench-volumes-"));
  try {
    const files = await Promise.all(COUNTS.slice(1).map((count) => makeVolume(join(dir, `${count}.ext4`))));
    const specs = COUNTS.map((count) =>
      benchSpec(image, count === 0 ? {} : { slots: files.slice(0, count).map(() => "write" as const) }),
    );
    for (const spec of specs) await launcher.ensureGolden(await launcher.targets.resolve(spec));
    for (let round = 0; round < rounds && !context.signal.aborted; round++) {
      for (const [count, spec] of specs.entries()) {
        const volumes = files.slice(0, count);
        const begun = performance.now();
        const launched = await launcher.launch(spec, {
          id: sandboxId(),
          mode: "restore",
          ...(count === 0 ? {} : { volumes }),
        });
        const total = performance.now() - begun;
        try {
          if (launched.boot.path !== "restored") throw new Error(`it was ${launched.boot.path}`);
          context.sample(`${provider}.restore.total.volumes-${count}`, total, "ms");
          if (launched.boot.guest === "linux" && count > 0)
            context.sample(
              `${provider}.mount.volumes-${count}`,
              await mount(launched, count, provider === "qemu"),
              "ms",
            );
        } finally {
          await remove(launched);
        }
      }
    }
  } finally {
    await launcher.close();
    await rm(dir, { recursive: true });
  }
}

/** All of them. @returns ms */
async function mount(launched: Launched, count: number, probe: boolean): Promise<number> {
  const begun = performance.now();
  for (let slot = 0; slot < count; slot++) {
    const name = `volume-${slot}`;
    await launched.agent.mount({ name, slot, bytes: VOLUME_BYTES, path: `/${name}`, readOnly: false, probe });
  }
  const took = performance.now() - begun;
  await launched.agent.still();
  return took;
}

async function makeVolume(path: string): Promise<string> {
  await using file = await open(path, "wx", 0o600);
  await file.truncate(VOLUME_BYTES);
  await formatVolume(path);
  return path;
}

/** One pass over a directory; prints what each part took, ms. What is read comes from the disk: the guest's caches are dropped before. */
const FILES_PROGRAM = `
import os, random, sys, time
place = sys.argv[1]; big = place + "/big"; block = os.urandom(1 << 20); random.seed(1)
def part(name, work):
    begun = time.monotonic(); work(); print(name, (time.monotonic() - begun) * 1000)
def cold():
    os.sync(); open("/proc/sys/vm/drop_caches", "w").write("3")
def write():
    with open(big, "wb") as f:
        for _ in range(64): f.write(block)
        f.flush(); os.fsync(f.fileno())
def read():
    with open(big, "rb", buffering=0) as f:
        while f.read(1 << 20): pass
places = [random.randrange(64 << 8) * 4096 for _ in range(2000)]
def random_write():
    fd = os.open(big, os.O_WRONLY)
    for at in places: os.pwrite(fd, block[:4096], at)
    os.fsync(fd); os.close(fd)
def synced_write():
    fd = os.open(big, os.O_WRONLY)
    for at in places[:100]: os.pwrite(fd, block[:4096], at); os.fdatasync(fd)
    os.close(fd)
def random_read():
    fd = os.open(big, os.O_RDONLY)
    for at in places: os.pread(fd, 4096, at)
    os.close(fd)
def small():
    os.mkdir(place + "/small")
    for i in range(1000):
        with open(place + "/small/%d" % i, "wb") as f: f.write(block[:1024])
    os.sync()
def remove():
    for i in range(1000): os.unlink(place + "/small/%d" % i)
    os.rmdir(place + "/small"); os.sync()
os.makedirs(place, exist_ok=True)
part("write-64m", write); cold(); part("read-64m", read)
part("random-write-2000x4k", random_write); part("synced-write-100x4k", synced_write); cold(); part("random-read-2000x4k", random_read)
part("small-files-1000", small); part("remove-1000", remove); os.unlink(big)
`;

interface InMachine {
  launched: Launched;
  directories: ServedDirectories;
  /** A directory for what the measuring needs on the host. */
  dir: string;
}

/** In one machine under QEMU with a volume in its place. @param volume makes it, in that directory */
async function inMachine(
  context: BenchContext,
  image: string,
  volume: (dir: string) => Promise<string>,
  work: (parts: InMachine) => Promise<void>,
): Promise<void> {
  const { launcher } = await createEngine({ provider: "qemu" });
  const probe = await launcher.vmm.probe();
  if (!probe.usable) {
    context.note(`qemu cannot be used: ${probe.reason}`);
    return launcher.close();
  }
  await mkdir(launcher.paths.tmp, { recursive: true });
  const dir = await mkdtemp(join(launcher.paths.tmp, "bench-volumes-"));
  try {
    const file = await volume(dir);
    const spec = benchSpec(image, { slots: ["write"] });
    await launcher.ensureGolden(await launcher.targets.resolve(spec));
    const launched = await launcher.launch(spec, { id: sandboxId(), mode: "restore", volumes: [file] });
    const program = directoryHelperPath(launcher.paths.assets);
    const options = { program, hidden: launcher.paths.sandboxes, machineDir: () => join(dir, "machine") };
    const directories = new ServedDirectories(launched.agent, [], options);
    try {
      await work({ launched, directories, dir });
    } finally {
      directories.stop();
      await remove(launched);
    }
  } finally {
    await launcher.close();
    await rm(dir, { recursive: true });
  }
}

/** In turns. */
async function measureFiles(context: BenchContext, rounds: number): Promise<void> {
  const volume = (dir: string): Promise<string> => makeVolume(join(dir, "files.ext4"));
  await inMachine(context, "stacyvm/python", volume, async ({ launched, directories, dir }) => {
    await mount(launched, 1, true);
    await launched.agent.thaw();
    await mkdir(join(dir, "shared"));
    await directories.mount([{ source: join(dir, "shared"), path: "/directory", readOnly: false }]);
    directories.start();
    const places = { root: "/root/bench", volume: "/volume-0/bench", directory: "/directory/bench" };
    await measureAt(context, launched.agent, rounds, "files", places);
  });
}

/** Beside QEMU's own virtiofs, in a machine that has both. Its 9p cannot be: the guest's kernel is built without (`CONFIG_NET_9P`). */
async function measureBeside(context: BenchContext, rounds: number): Promise<void> {
  const found = await findVirtiofsd();
  if ("reason" in found) return context.note(`no virtiofs to be compared with: ${found.reason}`);
  const { assets, sandboxes } = dataPaths();
  const dir = await mkdtemp(join(tmpdir(), "bench-beside-"));
  try {
    for (const name of ["virtiofs", "shared"]) await mkdir(join(dir, name));
    await using machine = await virtiofsMachine(found.path, join(dir, "virtiofs"), "/virtiofs");
    context.versions.virtiofsd = machine.version;
    const options = { program: directoryHelperPath(assets), hidden: sandboxes, machineDir: () => dir };
    const directories = new ServedDirectories(machine.agent, [], options);
    try {
      await directories.mount([{ source: join(dir, "shared"), path: "/directory", readOnly: false }]);
      directories.start();
      const places = { root: "/root/bench", virtiofs: "/virtiofs/bench", directory: "/directory/bench" };
      await measureAt(context, machine.agent, rounds, "beside", places);
    } finally {
      directories.stop();
    }
  } finally {
    await rm(dir, { recursive: true });
  }
}

/** In turns. @param places directories by what they lie on */
async function measureAt(
  context: BenchContext,
  agent: Agent,
  rounds: number,
  prefix: string,
  places: Record<string, string>,
): Promise<void> {
  for (let round = 0; round < rounds && !context.signal.aborted; round++) {
    for (const [disk, place] of Object.entries(places)) {
      const argv = ["python3", "-c", FILES_PROGRAM, place];
      const { exitCode, stdout, stderr } = await agent.exec({ argv, timeoutMs: 600_000 });
      if (exitCode !== 0) throw new Error(stderr.toString());
      for (const line of stdout.toString().trim().split("\n")) {
        const [name = "", took] = line.split(" ");
        context.sample(`${prefix}.${name}.${disk}`, Number(took), "ms");
      }
      context.progress(`files on the ${disk}, round ${round + 1} of ${rounds}`);
    }
  }
}

const STATUS_BYTES = 1024 * 2 ** 20;

/** A repository with so many files of 100 bytes, 100 in a directory, all of them committed, and its tar beside it. */
async function makeRepository(dir: string, count: number): Promise<void> {
  for (let n = 0; n < count; n++) {
    const below = join(dir, `d${Math.floor(n / 100)}`);
    if (n % 100 === 0) await mkdir(below, { recursive: true });
    await writeFile(join(below, `file-${n}`), `${n}\n`.padEnd(100, "."));
  }
  const git = (...args: string[]): Promise<Buffer> =>
    runTool("git", ["-C", dir, "-c", "user.name=n", "-c", "user.email=e@x", ...args], { package: "git" });
  await git("init", "-q");
  await git("add", "-A");
  await git("commit", "-qm", "all");
  await runTool("tar", ["-C", dir, "-cf", `${dir}.tar`, "."]);
}

/** In turns: with nothing in the guest's caches, and right after that. */
async function measureStatus(context: BenchContext, rounds: number, count: number): Promise<void> {
  const prepare = async (dir: string): Promise<string> => {
    context.progress(`a repository of ${count} files`);
    await makeRepository(join(dir, "shared"), count);
    const path = join(dir, "status.ext4");
    await using volume = await open(path, "wx", 0o600);
    await volume.truncate(STATUS_BYTES);
    await formatVolume(path);
    return path;
  };
  await inMachine(context, "stacyvm/code-interpreter", prepare, async ({ launched, directories, dir }) => {
    const shared = join(dir, "shared");
    const run = async (script: string): Promise<string> => {
      const { exitCode, stdout, stderr } = await launched.agent.exec({
        argv: ["sh", "-c", script],
        user: "root",
        timeoutMs: 1_800_000,
      });
      if (exitCode !== 0) throw new Error(stderr.toString());
      return stdout.toString();
    };
    const name = "volume-0";
    await launched.agent.mount({
      name,
      slot: 0,
      bytes: STATUS_BYTES,
      path: `/${name}`,
      readOnly: false,
      probe: true,
    });
    await launched.agent.thaw();
    const layer = { name: "0", bytes: STATUS_BYTES };
    const given: HostDirectory[] = [
      { source: shared, path: "/directory", readOnly: false },
      { source: shared, path: "/layer", readOnly: false, layer },
    ];
    await directories.mount(given);
    directories.start();
    await launched.agent.writeFile("/root/repository.tar", await readFile(`${shared}.tar`));
    for (const place of ["/root/bench", "/volume-0/bench"]) {
      context.progress(`unpacking it at ${place}`);
      await run(`mkdir -p ${place} && tar -C ${place} -xf /root/repository.tar`);
    }
    const status = `begun=$(date +%s%N); git status --porcelain | wc -l; echo $(( ($(date +%s%N) - begun) / 1000 ))`;
    await run("git config --system --add safe.directory '*'");
    for (let round = -1; round < rounds && !context.signal.aborted; round++) {
      for (const [disk, place] of [
        ["root", "/root/bench"],
        ["volume", "/volume-0/bench"],
        ["directory", "/directory"],
        ["layer", "/layer"],
      ] as const) {
        for (const caches of ["cold", "warm"]) {
          const drop = caches === "cold" ? "sync; echo 3 > /proc/sys/vm/drop_caches; " : "";
          const [changed, us] = (await run(`${drop}cd ${place} && ${status}`)).trim().split("\n");
          if (changed !== "0") throw new Error(`git says that ${changed} files were changed`);
          // The first one writes the index anew, for the numbers of files that it has here.
          if (round >= 0) context.sample(`status-${count}.${caches}.${disk}`, Number(us) / 1000, "ms");
        }
        context.progress(`git status on the ${disk}, round ${round + 1} of ${rounds}`);
      }
    }
  });
}
