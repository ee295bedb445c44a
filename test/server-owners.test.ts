/** Owners and users against a real server: other users of this host, sockets into a real sandbox, the key that programs find. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { WebSocket } from "ws";
import { Client } from "../sdk/src/index.ts";
import { firstExisting } from "../src/host/exists.ts";
import { packageRoot } from "../src/host/paths.ts";
import { Cli } from "./cli-support.ts";
import { Server } from "./server-support.ts";

const NOBODY = 65_534;
const setpriv = await firstExisting(["/usr/bin/setpriv", "/bin/setpriv"]);
const asNobody =
  setpriv === undefined || process.getuid?.() !== 0 ? "needs root and setpriv, to be another user" : false;

/** What a program of another user gets. */
async function otherUser(code: string, ...args: string[]): Promise<string> {
  const user = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"];
  const { stdout } = await promisify(execFile)(setpriv ?? "", [...user, process.execPath, "-e", code, ...args], {
    cwd: "/",
    env: {},
  });
  return stdout;
}

describe("a server without a configured key", () => {
  let server: Server;
  const keys: Record<string, string> = {};
  let id = "";

  before(async () => {
    server = await Server.create();
    for (const [name, owner, scope] of [
      ["use", "alice", "use"],
      ["read", "alice", "read"],
      ["other", "bob", "use"],
      ["admin", "ops", "admin"],
      ["revoked", "alice", "admin"],
    ] as const) {
      const made = await server.call("POST", "/keys", { name, owner, scopes: [scope] });
      keys[name] = made.body.key;
    }
    await server.call("DELETE", "/keys/revoked");
    const spawned = await fetch(`${server.url}/api/v1/sandboxes`, {
      method: "POST",
      headers: { "x-api-key": keys.use ?? "", "content-type": "application/json" },
      body: JSON.stringify({ image: "stacyvm/busybox", memory_mb: 128 }),
    });
    assert.equal(spawned.status, 201);
    id = ((await spawned.json()) as { id: string }).id;
  });
  after(() => server[Symbol.asyncDispose]());

  test("another user of this host is refused, told what to do, and let in with a key", { skip: asNobody }, async () => {
    const ask =
      "fetch(process.argv[1], { headers: process.argv[2] ? { 'x-api-key': process.argv[2] } : {} })" +
      ".then(async (r) => console.log(r.status, await r.text()))";
    const url = `${server.url}/api/v1/sandboxes`;
    assert.match(await otherUser(ask, url), /^401 .*uid 65534.*stacyvm key create/);
    assert.match(await otherUser(ask, url, keys.use ?? ""), new RegExp(`^200 .*${id}`));
    assert.match(await otherUser(ask, url, keys.other ?? ""), /^200 \[\]/);
    // The kernel shows a socket that its program has closed as root's.
    const flee = `
      const { connect } = require("node:net");
      const [, url] = process.argv, { hostname, port } = new URL(url), body = '{"name":"stolen","scopes":["admin"]}';
      const request = "POST /api/v1/keys HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Type: application/json\\r\\nContent-Length: " + body.length + "\\r\\n\\r\\n" + body;
      for (let i = 0; i < 30; i++) connect(port, hostname, function () { this.write(request, () => this.destroy()); });`;
    await otherUser(flee, server.url);
    // Behind them in the server's queue.
    const { body } = await server.call("GET", "/keys");
    assert.ok(!body.some(({ name }: { name: string }) => name === "stolen"), JSON.stringify(body));
  });

  test("the key that programs of its own user find is theirs alone, and goes to that server alone", async () => {
    const path = join(server.root, "server.key");
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    const { key, url } = JSON.parse(await readFile(path, "utf8"));
    assert.equal(url, server.url);
    const before = process.env.STACYVM_DATA_DIR;
    process.env.STACYVM_DATA_DIR = server.root;
    try {
      assert.equal((await new Client({ url: server.url }).identity()).name, "local");
      const sent: (string | null)[] = [];
      const elsewhere = new Client({
        url: "http://127.0.0.1:1",
        retries: 0,
        fetch: async (_, init) => {
          sent.push(new Headers(init?.headers).get("x-api-key"));
          return new Response("{}", { status: 500 });
        },
      });
      await elsewhere.identity().catch(() => {});
      assert.deepEqual(sent, [null]);
      // The Python package's way to it is a file without imports of others.
      const finder = join(packageRoot, "python/src/stacyvm_sdk/local_key.py");
      const program = "import sys; exec(open(sys.argv[1]).read()); print(*(local_key(url) for url in sys.argv[2:]))";
      const { stdout } = await promisify(execFile)("python3", [
        ...["-c", program, finder],
        ...[server.url, server.url.replace("127.0.0.1", "localhost"), "http://127.0.0.1:1"],
      ]);
      assert.equal(stdout, `${key} ${key} None\n`);
    } finally {
      if (before === undefined) delete process.env.STACYVM_DATA_DIR;
      else process.env.STACYVM_DATA_DIR = before;
    }
    assert.ok(!server.log.includes(key));
  });

  test("a command that is given a key is who has it, on the own data directory too; a wrong one is nobody", async () => {
    const main = join(packageRoot, "src/cli/main.ts");
    const { STACYVM_URL: _, ...rest } = process.env;
    const run = (args: string[], env: Record<string, string>) =>
      promisify(execFile)(process.execPath, [main, ...args], {
        env: { ...rest, STACYVM_DATA_DIR: server.root, ...env },
        cwd: server.root,
      });
    const bob = { STACYVM_API_KEY: keys.other ?? "" };
    assert.equal((await run(["ls", "-q"], {})).stdout, `${id}\n`);
    assert.equal((await run(["ls", "-q"], bob)).stdout, "");
    const file = join(server.root, "bob.key");
    await writeFile(file, `${keys.other}\n`, { mode: 0o600 });
    await run(["rm", "--all", "--api-key-file", file], {});
    assert.equal((await run(["ls", "-q"], { STACYVM_API_KEY: keys.use ?? "" })).stdout, `${id}\n`);
    for (const env of [{ STACYVM_API_KEY: "wrong" }, { STACYVM_API_KEY: keys.revoked ?? "" }]) {
      await assert.rejects(run(["ls"], env), /invalid API key/);
    }
    const finder = join(packageRoot, "python/src/stacyvm_sdk/local_key.py");
    const program = "import sys; exec(open(sys.argv[1]).read()); print(key_of_file())";
    const python = (env: Record<string, string>) =>
      promisify(execFile)("python3", ["-c", program, finder], { env: { ...rest, ...env } });
    assert.equal((await python({ STACYVM_API_KEY_FILE: file })).stdout, `${keys.other}\n`);
    assert.equal((await python({ STACYVM_API_KEY_FILE: "" })).stdout, "None\n");
    await assert.rejects(python({ STACYVM_API_KEY_FILE: "/gone" }), /ValueError/);
  });

  test("sockets and previews: who may open which", async () => {
    const started = await fetch(`${server.url}/api/v1/sandboxes/${id}/exec`, {
      method: "POST",
      headers: { "x-api-key": keys.use ?? "", "content-type": "application/json" },
      body: JSON.stringify({ command: "mkdir -p /www && echo hello > /www/index.html && httpd -p 8080 -h /www" }),
    });
    assert.equal(((await started.json()) as { exit_code: number }).exit_code, 0);
    const port = new URL(server.url).port;
    const ways: Record<string, { url: string; host?: string; socket: boolean }> = {
      terminal: { url: `/api/v1/sandboxes/${id}/terminal`, socket: true },
      exec: { url: `/api/v1/sandboxes/${id}/exec/ws`, socket: true },
      tunnel: { url: `/api/v1/sandboxes/${id}/tunnel/8080`, socket: true },
      preview: { url: `/api/v1/sandboxes/${id}/ports/8080/`, socket: false },
      "preview by name": { url: "/", host: `8080-${id}.localhost:${port}`, socket: false },
      watch: { url: `/api/v1/sandboxes/${id}/files/watch?path=/tmp`, socket: false },
    };
    for (const [name, { url, host, socket }] of Object.entries(ways)) {
      const open = (key: string | undefined): Promise<number> => {
        const headers = { ...(key === undefined ? {} : { "x-api-key": key }), ...(host === undefined ? {} : { host }) };
        return socket
          ? upgrade(`${server.url.replace("http", "ws")}${url}`, headers)
          : get(`${server.url}${url}`, headers);
      };
      const good = socket ? 101 : 200;
      assert.equal(await open(keys.use), good, `${name} with the owner's key`);
      assert.equal(await open(keys.admin), good, `${name} for an administrator`);
      assert.equal(await open(keys.other), 404, `${name} with another owner's`);
      assert.equal(await open(keys.revoked), 401, `${name} with a revoked one`);
      assert.equal(await open("nonsense"), 401, `${name} with a wrong one`);
      assert.equal(await open(keys.read), name === "watch" ? 200 : 403, `${name} with one that may only read`);
      // This test is the server's own user.
      assert.equal(await open(undefined), good, `${name} without a key`);
    }
    const audit = await server.call("GET", "/audit?about=alice&actor=admin");
    assert.ok(audit.body.some(({ route }: { route: string }) => route.endsWith("/terminal")));
  });
});

