/** Parts of E2B's protocol that need no machine. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pageOf } from "./control/paging.ts";
import { FanOut } from "./envd/fan-out.ts";
import { pathOf } from "./envd/users.ts";
import { SandboxTokens, signedLink } from "./sandbox-tokens.ts";

test("tokens stay over restarts, differ by sandbox, and sign links that end", async () => {
  const dir = await mkdtemp(join(tmpdir(), "e2b-"));
  try {
    const [one, other] = await Promise.all([SandboxTokens.open(dir), SandboxTokens.open(dir)]);
    assert.equal((await stat(join(dir, "e2b.key"))).mode & 0o777, 0o600);
    const token = one.of("sb-1");
    assert.ok(other.matches("sb-1", token));
    for (const wrong of [one.of("sb-2"), one.traffic("sb-1"), "", null, undefined]) {
      assert.ok(!one.matches("sb-1", wrong));
    }
    assert.ok(one.matchesTraffic("sb-1", other.traffic("sb-1")) && !one.matchesTraffic("sb-1", token));
    // As E2B's clients make it.
    const sign = (text: string) => `v1_${createHash("sha256").update(text).digest("base64").replace(/=+$/, "")}`;
    const link = (method: string, query: Record<string, string>) => signedLink(method, new URLSearchParams(query));
    const query = {
      path: "/a b",
      username: "user",
      signature: sign(`/a b:read:user:${token}:100`),
      signature_expiration: "100",
    };
    assert.ok(one.matchesSignature("sb-1", link("GET", query), 99_000));
    assert.ok(!one.matchesSignature("sb-1", link("GET", query), 101_000), "its time is over");
    assert.ok(!one.matchesSignature("sb-1", link("POST", query), 99_000), "for reading only");
    assert.ok(!one.matchesSignature("sb-2", link("GET", query), 99_000));
    assert.ok(!one.matchesSignature("sb-1", link("GET", { ...query, path: "/a" }), 99_000));
    assert.ok(!one.matchesSignature("sb-1", link("GET", { ...query, signature_expiration: "x" }), 99_000));
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("pages follow each other to the end", () => {
  const all = Array.from({ length: 5 }, (_, i) => ({ id: `sb-${i}` }));
  const seen: string[] = [];
  let token: string | undefined;
  do {
    const { page, next } = pageOf(all, "2", token);
    seen.push(...page.map(({ id }) => id));
    token = next;
  } while (token !== undefined);
  assert.deepEqual(
    seen,
    all.map(({ id }) => id),
  );
  assert.deepEqual(pageOf(all, undefined, Buffer.from("gone").toString("base64url")), { page: [], next: undefined });
  for (const odd of ["0", "-1", "x", "1.5"]) assert.throws(() => pageOf(all, odd, undefined), { code: "invalid" });
});

test("readers see what comes after them; a slow one holds the source, and one that goes does not", async () => {
  const source = new FanOut<number>();
  await source.publish(0); // nobody reads
  const abort = new AbortController();
  const first = source.read(new AbortController().signal);
  source.read(abort.signal); // reads nothing
  let published = 0;
  const publishing = (async () => {
    for (let i = 1; i <= 200; i++) {
      await source.publish(i);
      published = i;
    }
    source.end();
  })();
  assert.equal((await first.next()).value, 1);
  for (let i = 0; i < 5; i++) await new Promise((wake) => setImmediate(wake));
  assert.ok(published < 100, "it waits for the slow reader");
  abort.abort();
  let last = 1;
  for await (const value of first) last = value;
  await publishing;
  assert.equal(last, 200);
  const late: number[] = [];
  for await (const value of source.read(new AbortController().signal)) late.push(value);
  assert.deepEqual(late, []);
});

test("paths are relative to the home directory, which the tilde means", () => {
  const user = { name: "user", uid: 1000, gid: 1000, home: "/home/user" };
  for (const [path, wanted] of [
    ["", "/home/user"],
    ["~", "/home/user"],
    ["~/a", "/home/user/a"],
    ["a/../b", "/home/user/b"],
    ["/etc//passwd", "/etc/passwd"],
  ] as const) {
    assert.equal(pathOf(path, user), wanted);
  }
  assert.throws(() => pathOf("~other/x", user), { code: "invalid" });
  assert.throws(() => pathOf("a\0b", user), { code: "invalid" });
});
