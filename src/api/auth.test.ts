import assert from "node:assert/strict";
import { test } from "node:test";
import { validateConfig } from "../config/load.ts";
import { Authenticator, assertSafeToListen } from "./auth.ts";

test("an address beyond this host needs a key", () => {
  const open = validateConfig({ server: { host: "0.0.0.0" } }, "");
  assert.throws(() => assertSafeToListen(open, new Authenticator(open.auth)), /without an API key/);
  const closed = validateConfig({ server: { host: "0.0.0.0" }, auth: { api_key: "secret-value" } }, "");
  assertSafeToListen(closed, new Authenticator(closed.auth));
});
