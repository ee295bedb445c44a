import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { connectServer, localClient, namedServer, type ServerOptions } from "./connection.ts";
import { type Announcement, announce } from "./local-socket.ts";

const VARIABLES = ["STACYVM_DATA_DIR", "STACYVM_URL", "STACYVM_API_KEY", "STACYVM_API_KEY_FILE"] as const;
const surroundings = Object.fromEntries(VARIABLES.map((name) => [name, process.env[name]]));
/** Whoever asks is told which key came. */
const server = createServer((request, response) => {
  seen = request.headers["x-api-key"];
  response.writeHead(seen === "wrong" ? 401 : 200, { "content-type": "application/json" });
  response.end(seen === "wrong" ? '{"code":"UNAUTHORIZED","message":"invalid API key"}' : "[]");
});
let seen: string | string[] | undefined;
let root = "";
let url = "";
let announced: Announcement;

before(async () => {
  root = await mkdtemp(join(tmpdir(), "connection-"));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  announced = await announce(root, { url, key: "of the data directory", pid: process.pid });
  await writeFile(join(root, "bob.key"), "of the file\n");
  await writeFile(join(root, "empty.key"), "\n");
  surround({});
});
afterEach(() => surround({}));
after(async () => {
  for (const [name, value] of Object.entries(surroundings)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  await announced.close();
  server.closeAllConnections();
  server.close();
  await rm(root, { recursive: true });
});

function surround(env: Partial<Record<(typeof VARIABLES)[number], string>>): void {
  for (const name of VARIABLES) delete process.env[name];
  Object.assign(process.env, { STACYVM_DATA_DIR: root, ...env });
}

/** The key that comes to the server of the data directory, and to the same one by its address. */
async function keysOf(options: ServerOptions): Promise<unknown[]> {
  const { signal } = new AbortController();
  const connection = await connectServer(options, signal);
  await connection.client.list();
  const found = seen;
  await connection.close({ signal, hurry: signal } as Parameters<typeof connection.close>[0]);
  assert.equal(connection.kind, "found");
  await (await localClient({ url, key: "of the data directory", pid: 1 }, options)).list();
  assert.equal(seen, found);
  await (await namedServer({ ...options, server: url }))?.list();
  return [found, seen];
}

test("a key that was given is the one that is used, wherever the server was found", async () => {
  const file = join(root, "bob.key");
  assert.deepEqual(await keysOf({}), ["of the data directory", undefined]);
  assert.deepEqual(await keysOf({ apiKeyFile: file }), ["of the file", "of the file"]);
  assert.deepEqual(await keysOf({ apiKey: "typed", apiKeyFile: file }), ["typed", "typed"]);
  surround({ STACYVM_API_KEY: "of the environment" });
  assert.deepEqual(await keysOf({}), ["of the environment", "of the environment"]);
  assert.deepEqual(await keysOf({ apiKeyFile: file }), ["of the file", "of the file"]);
  surround({ STACYVM_API_KEY_FILE: file });
  assert.deepEqual(await keysOf({}), ["of the file", "of the file"]);
  surround({ STACYVM_API_KEY: "", STACYVM_API_KEY_FILE: "" });
  assert.deepEqual(await keysOf({}), ["of the data directory", undefined]);
});

test("a key that is wrong, empty or not to be read is refused; the data directory's does not stand in", async () => {
  surround({ STACYVM_API_KEY: "wrong" });
  await assert.rejects(keysOf({}), /invalid API key/);
  assert.equal(seen, "wrong");
  surround({});
  await assert.rejects(keysOf({ apiKey: "" }), /the key is empty: --api-key/);
  await assert.rejects(keysOf({ apiKeyFile: join(root, "empty.key") }), /the key is empty: .*empty\.key/);
  await assert.rejects(keysOf({ apiKeyFile: join(root, "gone.key") }), /cannot read the key/);
  await assert.rejects(keysOf({ apiKeyFile: "" }), /cannot read the key/);
});
