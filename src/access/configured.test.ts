import assert from "node:assert/strict";
import { test } from "node:test";
import { validateConfig } from "../config/load.ts";
import { Store } from "../sandboxes/store.ts";
import { answersOwnUser, assertSafeToListen, configuredKeys, tokenOptions } from "./configured.ts";
import { Keys } from "./keys.ts";
import { isWeak, newSecret } from "./secret.ts";

const STRONG = "0123456789abcdef0123456789abcdef";

test("what others reach needs keys that cannot be guessed; for this host alone a short one is warned of", async () => {
  using store = new Store(":memory:");
  const keys = new Keys(store);
  const safe = (host: string, auth: Record<string, unknown> = {}): string[] =>
    assertSafeToListen(validateConfig({ server: { host }, auth }, ""), keys);
  assert.throws(() => safe("0.0.0.0"), /without an API key/);
  assert.throws(() => safe("::"), /without an API key/);
  assert.throws(() => safe("0.0.0.0", { api_key: "short" }), /can be guessed: api_key/);
  assert.throws(
    () =>
      safe("0.0.0.0", {
        keys: [
          { name: "ci", key: "short", scopes: ["use"] },
          { name: "ok", key: STRONG, scopes: ["use"] },
        ],
      }),
    /can be guessed: ci$/,
  );
  assert.deepEqual(safe("0.0.0.0", { api_key: STRONG }), []);
  assert.deepEqual(safe("0.0.0.0", { api_key: `sha256:${STRONG}${STRONG}` }), []);
  assert.deepEqual(safe("0.0.0.0", { oidc_issuer: "https://i.example", oidc_audience: "a" }), []);
  assert.match(safe("127.0.0.1", { api_key: "short" }).join(), /api_key has less than 128 bits/);
  assert.deepEqual(safe("127.0.0.1"), []);
  await keys.create({ name: "made", owner: "o", scopes: ["use"] }, "test");
  assert.deepEqual(safe("0.0.0.0"), [], "one that this server made is one");
  await keys.revoke("made");
  assert.throws(() => safe("0.0.0.0"), /without an API key/);
});

test("the own user needs no key where none is configured and only this host reaches the server", () => {
  const answers = (raw: Record<string, unknown>): boolean => answersOwnUser(validateConfig(raw, ""));
  assert.equal(answers({}), true);
  assert.equal(answers({ server: { host: "::1" } }), true);
  assert.equal(answers({ server: { host: "0.0.0.0" } }), false);
  assert.equal(answers({ auth: { api_key: "x" } }), false);
  assert.equal(answers({ auth: { keys: [{ name: "a", key: "x", scopes: ["read"] }] } }), false);
  assert.equal(answers({ auth: { oidc_issuer: "https://i.example", oidc_audience: "a" } }), false);
});

test("an API key alone may do everything, unless that is not wanted; with an admin key it is for use", () => {
  const scopes = (auth: Record<string, unknown>): unknown[] =>
    configuredKeys(validateConfig({ auth }, "").auth).map(({ name, scopes }) => [name, ...scopes]);
  assert.deepEqual(scopes({ api_key: "a" }), [["api_key", "admin"]]);
  assert.deepEqual(scopes({ api_key: "a", admin_fallback_enabled: false }), [["api_key", "use"]]);
  assert.deepEqual(scopes({ api_key: "a", admin_api_key: "b" }), [
    ["admin_api_key", "admin"],
    ["api_key", "use"],
  ]);
});

test("tokens need an audience: those for others must not be taken", () => {
  const auth = (raw: Record<string, unknown>) => validateConfig({ auth: raw }, "").auth;
  assert.equal(tokenOptions(auth({})), undefined);
  assert.throws(() => tokenOptions(auth({ oidc_issuer: "https://i.example" })), /oidc_audience: is needed/);
});

test("128 bits: by length and alphabet, and never of a hash", () => {
  assert.ok(!isWeak(newSecret()));
  assert.ok(!isWeak(STRONG));
  assert.ok(isWeak(STRONG.slice(1)), "31 hex digits");
  assert.ok(!isWeak("Zy".repeat(11)));
  assert.ok(isWeak("Zy".repeat(10)));
});
