/** Against an issuer on loopback, with real keys and signatures. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, describe, test } from "node:test";
import { type CryptoKey, exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { Tokens } from "./tokens.ts";

describe("tokens of an issuer", () => {
  let server: Server;
  let issuer = "";
  let key: CryptoKey;
  let keys: object[] = [];
  const asked: string[] = [];
  let says: (path: string) => object | undefined = () => undefined;

  before(async () => {
    const pair = await generateKeyPair("ES256");
    key = pair.privateKey;
    keys = [{ ...(await exportJWK(pair.publicKey)), kid: "one", alg: "ES256", use: "sig" }];
    server = createServer((request, response) => {
      const path = request.url ?? "";
      asked.push(path);
      const body = says(path);
      response.writeHead(body === undefined ? 500 : 200, { "content-type": "application/json" });
      response.end(JSON.stringify(body ?? {}));
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    says = honest;
  });
  after(() => {
    server.closeAllConnections();
    server.close();
  });

  const honest = (path: string): object | undefined =>
    path === "/.well-known/openid-configuration"
      ? { issuer, jwks_uri: `${issuer}/keys` }
      : path === "/keys"
        ? { keys }
        : undefined;
  const tokens = (over: Partial<ConstructorParameters<typeof Tokens>[0]> = {}): Tokens =>
    new Tokens({
      ...{ issuer, audience: "stacyvm", jwksUrl: "", ownerClaim: "org.name", scopeClaim: "scope", defaultScope: "" },
      ...over,
    });
  const sign = (
    payload: JWTPayload,
    over: { iss?: string; aud?: string; exp?: string; kid?: string; by?: CryptoKey } = {},
  ) =>
    new SignJWT(payload)
      .setProtectedHeader({ alg: "ES256", kid: over.kid ?? "one" })
      .setIssuer(over.iss ?? issuer)
      .setAudience(over.aud ?? "stacyvm")
      .setSubject("alice")
      .setExpirationTime(over.exp ?? "5m")
      .sign(over.by ?? key);
  const claims = { org: { name: "acme" }, scope: "openid stacyvm:use" };

  test("claims become owner and scopes; the issuer's keys are fetched once", async () => {
    const each = tokens();
    asked.length = 0;
    for (let i = 0; i < 3; i++) {
      const identity = await each.identify(await sign(claims));
      assert.deepEqual(
        [identity?.name, identity?.owner, [...(identity?.scopes ?? [])]],
        ["oidc:alice", "acme", ["read", "use"]],
      );
    }
    assert.deepEqual(asked, ["/.well-known/openid-configuration", "/keys"]);
    const listed = await each.identify(await sign({ ...claims, scope: ["admin"] }));
    assert.ok(listed?.scopes.has("admin"));
    assert.ok(Tokens.looksLikeOne(await sign(claims)));
    assert.ok(!Tokens.looksLikeOne("stacyvm_abc-def"));
  });

  test("a wrong issuer, audience, time, signature or algorithm proves nothing", async () => {
    const { privateKey: other } = await generateKeyPair("ES256");
    for (const token of [
      await sign(claims, { iss: "https://other.example" }),
      await sign(claims, { aud: "another" }),
      await sign(claims, { exp: "-5m" }),
      await sign(claims, { by: other }),
      await sign(claims, { kid: "unknown" }),
      `${btoa('{"alg":"none"}').replaceAll("=", "")}.${(await sign(claims)).split(".")[1]}.`,
      await new SignJWT(claims)
        .setProtectedHeader({ alg: "HS256" })
        .setIssuer(issuer)
        .setAudience("stacyvm")
        .setSubject("alice")
        .setExpirationTime("5m")
        .sign(new TextEncoder().encode(JSON.stringify(keys[0]))),
    ]) {
      assert.equal(await tokens().identify(token), undefined, token);
    }
  });

  test("a valid one without an owner or a scope is refused by name", async () => {
    await assert.rejects(tokens().identify(await sign({ scope: "use" })), /org\.name names no owner/);
    await assert.rejects(
      tokens().identify(await sign({ ...claims, org: { name: "a/../b" } })),
      (error: { code?: string }) => error.code === "permission",
    );
    await assert.rejects(tokens().identify(await sign({ ...claims, scope: "openid" })), /names no scope/);
    const identity = await tokens({ defaultScope: "read" }).identify(await sign({ ...claims, scope: "openid" }));
    assert.deepEqual([...(identity?.scopes ?? [])], ["read"]);
  });

  test("who is behind what a token was shown for is known without it, until it expires", async () => {
    const each = tokens();
    const shown = await each.identify(await sign(claims));
    assert.ok(shown);
    const behind = each.behind(shown.credential.id);
    assert.deepEqual([behind?.owner, behind?.scopes, behind?.credential], ["acme", shown.scopes, shown.credential]);
    assert.ok(!shown.credential.id.includes("."));
    const past = Math.floor(Date.now() / 1000) - 60;
    const ended = shown.credential.id.replace(/^jwt-\d+/, `jwt-${past}`);
    for (const odd of [ended, "", "jwt-1", "key-12345678"]) assert.equal(each.behind(odd), undefined, odd);
  });

  test("an issuer that cannot be asked is said, and asked again", async () => {
    const each = tokens();
    says = () => undefined;
    await assert.rejects(
      each.identify(await sign(claims)),
      (error: { code?: string; message: string }) =>
        error.code === "unavailable" && /cannot be asked/.test(error.message),
    );
    says = (path) => (path === "/keys" ? undefined : honest(path));
    await assert.rejects(each.identify(await sign(claims)), (error: { code?: string }) => error.code === "unavailable");
    says = (path) => (path === "/keys" ? { keys } : { issuer: "https://other.example", jwks_uri: `${issuer}/keys` });
    await assert.rejects(tokens().identify(await sign(claims)), /says that it is/);
    says = honest;
    assert.equal((await each.identify(await sign(claims)))?.owner, "acme");
    await assert.rejects(
      tokens({ jwksUrl: "http://keys.example/" }).identify(await sign(claims)),
      /are not at an https address/,
    );
  });
});
