import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { resolveHost, resolverOf } from "./resolver.ts";

let dir: string;
let hosts: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "hosts-"));
  hosts = join(dir, "hosts");
  await writeFile(
    hosts,
    "# 10.0.0.9 commented\n10.0.0.1\tone.lan one  # first\n10.0.0.2 ONE.lan\nnonsense one.lan\n::1 six.lan\n",
  );
});
after(() => rm(dir, { recursive: true }));

test("the hosts file decides first, with all its lines, in any case", async () => {
  assert.deepEqual(await resolveHost("one.lan", hosts), ["10.0.0.1", "10.0.0.2"]);
  assert.deepEqual(await resolveHost("one", hosts), ["10.0.0.1"]);
  assert.deepEqual(await resolveHost("six.lan", hosts), ["::1"]);
});

test("an address is itself; a name that nobody knows is `not-found`", async () => {
  assert.deepEqual(await resolveHost("192.0.2.1", hosts), ["192.0.2.1"]);
  assert.deepEqual(await resolveHost("2001:db8::1", hosts), ["2001:db8::1"]);
  await assert.rejects(resolveHost("commented", hosts), { code: "not-found" });
  await assert.rejects(resolveHost("one.lan", join(dir, "none")), { code: "not-found" });
});

test("names of the operator come first, and one that has no address is refused with the remedy", async () => {
  const resolve = resolverOf({ "DB.lan": "10.1.2.3" });
  assert.deepEqual(await resolve("db.lan"), ["10.1.2.3"]);
  await assert.rejects(resolve("other.invalid"), { code: "not-found" });
  assert.throws(() => resolverOf({ "db.lan": "elsewhere" }), { code: "invalid", remedy: /10\.1\.2\.3/ });
});
