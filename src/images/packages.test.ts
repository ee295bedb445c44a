import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { packageTree, stepOf } from "./packages.ts";

const mounts = (): Promise<string> => readFile("/proc/self/mountinfo", "utf8");

/** A directory that is searched for programs, instead of others or before them. */
async function programs(t: TestContext, searched: (dir: string) => string): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "stacyvm-programs-"));
  const { PATH } = process.env;
  process.env.PATH = searched(dir);
  t.after(async () => {
    process.env.PATH = PATH;
    await rm(dir, { recursive: true, force: true });
  });
  return dir;
}

const root = process.getuid?.() === 0;

test("what mmdebstrap mounts is nowhere else, and gone when it is killed", {
  skip: root ? false : "needs root: as another user it has namespaces of its own",
}, async (t) => {
  const dir = await programs(t, (own) => `${own}:${process.env.PATH}`);
  // In its place, what it does as root: a mount, and then long work.
  const script = `#!/bin/sh\nmkdir ${dir}/mounted && mount -t tmpfs none ${dir}/mounted || exit 1\necho $$\nexec sleep 1000\n`;
  await writeFile(join(dir, "mmdebstrap"), script, { mode: 0o755 });
  const tree = packageTree({ packages: [], variant: "minbase" });
  const { value } = await tree.next();
  const pid = Number(String(value));
  assert.match(await readFile(`/proc/${pid}/mountinfo`, "utf8"), new RegExp(`${dir}/mounted`));
  assert.ok(!(await mounts()).includes(dir));
  process.kill(pid, "SIGKILL");
  await assert.rejects(async () => tree.next(), /mmdebstrap failed \(killed\)/);
  assert.ok(!(await mounts()).includes(dir));
});

test("a host without mmdebstrap is told so, by whatever would have started it", async (t) => {
  const dir = await programs(t, (own) => own);
  for (const name of ["apt-config", "apt-get", "unshare", "true"])
    await symlink(join("/usr/bin", name), join(dir, name));
  await assert.rejects(
    async () => packageTree({ packages: [], variant: "minbase" }).next(),
    /mmdebstrap is not installed/,
  );
});

test("of mmdebstrap's words people see what they wait for, and neither its directories nor its choices", () => {
  const said = [
    "I: automatically chosen mode: root",
    "I: chroot architecture amd64 is equal to the host's architecture",
    "I: using /tmp/mmdebstrap.XXXXXXXXXX as tempdir",
    "I: running apt-get update...",
    "done",
    "I: downloading packages with apt...",
    "I: extracting archives...",
    "I: installing essential packages...",
    "I: installing remaining packages inside the chroot...",
    "I: cleaning package lists and apt cache...",
    "I: creating tarball...",
    "I: success in 150.1510 seconds",
    "E: downloading packages failed",
  ];
  assert.deepEqual(
    said.flatMap((line) => stepOf(line) ?? []),
    [
      "reading the distribution's package lists",
      "downloading packages",
      "unpacking packages",
      "installing packages",
      "installing packages",
      "collecting the files",
    ],
  );
});
