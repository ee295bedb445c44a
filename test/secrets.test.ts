/** Secrets that a guest uses and never has: a real guest, a real TLS server on this host, and what is on disk of it afterwards. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createSecureServer, type Http2SecureServer } from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Authority, certify, makeAuthority } from "../src/egress/secrets/authority.ts";
import { runTool } from "../src/host/run.ts";
import { lookFor } from "./look-for.ts";
import { Server } from "./server-support.ts";

const ADDRESS = "127.8.8.9";
const VALUES = ["first-value-of-the-secret", "second-value-of-the-secret"] as const;
const OWN = "value-of-one-sandbox-alone";
const config = (root: string): string => `
network: { private: ["${ADDRESS}"], names: { api.test: "${ADDRESS}", other.test: "${ADDRESS}" }, ca_file: "${root}/world.pem" }
secrets: { key: "${"7f".repeat(32)}" }
warm: { adaptive: false }
`;
/** Asks with what every Python has, once by the proxy of the environment and once without. */
const ASK = `
import os, sys, urllib.request
url, headers = sys.argv[1], dict(h.split("=", 1) for h in sys.argv[2:])
for proxies in ({}, None):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    with opener.open(urllib.request.Request(url, headers=headers)) as answer:
        print(answer.status, answer.headers["x-echo"], answer.read().decode())
`;

