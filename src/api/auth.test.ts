import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { test } from "node:test";
import { Access } from "../access/access.ts";
import type { Keys } from "../access/keys.ts";
import { validateConfig } from "../config/load.ts";
import { addressOf, assertLocalRequest, identify, presentedKeys } from "./auth.ts";
import { problemOf } from "./problem.ts";

test("a key is taken from where clients have it, the strongest place first", () => {
  const key = Buffer.from("a key").toString("base64url");
  const found = (headers: Record<string, string>) => presentedKeys(new Headers(headers)).map(({ secret }) => secret);
  assert.deepEqual(found({ "x-api-key": "user", "x-admin-api-key": "admin", authorization: "bearer token" }), [
    ...["admin", "user", "token"],
  ]);
  assert.deepEqual(found({ "sec-websocket-protocol": `stacyvm, stacyvm.key.${key}` }), ["a key"]);
  for (const none of [
    {},
    { authorization: "Basic dXNlcg==" },
    { "sec-websocket-protocol": "stacyvm" },
    { "x-api-key": "" },
  ]) {
    assert.deepEqual(found(none), []);
  }
});

test("one right key is enough, whatever else a request presents, also when its address has sent too many wrong ones", async () => {
  const keys = { find: () => undefined } as unknown as Keys;
  const right = "0123456789abcdef0123456789abcdef";
  const access = new Access({
    configured: [{ name: "right", key: right, scopes: ["use"] }],
    ...{ keys, ownUser: false },
  });
  const config = validateConfig({}, "");
  const ask = (headers: Record<string, string>) => identify(new Headers(headers), undefined, access, config);
  const both = [
    { "x-api-key": "wrong", authorization: `Bearer ${right}` },
    { "x-api-key": right, authorization: "Bearer wrong" },
    { "x-admin-api-key": "wrong", "x-api-key": "wrong", authorization: `Bearer ${right}` },
  ];
  for (let i = 0; i < 50; i++) {
    for (const headers of both) assert.equal((await ask(headers)).name, "right");
  }
  // The wrong ones count: a right key must not be a way to guess a better one.
  await assert.rejects(ask({ "x-api-key": "wrong" }), { code: "limit" });
  await assert.rejects(ask({ "x-api-key": "wrong", authorization: "Bearer wrong, too" }), { code: "limit" });
});

test("a key that is nobody's is refused with what to do, and without whether it ever was somebody's", async () => {
  const keys = { find: () => undefined } as unknown as Keys;
  const access = new Access({ configured: [], keys, ownUser: false });
  const ask = (headers: Record<string, string>) =>
    identify(new Headers(headers), undefined, access, validateConfig({}, "")).catch((error) => problemOf(error));
  const refused = (await ask({ "x-api-key": "ended" })) as ReturnType<typeof problemOf>;
  assert.deepEqual([refused.status, refused.body.message], [401, "invalid API key"]);
  assert.match(refused.body.remedy ?? "", /wrong, has expired or was revoked.*`stacyvm key create`/);
  const none = (await ask({})) as ReturnType<typeof problemOf>;
  assert.deepEqual([none.status, none.body.remedy], [401, undefined]);
});

test("without a key: no other site's page, no foreign name, nobody's proxy", () => {
  const local = validateConfig(
    { server: { allowed_hosts: ["box.lan"], cors_allowed_origins: ["https://app.test"] } },
    "",
  );
  const proxied = validateConfig({ server: { local_proxies: true } }, "");
  const verdict = (headers: Record<string, string>, config = local): number | undefined => {
    try {
      assertLocalRequest(new Headers(headers), config);
      return undefined;
    } catch (error) {
      return (error as { status: number }).status;
    }
  };
  for (const host of ["localhost:7423", "127.0.0.1", "box.lan:80"]) assert.equal(verdict({ host }), undefined, host);
  assert.equal(verdict({ host: "evil.test" }), 403);
  assert.equal(verdict({ host: "localhost", origin: "https://evil.test" }), 403);
  assert.equal(verdict({ host: "localhost:1", origin: "http://localhost:1" }), undefined);
  assert.equal(verdict({ host: "localhost", origin: "https://app.test" }), undefined);
  for (const header of ["forwarded", "x-forwarded-for", "x-real-ip"]) {
    assert.equal(verdict({ host: "localhost", [header]: "127.0.0.1" }), 401, header);
  }
  assert.equal(verdict({ host: "localhost", "x-forwarded-for": "127.0.0.1, ::1" }, proxied), undefined);
  assert.equal(verdict({ host: "localhost", "x-forwarded-for": "127.0.0.1, 192.0.2.1" }, proxied), 401);
  assert.equal(verdict({ host: "localhost", forwarded: "for=127.0.0.1" }, proxied), 401);
});

test("limits by address: what one customer of a provider has counts as one", () => {
  const from = (remoteAddress?: string) => addressOf({ socket: { remoteAddress } } as IncomingMessage);
  assert.equal(from("2001:db8::1:2:3:4"), "2001:db8:0:0");
  assert.equal(from("2001:db8::9999:2:3:4"), "2001:db8:0:0");
  assert.equal(from("2001:db8:1::"), "2001:db8:1:0");
  assert.equal(from("2001:db8:1:2:3:4:5:6"), from("2001:db8:1:2:ffff::1"));
  assert.notEqual(from("2001:db8:1:2::1"), from("2001:db8:1:3::1"));
  assert.deepEqual([from("192.0.2.1"), from("::ffff:192.0.2.1"), from()], ["192.0.2.1", "::ffff:192.0.2.1", "local"]);
});
