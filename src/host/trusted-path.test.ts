import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, chown, lchown, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import type { StacyError } from "./error.ts";
import { assertTrustedContents, assertTrustedPath } from "./trusted-path.ts";

const OTHER = 12_345;
const notRoot = process.getuid?.() !== 0 && "only root can make another user's directories";

async function place(t: TestContext): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), "trusted-"));
  t.after(() => rm(root, { recursive: true }));
  return root;
}

async function refused(path: string, words: RegExp, check = assertTrustedPath): Promise<void> {
  await assert.rejects(check(path), (error: StacyError) => {
    assert.equal(error.code, "permission");
    assert.match(error.message, words);
    assert.match(error.remedy ?? "", /STACYVM_DATA_DIR/);
    return true;
  });
}

test("a directory of one's own is trusted, and so is one that is not there yet", async (t) => {
  const root = await place(t);
  await mkdir(join(root, "data"));
  await symlink("data", join(root, "link"));
  for (const name of ["data", "link", "none", "none/below"]) await assertTrustedPath(join(root, name));
  await writeFile(join(root, "data", "file"), "");
  await assertTrustedContents(join(root, "data"));
  await assertTrustedContents(join(root, "none"));
});

test("another user's directory is not, nor what is in one, nor what another user's link leads to", {
  skip: notRoot,
}, async (t) => {
  const root = await place(t);
  await mkdir(join(root, "theirs", "mine"), { recursive: true });
  await chown(join(root, "theirs"), OTHER, OTHER);
  await symlink("/etc", join(root, "link"));
  await lchown(join(root, "link"), OTHER, OTHER);
  await symlink("theirs", join(root, "own-link"));
  await refused(join(root, "theirs"), /theirs belongs to another user of this host \(uid 12345\)$/);
  await refused(join(root, "theirs", "mine"), /theirs belongs .* so \S+\/mine is not safe$/);
  await refused(join(root, "theirs", "none"), /theirs belongs/);
  await refused(join(root, "link"), /link belongs/);
  await refused(join(root, "own-link", "mine"), /theirs belongs/);
  // Who called root by sudo may have it do so.
  process.env.SUDO_UID = String(OTHER);
  t.after(() => delete process.env.SUDO_UID);
  for (const name of ["theirs", "theirs/mine", "link"]) await assertTrustedPath(join(root, name));
});

test("nor one in a directory that everybody may write, unless only owners may rename there", {
  skip: notRoot,
}, async (t) => {
  const root = await place(t);
  await mkdir(join(root, "open", "mine"), { recursive: true });
  await chmod(join(root, "open"), 0o777);
  await refused(join(root, "open", "mine"), /everybody on this host may write into \S+\/open, /);
  await chmod(join(root, "open"), 0o1777);
  await assertTrustedPath(join(root, "open", "mine"));
});

test("nor one in which another user has put something", { skip: notRoot }, async (t) => {
  const root = await place(t);
  await writeFile(join(root, "stacyvm.db"), "");
  await chown(join(root, "stacyvm.db"), OTHER, OTHER);
  await refused(root, /stacyvm\.db belongs to another user/, assertTrustedContents);
});

test("in a container whoever owns what was mounted into it is trusted, on a host not", { skip: notRoot }, async (t) => {
  const root = await place(t);
  const module = new URL("./trusted-path.ts", import.meta.url).href;
  const script = `const { assertTrustedPath } = await import(${JSON.stringify(module)});
    for (const path of process.argv.slice(1)) console.log(await assertTrustedPath(path).then(() => "trusted", (error) => error.code));`;
  await mkdir(join(root, "a volume"));
  const mount = `mount -t tmpfs -o uid=${OTHER},mode=755 none "$0/a volume" && mkdir "$0/a volume/data" && chown ${OTHER} "$0/a volume/data" && exec "$@" "$0/a volume" "$0/a volume/data"`;
  const ask = async (env: Record<string, string>): Promise<string[]> => {
    const args = ["--mount", "sh", "-c", mount, root, process.execPath, "--input-type=module", "-e", script];
    const { stdout } = await promisify(execFile)("unshare", args, { env: { PATH: process.env.PATH, ...env } });
    return stdout.trim().split("\n");
  };
  assert.deepEqual(await ask({ KUBERNETES_SERVICE_HOST: "10.0.0.1" }), ["trusted", "trusted"]);
  const outside = await ask({});
  const inContainer = existsSync("/.dockerenv") || existsSync("/run/.containerenv");
  assert.deepEqual(outside, inContainer ? ["trusted", "trusted"] : ["permission", "permission"]);
});
