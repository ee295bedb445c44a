import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { OWNER_BOUNDS } from "../host/bounds.ts";
import { systemClock } from "./clock.ts";
import { Events } from "./events.ts";
import { silentLog } from "./observer.ts";
import { Seal } from "./seal.ts";
import { type SecretInput, Secrets } from "./secrets.ts";
import { Store } from "./store.ts";

const VALUE = "the-value-that-nobody-sees";
const KEY: SecretInput = { name: "API_KEY", hosts: ["api.example"], value: VALUE };

function secretsIn(store: Store, seal?: Seal): Secrets {
  const events = new Events(
    store,
    () => 0,
    () => undefined,
  );
  return new Secrets({ store, clock: systemClock, events, log: silentLog, seal, changed: () => {} });
}

async function read(secrets: Secrets, name = "API_KEY", owner = "o", sandbox = "sb-1"): Promise<unknown> {
  return secrets.of(owner, sandbox, [name])[0]?.read();
}

test("values are sealed on disk, opened by the next server, and by nobody with another key", async () => {
  const dir = await mkdtemp(join(tmpdir(), "stacyvm-secrets-"));
  try {
    const path = join(dir, "db");
    const seal = new Seal(randomBytes(32).toString("hex"));
    {
      using store = new Store(path);
      const secrets = secretsIn(store, seal);
      const saved = await secrets.put("o", KEY);
      assert.deepEqual([saved.kept, saved.available, saved.placement], [true, true, { kind: "bearer" }]);
      assert.ok(!JSON.stringify(secrets.list()).includes(VALUE));
      for (const file of await readdir(dir)) {
        const bytes = await readFile(join(dir, file));
        assert.ok(!bytes.includes(VALUE) && !bytes.includes(Buffer.from(VALUE).toString("base64")), file);
      }
    }
    using store = new Store(path);
    assert.deepEqual(await read(secretsIn(store, seal)), { value: VALUE });
    const other = secretsIn(store, new Seal(randomBytes(32).toString("base64")));
    assert.match(JSON.stringify(await read(other)), /missing/);
    assert.equal(other.get("o", "API_KEY").available, false);
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("without a key values are kept in memory alone", async () => {
  using store = new Store(":memory:");
  const secrets = secretsIn(store);
  assert.equal((await secrets.put("o", KEY)).kept, false);
  assert.deepEqual(await read(secrets), { value: VALUE });
  const next = secretsIn(store);
  assert.match(JSON.stringify(await read(next)), /missing.*started anew/);
  assert.ok(!JSON.stringify(store.secrets()).includes(VALUE));
});

test("no secret takes the place of a variable that sandboxes need themselves", async () => {
  using store = new Store(":memory:");
  const secrets = secretsIn(store);
  for (const name of ["PATH", "LD_PRELOAD", "HOME", "https_proxy", "NO_PROXY", "SSL_CERT_FILE", "JAVA_TOOL_OPTIONS"]) {
    await assert.rejects(secrets.put("o", { ...KEY, name }), new RegExp(`cannot be in ${name}`));
    assert.throws(() => secrets.check("o", { ...KEY, name }), new RegExp(`cannot be in ${name}`));
  }
  assert.equal((await secrets.put("o", { ...KEY, name: "MY_PATH" })).name, "MY_PATH");
});

test("a placeholder never has the value in it, whichever of them comes first", async () => {
  using store = new Store(":memory:");
  const secrets = secretsIn(store);
  const refused = /has its value in it/;
  await assert.rejects(secrets.put("o", { ...KEY, placeholder: VALUE }), refused);
  await secrets.put("o", KEY);
  await assert.rejects(secrets.put("o", { name: "API_KEY", placeholder: `x-${VALUE}` }), refused);
  await secrets.put("o", { name: "API_KEY", placeholder: "first-placeholder" });
  await assert.rejects(secrets.put("o", { name: "API_KEY", value: "first-placeholder" }), refused);
  assert.deepEqual(await read(secrets), { value: VALUE });
});

test("what is sealed opens for what it belongs to alone, and unchanged", () => {
  const seal = new Seal(randomBytes(32).toString("hex"));
  const sealed = seal.close("text", "mine");
  assert.equal(seal.open(sealed, "mine"), "text");
  assert.equal(seal.open(sealed, "yours"), undefined);
  const bytes = Buffer.from(sealed, "base64");
  for (const at of [0, 1, 13, bytes.length - 1]) {
    const changed = Buffer.from(bytes);
    changed[at] = (changed[at] ?? 0) ^ 1;
    assert.equal(seal.open(changed.toString("base64"), "mine"), undefined);
  }
  assert.notEqual(seal.close("text", "mine"), sealed);
  for (const wrong of ["", "short", "00".repeat(31), randomBytes(33).toString("base64")])
    assert.throws(() => new Seal(wrong), /32 random bytes/);
});

test("another value counts at once; where it goes does not change without it", async () => {
  using store = new Store(":memory:");
  const secrets = secretsIn(store);
  const { placeholder } = await secrets.put("o", KEY);
  const [kept] = secrets.of("o", "sb-1", ["API_KEY"]);
  await secrets.put("o", { name: "API_KEY", value: "another-value" });
  assert.deepEqual(await kept?.read(), { value: "another-value" });
  for (const change of [{ hosts: ["evil.example"] }, { placement: { kind: "query", name: "k" } }] as const)
    await assert.rejects(secrets.put("o", { name: "API_KEY", ...change } as SecretInput), /together with its value/);
  await secrets.put("o", { name: "API_KEY", everywhere: true });
  assert.deepEqual(
    secrets.granted("o", []).map(({ name }) => name),
    ["API_KEY"],
  );
  assert.equal(secrets.get("o", "API_KEY").placeholder, placeholder);
  await secrets.remove("o", "API_KEY");
  assert.deepEqual(await kept?.read(), { missing: "it was deleted" });
  assert.deepEqual(secrets.of("o", "sb-1", ["API_KEY"]), []);
});

test("files and variables of the server are read when they are needed", async () => {
  const dir = await mkdtemp(join(tmpdir(), "stacyvm-secrets-"));
  try {
    using store = new Store(":memory:");
    const secrets = secretsIn(store);
    const file = join(dir, "key");
    await secrets.put("o", { name: "F", hosts: ["a.example"], file });
    assert.deepEqual(await read(secrets, "F"), { missing: "its file cannot be used" });
    for (const value of ["first-value", "second-value"]) {
      await writeFile(file, `${value}\n`);
      assert.deepEqual(await read(secrets, "F"), { value });
    }
    await secrets.put("o", { name: "V", hosts: ["a.example"], variable: "STACYVM_TEST_OF_SECRETS" });
    assert.deepEqual(await read(secrets, "V"), { missing: "its variable is not set" });
    process.env.STACYVM_TEST_OF_SECRETS = "in-the-environment";
    assert.deepEqual(await read(secrets, "V"), { value: "in-the-environment" });
  } finally {
    delete process.env.STACYVM_TEST_OF_SECRETS;
    await rm(dir, { recursive: true });
  }
});

test("an owner's are his; a sandbox's own are its alone, its copies', and go with it", async () => {
  using store = new Store(":memory:");
  const secrets = secretsIn(store, new Seal("11".repeat(32)));
  await secrets.put("o", KEY);
  assert.deepEqual(secrets.list("other"), []);
  assert.throws(() => secrets.granted("other", ["API_KEY"]), /no secret/);
  assert.equal(await read(secrets, "API_KEY", "other"), undefined);
  await secrets.put("o", { ...KEY, value: "only-for-sb-1" }, "sb-1");
  assert.deepEqual(await read(secrets), { value: "only-for-sb-1" });
  assert.deepEqual(await read(secrets, "API_KEY", "o", "sb-2"), { value: VALUE });
  assert.equal(secrets.list().length, 1);
  await secrets.copy("o", "sb-1", "sb-3");
  await secrets.ended("sb-1");
  assert.deepEqual(await read(secretsIn(store, new Seal("11".repeat(32))), "API_KEY", "o", "sb-3"), {
    value: "only-for-sb-1",
  });
  assert.deepEqual(await read(secrets), { value: VALUE });
  await secrets.sweep(() => false);
  assert.deepEqual(
    store.secrets().map(({ name, sandbox }) => [name, sandbox]),
    [["API_KEY", undefined]],
  );
});

for (const [what, input] of Object.entries({
  "no host": { ...KEY, hosts: [] },
  "every host": { ...KEY, hosts: ["*"] },
  "every port": { ...KEY, hosts: ["a.example:*"] },
  "a group": { ...KEY, hosts: ["@github"] },
  "a range": { ...KEY, hosts: ["10.0.0.0/8"] },
  "a short value": { ...KEY, value: "short" },
  "a value of two lines": { ...KEY, value: "one-line\nX-Evil: yes" },
  "no value": { name: "A", hosts: ["a.example"] },
  "two values": { ...KEY, file: "/f" },
  "a name that is no variable": { ...KEY, name: "a-b" },
  "the host's header": { ...KEY, placement: { kind: "header", name: "Host", template: "{}" } },
  "a header of two lines": { ...KEY, placement: { kind: "header", name: "X-A", template: "{}\r\nX-B: c" } },
  "a header without a place": { ...KEY, placement: { kind: "header", name: "X-A", template: "none" } },
  "an odd placeholder": { ...KEY, placeholder: "a b c d e f" },
}) as [string, SecretInput][]) {
  test(`${what} is refused, without the value in the error`, async () => {
    using store = new Store(":memory:");
    await assert.rejects(secretsIn(store).put("o", input), (error: Error) => !error.message.includes(VALUE));
    assert.deepEqual(store.secrets(), []);
  });
}

test("one that could not be deleted is there, to be deleted again; a sandbox's own is gone from memory all the same", async () => {
  using store = new Store(":memory:");
  const secrets = secretsIn(store);
  await secrets.put("o", KEY);
  await secrets.put("o", { ...KEY, value: "its-own-value" }, "sb-1");
  const { deleteSecret } = store;
  store.deleteSecret = () => Promise.reject(new Error("the disk is full"));
  await assert.rejects(secrets.remove("o", "API_KEY"), /full/);
  await secrets.ended("sb-1");
  assert.deepEqual(await read(secrets), { value: VALUE });
  store.deleteSecret = deleteSecret;
  await secrets.remove("o", "API_KEY");
  await assert.rejects(secrets.remove("o", "API_KEY"), { code: "not-found" });
  assert.equal(await read(secrets), undefined);
});

test("of two changes at once the hosts of one never get the value of the other; a sandbox's own has no name for others", async () => {
  using store = new Store(":memory:");
  const secrets = secretsIn(store);
  await secrets.put("o", KEY);
  await Promise.all([
    secrets.put("o", { ...KEY, hosts: ["new.example"], value: "another-value" }),
    secrets.put("o", { name: "API_KEY", everywhere: true }),
  ]);
  assert.deepEqual(
    [await read(secrets), secrets.get("o", "API_KEY").hosts],
    [{ value: "another-value" }, ["new.example"]],
  );
  await secrets.put("o", { ...KEY, name: "OWN" }, "sb-1");
  assert.throws(() => secrets.get("o", "sb-1/OWN"), /there is no secret/);
  assert.throws(() => secrets.granted("o", ["sb-1/OWN"]), /there is no secret/);
  await assert.rejects(secrets.remove("o", "sb-1/OWN"), /there is no secret/);
});

test("an owner has a bound of secrets; another one, and a sandbox, has its own", async () => {
  using store = new Store(":memory:");
  const secrets = secretsIn(store);
  for (let i = 0; i < OWNER_BOUNDS.secrets; i++) await secrets.put("o", { ...KEY, name: `S${i}` });
  await assert.rejects(secrets.put("o", { ...KEY, name: "MORE" }), { code: "limit" });
  await secrets.put("o", { ...KEY, name: "S0" });
  await secrets.put("o", { ...KEY, name: "MORE" }, "sb-1");
  await secrets.put("p", KEY);
});
