import assert from "node:assert/strict";
import { chmod, chown, mkdir, mkdtemp, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Store } from "../sandboxes/store.ts";
import { loadConfig } from "./load.ts";
import { FILE_KEYS } from "./named-files.ts";
import { configKeys } from "./schema.ts";

const OTHER = 12_345;
const notRoot = process.getuid?.() !== 0 && "only root can make another user's files";

async function place(t: TestContext): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), "named-"));
  t.after(() => rm(root, { recursive: true }));
  return root;
}

/** @returns the key that the configuration is refused for */
async function refusedFor(root: string, content: string): Promise<string> {
  const file = join(root, "config.yaml");
  await writeFile(file, content);
  return loadConfig({ file, env: {} }).then(
    () => "none",
    ({ code, phase, message }) => `${code} ${phase} ${message.split(":")[0]}`,
  );
}

/** As YAML. */
const setting = (key: string, path: string): string => `{ ${key.replace(".", ": { ")}: ${JSON.stringify(path)} } }`;

test("every key that names a file of this host is looked at", () => {
  const named = configKeys().filter(
    (key) => /(?:^|[._])(?:path|file|jailer|kernel|kernel_modules|netns)$/.test(key) && key !== "database.path",
  );
  assert.deepEqual([...FILE_KEYS].sort(), named.sort());
});

test("a file that everybody may write is refused by its key, and so is another user's; one's own is not", async (t) => {
  const root = await place(t);
  const [own, open, theirs] = ["own", "open", "theirs"].map((name) => join(root, name)) as [string, string, string];
  for (const path of [own, open, theirs]) await writeFile(path, "", { mode: 0o600 });
  await chmod(open, 0o666);
  for (const key of FILE_KEYS) {
    assert.equal(await refusedFor(root, setting(key, own)), "none");
    assert.equal(await refusedFor(root, setting(key, join(root, "not-there"))), "none");
    assert.equal(await refusedFor(root, setting(key, open)), `permission config ${key}`);
  }
  await chmod(own, 0o644);
  for (const key of FILE_KEYS) {
    const secret = key === "secrets.key_file" || key === "fleet.key_file";
    assert.equal(await refusedFor(root, setting(key, own)), secret ? `permission config ${key}` : "none");
  }
  if (notRoot !== false) return;
  await chown(theirs, OTHER, OTHER);
  for (const key of FILE_KEYS) assert.equal(await refusedFor(root, setting(key, theirs)), `permission config ${key}`);
});

test("a database is in no directory that everybody may write into, and no other user has put a log beside it", async (t) => {
  const root = await place(t);
  const path = join(root, "sub", "s.db");
  await mkdir(join(root, "sub"));
  assert.equal(await refusedFor(root, setting("database.path", path)), "none");
  for (const mode of [0o777, 0o1777]) {
    await chmod(join(root, "sub"), mode);
    assert.equal(await refusedFor(root, setting("database.path", path)), "permission config database.path");
  }
  await chmod(join(root, "sub"), 0o755);
  if (notRoot !== false) return;
  for (const beside of ["", "-wal", "-shm", "-journal"]) {
    await writeFile(`${path}${beside}`, "");
    await chown(`${path}${beside}`, OTHER, OTHER);
    assert.equal(await refusedFor(root, setting("database.path", path)), "permission config database.path", beside);
    await rm(`${path}${beside}`);
  }
});

test("whoever opens a database makes it for its owner alone, wherever it lies and whatever the umask; one that was open to others is closed", async (t) => {
  const root = await place(t);
  const before = process.umask(0o022);
  t.after(() => process.umask(before));
  const path = join(root, "s.db");
  const modes = () =>
    Promise.all(["", "-wal", "-shm"].map(async (each) => ((await stat(`${path}${each}`)).mode & 0o777).toString(8)));
  {
    using store = new Store(path);
    await store.putMeta("a", "b");
    assert.deepEqual(await modes(), ["600", "600", "600"]);
    for (const each of ["", "-wal", "-shm"]) await chmod(`${path}${each}`, 0o644);
    // A server that was killed leaves them so.
    using again = new Store(path);
    await again.putMeta("a", "c");
    assert.deepEqual(await modes(), ["600", "600", "600"]);
  }
  await symlink(path, join(root, "link.db"));
  await chmod(path, 0o666);
  using linked = new Store(join(root, "link.db"));
  assert.equal(linked.meta("a"), "c");
  assert.equal((await modes())[0], "600");
});
