/**
 * A sandbox's files are what POSIX says: `guest-programs/posix.c` asks, in guests on both base filesystems, booted, restored, forked,
 * suspended and from a checkpoint. `STACYVM_LONG=1` exercises for longer.
 */
import assert from "node:assert/strict";
import { cp, link, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { extract } from "tar-stream";
import { sandboxId } from "../bench/spawning.ts";
import type { Agent } from "../src/guest/agent.ts";
import { packageRoot } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";
import { runTool } from "../src/host/run.ts";
import { createImages } from "../src/images/store.ts";
import { createMicrovmProvider, type MicrovmProvider } from "../src/providers/microvm.ts";
import type { SandboxMachine } from "../src/providers/provider.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { type Guest, shell, startGuest } from "./agent-support.ts";
import { addShell } from "./image-fixture.ts";
import { scratchPaths } from "./launcher-support.ts";

const OPERATIONS = process.env.STACYVM_LONG === "1" ? 20_000 : 1_000;
/** Files of the test's image that are one file. */
const SAME = ["/same/one", "/same/two"];
const IMAGE = ["/etc/file", "/directory", ...SAME];

let paths: Awaited<ReturnType<typeof scratchPaths>>;
let tree: string;

/** An image with a shell, the program, and files of each kind. */
before(async () => {
  const shared = await scratchPaths();
  paths = { ...shared, images: join(shared.root, "images") };
  tree = join(shared.root, "tree");
  for (const dir of ["etc", "directory/below", "same", "plain", "copied", "anew"])
    await mkdir(join(tree, dir), { recursive: true });
  await addShell(tree, createImages(shared));
  const source = join(packageRoot, "test/guest-programs/posix.c");
  await runTool("gcc", ["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", join(tree, "posix"), source]);
  await writeFile(join(tree, "etc/file"), "of the image\n");
  for (const name of [
    "directory/a",
    "directory/b",
    "directory/below/c",
    "plain/d",
    "same/one",
    "etc/covered",
    "copied/only",
    "copied/other",
    "anew/one",
  ]) {
    await writeFile(join(tree, name), `${name}\n`.repeat(400));
  }
  await link(join(tree, "same/one"), join(tree, "same/two"));
  await cp(join(tree, "directory"), join(tree, "covered"), { recursive: true });
  // Names that the processes of `posix stress` fight for.
  for (const dir of ["A", "B/b", "C"]) await mkdir(join(tree, "stress", dir), { recursive: true });
  for (const name of ["A/a", "A/b", "C/h"]) await writeFile(join(tree, "stress", name), "line\n");
  for (const name of ["A/c", "B/c", "C/c"]) await link(join(tree, "stress/A/a"), join(tree, "stress", name));
});

after(async () => {
  const left = await processesIn(paths.root);
  await rm(paths.root, { recursive: true, force: true });
  assert.deepEqual(left, []);
});

async function posix(agent: Agent, ...argv: string[]): Promise<string> {
  const result = await agent.exec({ argv: ["/posix", ...argv], timeoutMs: 300_000 });
  const said = result.stdout.toString("latin1");
  assert.equal(result.exitCode, 0, `posix ${argv.join(" ")}: ${said}${result.stderr}`);
  return said;
}

const marks = (agent: Agent): Promise<string> =>
  posix(agent, "marks", "/", "/posix", "/etc", "/plain/d", "/new-file", ...IMAGE, "/directory/below/c");

/** Everything, in the order that leaves the image's files as they are until it is their turn. */
async function everything(agent: Agent): Promise<void> {
  assert.match(await posix(agent, "new", "/root-of-new"), /^asked 1\d\d, not so 0\n$/);
  assert.match(await posix(agent, "image", ...IMAGE), /^asked \d\d, not so 0\n$/);
  await posix(agent, "fsx", "/made", String(OPERATIONS), "1");
  await posix(agent, "fsx", "/directory/b", String(OPERATIONS), "2");
  await posix(agent, "stress", "/stress", String(OPERATIONS / 2), "5");
  await posix(agent, "stress", "/stress-of-new", String(OPERATIONS / 4), "6");
  await posix(agent, "covered", "/covered", "/etc/covered");
  const before = await marks(agent);
  await shell(agent, "sync; echo 3 > /proc/sys/vm/drop_caches");
  assert.equal(await marks(agent), before, "without its caches it is the same tree");
}

describe("a root like one filesystem", () => {
  for (const filesystem of ["erofs", "ext4"] as const) {
    test(`above a base of ${filesystem}`, async () => {
      const base = join(paths.root, `${filesystem}.img`);
      if (filesystem === "erofs")
        await runTool("cp", [(await createImages(paths).import(tree, "test/posix")).base, base]);
      else
        await runTool("mke2fs", ["-q", "-F", "-t", "ext4", "-b", "4096", "-d", tree, base, "32M"], {
          package: "e2fsprogs",
        });
      await using guest = await startGuest({ base: { path: base, filesystem } });
      await everything(guest.agent);
    });
  }
});

describe("a saved machine's root is the same one", () => {
  let provider: MicrovmProvider;
  let source: SandboxMachine;
  const open = () => createMicrovmProvider({ vmm: createQemu(), images: createImages(paths), paths });
  const spawn = (over: { checkpoint?: string } = {}) =>
    provider.spawn({
      ...{ id: sandboxId(), image: "test/posix", memoryMiB: 256, vcpus: 1, diskMiB: 256, env: {}, setup: [] },
      ...over,
    });

  before(async () => {
    await createImages(paths).import(tree, "test/posix");
    provider = open();
    const first = await spawn();
    await provider.launcher.settle();
    await first.destroy();
    source = await spawn();
  });

  after(async () => {
    await provider?.close();
    // Also those that a failure has left.
    provider = open();
    await provider.adopt(new Set());
    await provider.close();
  });

  test("restored, it passes everything", () => everything(source.agent));

  test("forked, woken from a suspension and started from a checkpoint, its files keep their numbers", async () => {
    const wanted = await marks(source.agent);
    const { machines } = await source.fork([sandboxId()]);
    const [fork] = machines as [SandboxMachine];
    assert.equal(await marks(fork.agent), wanted);
    await posix(fork.agent, "new", "/in-a-fork");
    await posix(fork.agent, "stress", "/stress", String(OPERATIONS / 4), "7");
    await posix(fork.agent, "fsx", "/plain/d", String(OPERATIONS / 2), "3");
    await fork.destroy();
    await source.suspend();
    await source.resume();
    assert.equal(await marks(source.agent), wanted);
    const id = `cp-${sandboxId()}`;
    await source.checkpoint(id);
    const later = await spawn({ checkpoint: id });
    assert.equal(await marks(later.agent), wanted);
    await posix(later.agent, "fsx", "/plain/d", String(OPERATIONS / 2), "4");
    await later.destroy();
  });

  test("its changes as a layer hold a moved directory whole, and every name of a written file", async () => {
    const machine = await spawn();
    await shell(
      machine.agent,
      `mv /directory /elsewhere; echo more >> /same/one; rm /same/one; rm /plain/d; ln /etc/file /etc/again
       : >> /copied/only; touch -r /copied/other /kept; x=$(tr o O < /copied/other); echo "$x" > /copied/other; touch -r /kept /copied/other
       : >> /anew/one; mv /anew/one /one; rm -r /anew; mkdir /anew; mv /one /anew/one`,
    );
    const entries = new Map<string, { type: string; link?: string | null; text: string }>();
    const reader = extract();
    const reading = (async () => {
      for await (const entry of reader) {
        let text = "";
        for await (const chunk of entry) text += String(chunk);
        entries.set(entry.header.name, { type: entry.header.type as string, link: entry.header.linkname, text });
      }
    })();
    (await machine.agent.changes()).pipe(reader);
    await reading;
    for (const name of [
      "elsewhere/.wh..wh..opq",
      "elsewhere/a",
      "elsewhere/below/c",
      ".wh.directory",
      "same/.wh.one",
      "plain/.wh.d",
    ])
      assert.ok(entries.has(name), `${name} is missing of ${[...entries.keys()].join(", ")}`);
    // The overlay has copied it, and nobody has written to it. With the same time and size another has.
    assert.ok(!entries.has("copied/only"), "nothing was written to it");
    assert.match(entries.get("copied/other")?.text ?? "", /^cOpied\/Other\n/);
    assert.ok(entries.has("anew/.wh..wh..opq") && entries.has("anew/one"), "its directory is another one");
    assert.match(entries.get("same/two")?.text ?? "", /same\/one\nmore\n$/);
    assert.deepEqual(
      [entries.get("etc/again")?.type, entries.get("etc/file")?.type].sort(),
      ["file", "link"],
      "a new name of a file is a link",
    );
    // On a fresh machine it gives the same tree.
    const other = await spawn();
    await other.agent.tarIn("/", await machine.agent.changes(), { layer: true });
    const list =
      "find /elsewhere /directory /same /plain /copied /anew /etc/file /etc/again -type f | sort | xargs md5sum";
    assert.equal(await shell(other.agent, `${list} 2>&1`), await shell(machine.agent, `${list} 2>&1`));
    await shell(machine.agent, "touch /elsewhere/.wh.x");
    await assert.rejects(
      Array.fromAsync(await machine.agent.changes()),
      /\/elsewhere\/.wh.x cannot be saved: in an image's layers a name with .wh. deletes/,
    );
    await machine.destroy();
    await other.destroy();
  });
});

describe("programs that compare files", () => {
  let guest: Guest;
  before(async () => {
    guest = await startGuest({ image: "stacyvm/python" });
  });
  after(() => guest?.[Symbol.asyncDispose]());

  test("Python: a copy onto itself is refused, a file is no mount point, `samefile` tells the truth", async () => {
    const script = `
import os, shutil
a, b = "/etc/gai.conf", "/etc/other.conf"
text = open(a).read()
os.link(a, b)
assert os.path.samefile(a, b) and not os.path.ismount(a) and not os.path.ismount("/etc") and os.path.ismount("/")
try:
    shutil.copyfile(a, b)
    raise SystemExit("copied onto itself")
except shutil.SameFileError:
    pass
assert open(a).read() == text != ""
perl = ["/usr/bin/perl", "/usr/bin/perl5.36.0"]
assert os.path.samefile(*perl)
os.chmod(perl[0], 0o700)
assert os.path.samefile(*perl) and os.stat(perl[1]).st_mode & 0o777 == 0o700
os.rename("/usr/share/perl", "/usr/share/moved")
assert os.path.isdir("/usr/share/moved") and not os.path.exists("/usr/share/perl")
os.rename("/usr/share/moved", "/usr/share/perl")
print("held")`;
    assert.equal(await shell(guest.agent, `python3 -c '${script}'`), "held\n");
  });

  test("cp, mv, tar, diff and dpkg", async () => {
    const script = `set -e
ln /etc/debian_version /etc/dv; before=$(cat /etc/dv)
cp /etc/debian_version /etc/dv 2>/dev/null && exit 1
test "$(cat /etc/dv)" = "$before"
mv /etc/debian_version /etc/dv 2>/dev/null || true
test "$(cat /etc/dv)" = "$before"
cp -a /usr/bin /copy; diff -r --no-dereference /usr/bin /copy
tar -C / -cf /all.tar usr/bin etc; mkdir /out; tar -C /out -xf /all.tar; diff -r --no-dereference /usr/bin /out/usr/bin
test "$(stat -c %h /out/usr/bin/perl)" = 2
mkdir -p /p/DEBIAN /p/usr/bin; printf 'Package: t\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@y.z>\\nDescription: t\\nReplaces: debianutils\\n' > /p/DEBIAN/control
echo new > /p/usr/bin/tempfile; dpkg-deb -b /p /t.deb >/dev/null; dpkg -i /t.deb >/dev/null
test "$(cat /usr/bin/tempfile)" = new; dpkg -P t >/dev/null; test ! -e /usr/bin/tempfile
dpkg --verify coreutils`;
    await shell(guest.agent, script);
  });
});
