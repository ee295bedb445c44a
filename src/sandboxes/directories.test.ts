import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { resolveDirectories } from "./directories.ts";

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "directories-"));
  for (const name of ["allowed/sub", "other", "data"]) await mkdir(join(root, name), { recursive: true });
  await writeFile(join(root, "allowed/file"), "");
  await symlink(join(root, "other"), join(root, "allowed/link"));
});
after(() => rm(root, { recursive: true, force: true }));

const administrator = { administrator: true, ownUser: false };
const ownUser = { administrator: true, ownUser: true };
const ask = (source: string, target = "/work", caller: typeof ownUser | undefined = administrator) =>
  resolveDirectories(
    { allow: [join(root, "allowed"), join(root, "not-there")], hidden: join(root, "data") },
    [{ source: source.startsWith("/") ? source : join(root, source), target }],
    [{ id: "vol-1", name: "v", path: "/volume", readOnly: false }],
    caller,
  );

test("administrators get what is permitted, and what is below it", async () => {
  assert.deepEqual(await ask("allowed/sub", "/work/"), [
    { source: join(root, "allowed/sub"), path: "/work", readOnly: false },
  ]);
  await assert.rejects(ask("other"), { code: "permission", message: /does not give sandboxes/ });
  // Where it leads counts, and of what is elsewhere nobody is told whether it is there.
  await assert.rejects(ask("allowed/link"), { code: "permission" });
  await assert.rejects(ask("allowed/../other"), { code: "permission" });
  await assert.rejects(ask("nowhere"), { code: "permission" });
  // Told apart, they would say what there is elsewhere, by links that a guest can make.
  await symlink(join(root, "nowhere"), join(root, "allowed", "leads-nowhere"));
  for (const absent of ["allowed/nowhere", "allowed/leads-nowhere", "nowhere"])
    await assert.rejects(ask(absent), { code: "permission", message: /does not give sandboxes/ });
  await assert.rejects(ask("allowed/file"), { code: "invalid", message: /not a directory/ });
});

test("the server's own user gets any but the server's data, and everybody else none", async () => {
  assert.equal((await ask("other", "/work", ownUser))[0]?.source, join(root, "other"));
  assert.equal((await ask("allowed/link", "/work", ownUser))[0]?.source, join(root, "other"));
  await assert.rejects(ask("data", "/work", ownUser), { code: "permission", message: /own data directory/ });
  await assert.rejects(ask("allowed", "/work", { administrator: false, ownUser: false }), { code: "permission" });
  await assert.rejects(
    resolveDirectories({ allow: ["/"], hidden: "/x" }, [{ source: root, target: "/a" }], [], undefined),
    { code: "permission" },
  );
});

test("places are absolute, the guest's own, and beside one another", async () => {
  for (const target of ["work", "/", "/etc", "/proc/x", "/a/../etc", "/a//b", "/volume/a", "/volume", "/nul\0"])
    await assert.rejects(ask("allowed", target), { code: "invalid" }, target);
});