/** @returns the status of the handshake */
async function upgrade(url: string, headers: Record<string, string>): Promise<number> {
  const socket = new WebSocket(url, { headers });
  const refused = once(socket, "unexpected-response").then(([, response]) => Number(response.statusCode));
  const status = await Promise.race([once(socket, "open").then(() => 101), refused]);
  socket.on("error", () => {});
  socket.terminate();
  return status;
}

/** Of the answer's beginning; `fetch` would not send another Host. */
async function get(url: string, headers: Record<string, string>): Promise<number> {
  const { request } = await import("node:http");
  const outgoing = request(url, { headers }).on("error", () => {});
  outgoing.end();
  const [response] = await once(outgoing, "response");
  outgoing.destroy();
  return response.statusCode;
}

test("a command that is its own server knows the key that it is given, and does not take any for an administrator's", async () => {
  await using cli = await Cli.create();
  const { key } = await cli.json("key", "create", "bob", "--owner", "bob");
  const bob = await cli.run(["ls", "--json"], { env: { STACYVM_API_KEY: key } });
  assert.deepEqual([bob.code, bob.stdout.trim()], [0, "[]"], bob.stderr);
  const above = await cli.run(["key", "ls"], { env: { STACYVM_API_KEY: key } });
  assert.notEqual(above.code, 0, above.stdout);
  const configured = { STACYVM_AUTH_API_KEY: "configured", STACYVM_AUTH_ADMIN_API_KEY: "configured-admin" };
  for (const [given, code] of Object.entries({ configured: 0, "configured-admin": 0, wrong: 1 })) {
    const { code: ended, stderr } = await cli.run(["ls"], { env: { ...configured, STACYVM_API_KEY: given } });
    assert.equal(ended, code, `${given}: ${stderr}`);
  }
});
