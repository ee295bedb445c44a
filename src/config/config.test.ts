import assert from "node:assert/strict";
import { chmod, chown, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { packageRoot } from "../host/paths.ts";
import { loadConfig, validateConfig } from "./load.ts";
import { configKeys, redact } from "./schema.ts";

const example = join(packageRoot, "packaging/stacyvm.yaml");

test("the documented configuration names every key, at its default", async () => {
  const raw = parse(await readFile(example, "utf8")) as Record<string, unknown>;
  const named = Object.entries(raw).flatMap(([section, value]) =>
    typeof value === "object" && value !== null ? Object.keys(value).map((key) => `${section}.${key}`) : [section],
  );
  assert.deepEqual(named.sort(), configKeys().sort());
  assert.deepEqual(validateConfig(raw, example), validateConfig({}, "defaults"));
  const { notes } = await loadConfig({ file: example, env: {} });
  assert.deepEqual(notes, [], "nothing of it is taken for another server's");
});

test("environment over file, flags over both; a wrong key is named with its remedy", async () => {
  const dir = await mkdtemp(join(tmpdir(), "stacyvm-config-"));
  try {
    const file = join(dir, "c.yaml");
    await writeFile(file, "server: { port: 1000, host: 127.0.0.2 }\ndefaults: { ttl: 1h }\nworker: { x: 1 }\n");
    const env = { STACYVM_SERVER_PORT: "2000", STACYVM_DEFAULTS_TTL: "90s" };
    const { config, notes } = await loadConfig({ file, env, flags: { "server.host": "127.0.0.3" } });
    assert.deepEqual([config.server.port, config.server.host, config.defaults.ttl], [2000, "127.0.0.3", 90_000]);
    assert.ok(notes.some((note) => note.startsWith("worker")));
    await writeFile(file, "server: { prot: 1 }\ndefaults: { ttl: soon }\n");
    await assert.rejects(loadConfig({ file, env: {} }), /server\.prot: there is no such key.*defaults\.ttl: must be/s);
    // Correcting the file would not help: the environment is asked last.
    const remedy = (given: NodeJS.ProcessEnv): Promise<string> =>
      loadConfig({ file, env: given }).then(
        () => "",
        (error: { remedy: string }) => error.remedy,
      );
    await writeFile(file, "defaults: { ttl: 1h }\n");
    assert.match(await remedy({ STACYVM_PROVIDERS_DEFAULT: "docker" }), /STACYVM_PROVIDERS_DEFAULT in the environment/);
    assert.match(await remedy({ STACYVM_PROVIDER: "docker" }), /STACYVM_PROVIDER in the environment/);
    await writeFile(file, "defaults: { ttl: soon }\n");
    assert.match(await remedy({ STACYVM_SERVER_PORT: "2000" }), /correct this key in .*c\.yaml, or remove it/);
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("names of other providers stand for the default one, unless the configuration says otherwise", () => {
  const aliases = (raw: object): object => validateConfig(raw as Record<string, unknown>, "").providers.aliases;
  assert.deepEqual(new Set(Object.values(aliases({}))), new Set(["auto"]));
  assert.deepEqual(aliases({ providers: { aliases: {} } }), {});
});

test("no key is shown", () => {
  const url = "postgresql://stacyvm:secret-value@db/stacyvm";
  const closed = validateConfig(
    { auth: { api_key: "secret-value", keys: [] }, fleet: { database_url: url, listen_url: url } },
    "",
  );
  assert.ok(!JSON.stringify(redact(closed)).includes("secret-value"));
});

test("the unit leaves sandboxes running when the daemon stops", async () => {
  assert.match(await readFile(join(packageRoot, "packaging/stacyvm.service"), "utf8"), /^KillMode=process$/m);
});

test("no variable that StacyVM itself reads is called unknown", async () => {
  const names = new Set<string>();
  for (const path of await readdir(join(packageRoot, "src"), { recursive: true })) {
    if (!path.endsWith(".ts") || path.endsWith(".test.ts")) continue;
    const text = await readFile(join(packageRoot, "src", path), "utf8");
    for (const [, name] of text.matchAll(/\benv\.(STACYVM_[A-Z_]+)/g)) if (name !== undefined) names.add(name);
  }
  assert.ok(names.has("STACYVM_ACCEL"));
  const env = Object.fromEntries([...names].map((name) => [name, "auto"]));
  const { notes } = await loadConfig({ env: { ...env, STACYVM_CONFIG: "" } });
  assert.deepEqual(notes, []);
});

test("a file of the working directory, which nobody named: not another user's, and nothing of this host but for a server", async () => {
  const dir = await mkdtemp(join(tmpdir(), "stacyvm-config-"));
  try {
    const file = join(dir, "stacyvm.yaml");
    const load = (more: object = {}) => loadConfig({ cwd: dir, env: {}, ...more });
    await writeFile(file, "server: { port: 1000 }\nfirecracker: { path: '', jail: true }\n", { mode: 0o644 });
    assert.equal((await load()).config.server.port, 1000);
    for (const [text, key] of [
      ["firecracker: { path: ./evil.sh }", "firecracker.path"],
      ["firecracker: { jailer: ./evil.sh }", "firecracker.jailer"],
      ["data_dir: ./data", "data_dir"],
      ["network: { private: [127.0.0.0/8] }", "network.private"],
      ["qemu: { kernel: k }\ndatabase: { path: d }", "database.path, qemu.kernel"],
    ] as const) {
      await writeFile(file, `${text}\n`);
      await assert.rejects(load(), { code: "permission", message: new RegExp(`sets ${key}, and`) });
      await load({ serves: true });
      await load({ file });
      await loadConfig({ cwd: dir, env: { STACYVM_CONFIG: file } });
    }
    await chmod(file, 0o666);
    const open = await load({ serves: true });
    assert.match(open.notes.join(), /is not read: everybody may write it/);
    assert.notEqual(open.path, file);
    assert.equal((await load({ file })).path, file);
    if (process.getuid?.() !== 0) return;
    await chmod(file, 0o644);
    await chown(file, 65_534, 65_534);
    assert.match((await load({ serves: true })).notes.join(), /belongs to another user/);
  } finally {
    await rm(dir, { recursive: true });
  }
});
