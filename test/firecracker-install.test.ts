/** Set-up of Firecracker from the real package. Needs python3, pip and a registry; without one it says so and is skipped. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { StacyError } from "../src/host/error.ts";
import { installFirecracker } from "../src/vmm/firecracker/install.ts";

const env = { PATH: "" };

test("Firecracker is fetched, checked, installed once, and repaired when it was damaged", async (t) => {
  const assets = await mkdtemp(join(tmpdir(), "fc-assets-"));
  t.after(() => rm(assets, { recursive: true, force: true }));
  const steps: string[] = [];
  let found: Awaited<ReturnType<typeof installFirecracker>>;
  try {
    found = await installFirecracker(assets, { env, progress: (p) => steps.push(p.step) });
  } catch (error) {
    if (!(error instanceof StacyError) || error.code !== "unavailable") throw error;
    t.skip(`${error.message}. It runs where pip reaches a package registry`);
    return;
  }
  assert.equal(found.source, "installed");
  assert.match(found.notes.join(), /old release.*1\.17\.0/, "the user hears of newer ones");
  assert.ok(steps.length >= 2);
  const { stdout } = await promisify(execFile)(found.firecracker, ["--version"]);
  assert.match(stdout, /^Firecracker v1\.12\.1/);
  assert.deepEqual(await readdir(join(assets, "firecracker")), ["1.12.1"], "no temporary folder stays");

  const before = await stat(found.firecracker);
  await installFirecracker(assets, { env, progress: (p) => assert.fail(`again: ${p.step}`) });
  assert.equal((await stat(found.firecracker)).ino, before.ino);

  await writeFile(found.jailer ?? "", "damaged");
  const again = await installFirecracker(assets, { env });
  const version = await promisify(execFile)(again.jailer ?? "", ["--version"]);
  assert.match(version.stdout, /Jailer v1\.12\.1/);
});

test("without network the error says what to do", async (t) => {
  const assets = await mkdtemp(join(tmpdir(), "fc-assets-"));
  t.after(() => rm(assets, { recursive: true, force: true }));
  // A proxy at a port where nobody listens is a host without network; the wheel must come from nowhere else.
  const saved = { ...process.env };
  Object.assign(process.env, {
    HTTPS_PROXY: "http://127.0.0.1:1",
    HTTP_PROXY: "http://127.0.0.1:1",
    https_proxy: "http://127.0.0.1:1",
    http_proxy: "http://127.0.0.1:1",
    NO_PROXY: "",
    no_proxy: "",
    PIP_RETRIES: "0",
    PIP_NO_CACHE_DIR: "1",
  });
  t.after(() => {
    for (const name of Object.keys(process.env)) if (!(name in saved)) delete process.env[name];
    Object.assign(process.env, saved);
  });
  await assert.rejects(installFirecracker(assets, { env }), (error) => {
    assert.ok(error instanceof StacyError);
    assert.equal(error.code, "unavailable");
    assert.equal(error.phase, "install-firecracker");
    assert.match(error.remedy ?? "", /network/);
    return true;
  });
  assert.deepEqual(await readdir(join(assets, "firecracker")), []);
});