describe("the secrets of a sandbox", () => {
  let server: Server;
  let real: Http2SecureServer;
  let port = 0;
  const sockets = new Set<Socket>();
  const seen: (string | undefined)[] = [];

  const good = (method: string, path: string, body?: unknown) => server.ok(method, path, body);
  const run = (id: string, command: string): Promise<{ exit_code: number; stdout: string; stderr: string }> =>
    good("POST", `/sandboxes/${id}/exec`, { command });
  const spawn = async (more: object): Promise<string> =>
    (await good("POST", "/sandboxes", { image: "stacyvm/python", memory_mb: 256, ...more })).id;
  /** What the host has seen of both requests of `ASK`. */
  const ask = async (id: string, url = `https://api.test:${port}/path`, ...headers: string[]): Promise<unknown[]> => {
    seen.length = 0;
    const words = [ASK, url, ...headers].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
    const { exit_code, stdout, stderr } = await run(id, `python3 -c ${words}`);
    assert.equal(exit_code, 0, stderr);
    assert.ok(!/value-of/.test(stdout), stdout);
    return [...seen];
  };

  before(async () => {
    const world: Authority = await makeAuthority();
    const { cert, key } = await certify(world, "api.test");
    real = createSecureServer({ cert, key, allowHTTP1: true }, (request, response) => {
      const { authorization, "x-api-key": own } = request.headers;
      seen.push(authorization ?? (own as string | undefined));
      response.writeHead(200, { "x-echo": `it was ${authorization ?? own}` });
      const [, size] = /^\/large\/(\d+)$/.exec(request.url ?? "") ?? [];
      response.end(size === undefined ? `page ${request.url}` : "l".repeat(Number(size)));
    });
    real.on("connection", (socket: Socket) => {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
    });
    real.listen(0, ADDRESS);
    await once(real, "listening");
    port = (real.address() as AddressInfo).port;
    server = await Server.create();
    await server.stop("SIGTERM");
    await writeFile(join(server.root, "world.pem"), world.certificate);
    await writeFile(join(server.root, "stacyvm.yaml"), config(server.root));
    await server.start();
    const secret = { hosts: [`api.test:${port}`], value: VALUES[0] };
    assert.equal((await good("PUT", "/secrets/API_TOKEN", secret)).kept, true);
  });
  after(async () => {
    await server[Symbol.asyncDispose]();
    for (const socket of sockets) socket.destroy();
    real.close();
  });

  test("programs have a placeholder, the host has the value; a changed one is used by the next request", async () => {
    const id = await spawn({ secrets: ["API_TOKEN"] });
    const placeholder = (await run(id, "printf %s $API_TOKEN")).stdout;
    assert.match(placeholder, /^placeholder-/);
    assert.deepEqual((await good("GET", `/sandboxes/${id}`)).secrets, ["API_TOKEN"]);
    const [first, second] = VALUES.map((value) => `Bearer ${value}`);
    assert.deepEqual(await ask(id), [first, first]);
    assert.deepEqual(await ask(id, undefined, `Authorization=Bearer ${placeholder}`), [first, first]);
    assert.deepEqual(await ask(id, undefined, "Authorization=Bearer mine"), ["Bearer mine", "Bearer mine"]);
    await good("PUT", "/secrets/API_TOKEN", { value: VALUES[1] });
    assert.deepEqual(await ask(id), [second, second]);
    // Other hosts get nothing, and their certificate is their own: not one that this guest trusts.
    const other = await run(
      id,
      `python3 -c "import urllib.request; urllib.request.urlopen('https://other.test:${port}/')"`,
    );
    assert.match(other.stderr, /not among the hosts|Name or service|403/);
    await good("PUT", `/sandboxes/${id}/network`, { allowed_hosts: [`api.test:${port}`, `other.test:${port}`] });
    const opaque = await run(
      id,
      `python3 -c "import urllib.request; urllib.request.urlopen('https://other.test:${port}/')"`,
    );
    assert.match(opaque.stderr, /CERTIFICATE_VERIFY_FAILED/);
    await good("DELETE", `/sandboxes/${id}`);
  });

  test("an answer of any size comes whole to a program that asks for its connection to be closed", async () => {
    const id = await spawn({ secrets: ["API_TOKEN"] });
    // Of more than what waits between the two ends, by the proxy and without it, and at a slow reader's pace.
    const read = `
import time, urllib.request
for proxies in ({}, None):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    for size, pause in ((100_000, 0), (3_000_000, 0), (1_000_000, 0.1)):
        got = 0
        with opener.open(f"https://api.test:${port}/large/{size}") as answer:
            while part := answer.read(100_000):
                got += len(part)
                time.sleep(pause)
        print(got == size)`;
    const { stdout, stderr } = await run(id, `python3 -c '${read}'`);
    assert.equal(stdout, "True\n".repeat(6), stderr);
    await good("DELETE", `/sandboxes/${id}`);
  });

  test("nothing of a value is in a guest's memory or disk: suspended, forked, in a checkpoint, after a killed daemon", async () => {
    await good("PUT", "/secrets/API_TOKEN", { value: VALUES[1] });
    const own = {
      name: "OWN",
      value: OWN,
      hosts: [`api.test:${port}`],
      placement: { kind: "header", name: "X-Api-Key" },
    };
    const id = await spawn({ secrets: ["API_TOKEN", own] });
    const used = [`Bearer ${VALUES[1]}`, `Bearer ${VALUES[1]}`];
    assert.deepEqual(await ask(id), used);
    const [child] = (await good("POST", `/sandboxes/${id}/fork`, {})).sandboxes;
    assert.deepEqual(child.secrets, ["API_TOKEN", "OWN"]);
    assert.deepEqual(await ask(child.id), used);
    const placeholder = (await run(id, "printf %s $OWN")).stdout;
    const checkpoint = await good("POST", `/sandboxes/${id}/checkpoints`, {});
    await good("POST", `/sandboxes/${id}/suspend`);
    const found = await lookFor(server.root, [placeholder, ...VALUES, OWN]);
    // The search finds what is there.
    assert.ok(
      found.some(({ path, text }) => text === placeholder && /memory\.bin$/.test(path)),
      JSON.stringify(found),
    );
    assert.deepEqual(
      found.filter(({ text }) => text !== placeholder),
      [],
    );
    await good("POST", `/sandboxes/${id}/resume`);
    assert.deepEqual(await ask(id), used);
    await server.stop("SIGKILL");
    await server.start();
    for (const each of [id, child.id]) assert.deepEqual(await ask(each), used);
    await good("POST", `/sandboxes/${id}/restore`, { checkpoint: checkpoint.id });
    assert.deepEqual(await ask(id), used);
    // A sandbox of its own, with what its own spawn names.
    const later = await spawn({ checkpoint: checkpoint.id, secrets: ["API_TOKEN"] });
    assert.deepEqual(await ask(later), used);
    for (const each of [id, child.id, later]) await good("DELETE", `/sandboxes/${each}`);
    assert.ok(!/value-of/.test(server.log), "the log has none");
    const told = JSON.stringify([
      await good("GET", "/secrets"),
      await good("GET", "/config"),
      await good("GET", "/diagnostics"),
    ]);
    assert.ok(!/value-of/.test(told), "nor has any answer");
  });

  test("a golden machine has what spawns with secrets share: copied up, and neither changed nor to be seen", async () => {
    const bundle = "/etc/ssl/certs/ca-certificates.crt";
    const look = `import os; [print(s.st_ctime > s.st_mtime) for s in map(os.stat, ["${bundle}", "/etc/ssl/openssl.cnf"])]`;
    const seen = `python3 -c '${look}'; grep -c BEGIN ${bundle}; tail -c 60 ${bundle}; ls -d /etc/ssl/stacyvm`;
    await good("POST", "/snapshots", { image: "stacyvm/python", memory_mb: 256 });
    const [plain, secret] = [await spawn({}), await spawn({ secrets: ["API_TOKEN"] })];
    const [without, with_] = [await run(plain, seen), await run(secret, seen)];
    const [copied, other, count = "", ...rest] = without.stdout.split("\n");
    assert.deepEqual([copied, other], ["True", "False"]);
    assert.ok(!rest.includes("/etc/ssl/stacyvm"));
    assert.equal(with_.stdout.split("\n")[2], `${Number(count) + 1}`);
    assert.match(with_.stdout, /^\/etc\/ssl\/stacyvm$/m);
    for (const id of [plain, secret]) await good("DELETE", `/sandboxes/${id}`);
  });

  test("a template names secrets, and says which variable has them", async () => {
    const template = {
      name: "with-secret",
      image: "stacyvm/python",
      memory_mb: 256,
      secrets: [{ name: "API_TOKEN", inject_at: "TOKEN" }],
    };
    await good("POST", "/templates", template);
    const { id } = await good("POST", "/templates/with-secret/spawn", {});
    assert.match((await run(id, "printf %s $TOKEN")).stdout, /^placeholder-/);
    assert.deepEqual(await ask(id), [`Bearer ${VALUES[1]}`, `Bearer ${VALUES[1]}`]);
    await good("DELETE", `/sandboxes/${id}`);
    await good("DELETE", "/secrets/API_TOKEN");
    assert.equal((await server.call("POST", "/templates/with-secret/spawn", {})).status, 404);
  });

  test("Java's keytool reads the certificates that Java programs are given", async (t) => {
    const tool = await runTool("keytool", ["-help"], {}).catch(() => undefined);
    if (tool === undefined) return t.skip("there is no keytool on this host");
    const id = await spawn({ secrets: [{ name: "OWN", value: OWN, hosts: ["api.test"] }] });
    const { stdout } = await run(id, "base64 -w0 /etc/ssl/stacyvm/cacerts.jks");
    const path = join(server.root, "cacerts.jks");
    await writeFile(path, Buffer.from(stdout, "base64"));
    const listed = await runTool("keytool", ["-list", "-v", "-keystore", path, "-storepass", "changeit"], {});
    assert.match(String(listed), /Owner: CN=StacyVM sandbox CA/);
    await good("DELETE", `/sandboxes/${id}`);
  });
});
