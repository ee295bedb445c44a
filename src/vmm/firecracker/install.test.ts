import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { StacyError } from "../../host/error.ts";
import { runTool } from "../../host/run.ts";
import { installFirecracker, locateFirecracker } from "./install.ts";

async function scratch(t: { after(work: () => Promise<void>): void }): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "fc-install-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

async function script(path: string): Promise<string> {
  await writeFile(path, "#!/bin/sh\n");
  await chmod(path, 0o755);
  return path;
}

test("a configured path wins over everything, and the jailer beside it is found", async (t) => {
  const dir = await scratch(t);
  const mine = await script(join(dir, "firecracker"));
  const jailer = await script(join(dir, "jailer"));
  const found = await installFirecracker(dir, { env: { STACYVM_FIRECRACKER: mine, PATH: "/nowhere" } });
  assert.equal(found.firecracker, mine);
  assert.equal(found.jailer, jailer);
  assert.equal(found.source, "configured");
});

test("a configured path that is no program is an error that names the variable", async (t) => {
  const dir = await scratch(t);
  await assert.rejects(installFirecracker(dir, { env: { STACYVM_FIRECRACKER: join(dir, "none") } }), (error) => {
    assert.ok(error instanceof StacyError);
    assert.equal(error.code, "not-found");
    assert.match(error.remedy ?? "", /STACYVM_FIRECRACKER/);
    return true;
  });
});

test("without any Firecracker the error says how to get one", async (t) => {
  const dir = await scratch(t);
  await assert.rejects(locateFirecracker(dir, { env: { PATH: "" } }), (error) => {
    assert.ok(error instanceof StacyError);
    assert.equal(error.code, "unavailable");
    assert.match(error.remedy ?? "", /stacyvm setup/);
    return true;
  });
});

test("a Firecracker on the PATH is used before the installed one", async (t) => {
  const dir = await scratch(t);
  await mkdir(join(dir, "bin"));
  const mine = await script(join(dir, "bin/firecracker"));
  const found = await locateFirecracker(dir, { env: { PATH: join(dir, "bin") } });
  assert.equal(found.firecracker, mine);
  assert.equal(found.source, "path");
  assert.equal(found.jailer, undefined);
});

/** A place of releases with one archive in the official form. @returns its address and the archive's checksum */
async function releases(t: { after(work: () => Promise<void>): void }, version: string) {
  const dir = await scratch(t);
  const inside = join(dir, `release-v${version}-x86_64`);
  await mkdir(inside);
  for (const name of ["firecracker", "jailer"]) await script(join(inside, `${name}-v${version}-x86_64`));
  await runTool("tar", ["-czf", "archive.tgz", `release-v${version}-x86_64`], { cwd: dir });
  const archive = await readFile(join(dir, "archive.tgz"));
  const server = createServer((request, response) => {
    const there = request.url === `/v${version}/firecracker-v${version}-x86_64.tgz`;
    response.writeHead(there ? 200 : 404).end(there ? archive : "");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(async () => {
    server.close();
  });
  const place = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { place, sha256: createHash("sha256").update(archive).digest("hex") };
}

test("an official release that the user names is fetched, checked and used", async (t) => {
  const assets = await scratch(t);
  const { place, sha256 } = await releases(t, "1.17.0");
  const env = { PATH: "", STACYVM_FIRECRACKER_RELEASE: `1.17.0:${sha256}`, STACYVM_FIRECRACKER_RELEASES: place };
  const found = await installFirecracker(assets, { env });
  assert.deepEqual([found.source, found.version, found.notes], ["installed", "1.17.0", []]);
  assert.equal(found.jailer, join(assets, "firecracker/official-1.17.0/jailer"));
  assert.deepEqual(await readdir(join(assets, "firecracker")), ["official-1.17.0"], "no temporary folder stays");
  // It stays the one in use without being named again.
  assert.equal((await installFirecracker(assets, { env: { PATH: "" } })).version, "1.17.0");
  // A damaged one is fetched again; one that is whole is not.
  await writeFile(found.firecracker, "damaged");
  await installFirecracker(assets, { env });
  assert.equal(await readFile(found.firecracker, "utf8"), "#!/bin/sh\n");
  await installFirecracker(assets, { env, progress: ({ step }) => assert.fail(`again: ${step}`) });
});

test("of several official releases the named one is used, else the newest; one that cannot be fetched leaves what is there", async (t) => {
  const assets = await scratch(t);
  for (const version of ["1.17.0", "1.16.10", "1.16.2"]) {
    const { place, sha256 } = await releases(t, version);
    const env = { PATH: "", STACYVM_FIRECRACKER_RELEASE: `${version}:${sha256}`, STACYVM_FIRECRACKER_RELEASES: place };
    assert.equal((await installFirecracker(assets, { env })).version, version);
    assert.equal((await locateFirecracker(assets, { env })).version, version);
  }
  assert.equal((await locateFirecracker(assets, { env: { PATH: "" } })).version, "1.17.0");
  const { place, sha256 } = await releases(t, "1.17.0");
  const env = { PATH: "", STACYVM_FIRECRACKER_RELEASE: `1.18.0:${sha256}`, STACYVM_FIRECRACKER_RELEASES: place };
  const kept = await installFirecracker(assets, { env });
  assert.equal(kept.version, "1.17.0");
  assert.match(kept.notes.join(), /1\.18\.0.* cannot be fetched: it answered 404/);
});

test("a release that must not be used is not installed, and one that is there is not taken", async (t) => {
  const assets = await scratch(t);
  const { place, sha256 } = await releases(t, "1.16.0");
  const env = { PATH: "", STACYVM_FIRECRACKER_RELEASE: `1.16.0:${sha256}`, STACYVM_FIRECRACKER_RELEASES: place };
  await assert.rejects(installFirecracker(assets, { env }), { code: "not-supported" });
  const dir = join(assets, "firecracker", "official-1.16.0");
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, "firecracker"), "#!/bin/sh\n", { mode: 0o755 });
  await assert.rejects(locateFirecracker(assets, { env: { PATH: "" } }), { code: "unavailable" });
});

test("a release that is named for nothing, since another Firecracker comes first, is said", async (t) => {
  const assets = await scratch(t);
  const own = join(assets, "firecracker");
  await writeFile(own, "#!/bin/sh\n", { mode: 0o755 });
  const env = { PATH: assets, STACYVM_FIRECRACKER_RELEASE: `1.17.0:${"0".repeat(64)}` };
  const { firecracker, notes } = await installFirecracker(join(assets, "assets"), { env });
  assert.equal(firecracker, own);
  assert.match(notes.join(), /names 1\.17\.0, which is not installed: .* comes before it/);
});

test("an archive with another checksum is refused, and nothing takes its place", async (t) => {
  const assets = await scratch(t);
  const { place } = await releases(t, "1.17.0");
  const env = {
    PATH: "",
    STACYVM_FIRECRACKER_RELEASE: `1.17.0:${"0".repeat(64)}`,
    STACYVM_FIRECRACKER_RELEASES: place,
  };
  await assert.rejects(installFirecracker(assets, { env }), { code: "corrupt" });
  await assert.rejects(locateFirecracker(assets, { env: { PATH: "" } }), { code: "unavailable" });
  await assert.rejects(installFirecracker(assets, { env: { PATH: "", STACYVM_FIRECRACKER_RELEASE: "newest" } }), {
    code: "invalid",
  });
});
