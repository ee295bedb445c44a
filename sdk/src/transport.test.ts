import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Client } from "./client.ts";
import { AuthError, CancelledError, ConnectionError, ReplyError, TimeoutError } from "./errors.ts";

/** A client whose server gives these answers in turn; a function may look at the request. */
function scripted(answers: (Response | Error | ((url: string, init: RequestInit) => Response))[]) {
  const seen: string[] = [];
  const fake = (async (url: string, init: RequestInit = {}) => {
    seen.push(`${init.method} ${new URL(url).pathname}`);
    const answer = answers.shift();
    if (answer === undefined) throw new Error("no answer is left");
    if (answer instanceof Error) throw answer;
    return typeof answer === "function" ? answer(url, init) : answer;
  }) as typeof fetch;
  return { client: new Client({ url: "http://host:1", apiKey: "secret", userId: "me", fetch: fake }), seen };
}

const health = (): Response => Response.json({ status: "ok", version: "1", uptime: "1s" });

test("an idempotent call is repeated after a break and after 503; its key is sent", async () => {
  const { client, seen } = scripted([
    new TypeError("fetch failed"),
    Response.json({ code: "UNAVAILABLE", message: "starting" }, { status: 503 }),
    (_, init) => {
      assert.equal((init.headers as Record<string, string>)["x-api-key"], "secret");
      assert.equal((init.headers as Record<string, string>)["x-user-id"], "me");
      return health();
    },
  ]);
  assert.equal((await client.health()).status, "ok");
  assert.equal(seen.length, 3);
});

test("a spawn is never repeated, as it may have happened", async () => {
  const { client, seen } = scripted([new TypeError("socket hang up"), health()]);
  await assert.rejects(client.create(), ConnectionError);
  assert.equal(seen.length, 1);
});

test("what a rate limit turned away is repeated", async () => {
  const limited = Response.json(
    { code: "RESOURCE_LIMIT", message: "slow down" },
    { status: 429, headers: { "x-ratelimit-remaining": "0" } },
  );
  const { client, seen } = scripted([limited, Response.json([], { status: 201 })]);
  await assert.rejects(client.create(), ReplyError);
  assert.equal(seen.length, 2);
});

test("a reply that is not as agreed is refused, with the field's name", async () => {
  const { client } = scripted([Response.json({ status: "ok", version: 7, uptime: "1s" }), new Response("<html>")]);
  await assert.rejects(client.health(), /the reply\.version should be of type string and is number/);
  await assert.rejects(client.health(), /did not answer with JSON/);
});

test("errors have the server's code, hint and request id", async () => {
  const { client } = scripted([
    Response.json({ code: "UNAUTHORIZED", message: "no" }, { status: 401, headers: { "x-request-id": "r1" } }),
  ]);
  await assert.rejects(client.list(), (error) => {
    assert.ok(error instanceof AuthError);
    assert.deepEqual([error.code, error.status, error.requestId], ["UNAUTHORIZED", 401, "r1"]);
    assert.match(error.hint ?? "", /STACYVM_API_KEY/);
    return true;
  });
});

test("a call ends by its signal and by its time limit", async () => {
  const hanging = ((_url: string, { signal }: RequestInit) =>
    new Promise((_, reject) => {
      signal?.addEventListener("abort", () => reject(signal.reason));
    })) as typeof fetch;
  const client = new Client({ url: "http://host:1", fetch: hanging, retries: 0 });
  const abort = new AbortController();
  const call = client.list({ signal: abort.signal });
  abort.abort();
  await assert.rejects(call, CancelledError);
  await assert.rejects(client.list({ timeoutMs: 1 }), TimeoutError);
});

test("names are translated, keys of maps are not, durations may be numbers", async () => {
  let sent: unknown;
  const { client } = scripted([
    (_, init) => {
      sent = JSON.parse(String(init.body));
      return Response.json({ code: "BAD_REQUEST", message: "enough" }, { status: 400 });
    },
  ]);
  await assert.rejects(client.create({ memoryMb: 64, ttl: 90_000, env: { my_key: "v" }, idleTimeout: "5m" }));
  assert.deepEqual(sent, { memory_mb: 64, ttl: "90000ms", env: { my_key: "v" }, idle_timeout: "5m" });
});

test("in a browser the key of a socket is the name of a protocol, and streams are sent whole", async () => {
  const { process } = globalThis;
  const made: unknown[][] = [];
  class Refused {
    constructor(...args: unknown[]) {
      made.push(args);
      throw new Error("enough was seen");
    }
  }
  const bodies: unknown[] = [];
  const fake = (async (_: string, init: RequestInit) => {
    bodies.push(init.body);
    return Response.json({ status: "written" });
  }) as typeof fetch;
  let client: Client;
  Reflect.deleteProperty(globalThis, "process");
  try {
    client = new Client({ url: "http://host:1", apiKey: "schlüssel", fetch: fake, webSocket: Refused as never });
  } finally {
    globalThis.process = process;
  }
  assert.throws(() => client.transport.socket("/sandboxes/{id}/terminal", { id: "sb-1" }), /enough/);
  const name = `stacyvm.key.${Buffer.from("schlüssel").toString("base64url")}`;
  assert.deepEqual(made, [["ws://host:1/api/v1/sandboxes/sb-1/terminal", ["stacyvm", name]]]);
  const raw = new Blob(["content"]).stream();
  await client.transport.open("PUT /sandboxes/{id}/files", { params: { id: "sb-1" }, raw });
  assert.equal(await (bodies[0] as Blob).text(), "content");
});

test("a key of the environment goes before what a server has left, one in a file first; a file without one is refused", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "key-"));
  const names = ["STACYVM_DATA_DIR", "STACYVM_API_KEY", "STACYVM_API_KEY_FILE"] as const;
  const before = names.map((name) => [name, process.env[name]] as const);
  t.after(async () => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
    await rm(root, { recursive: true });
  });
  const url = "http://127.0.0.1:1";
  const stat = await readFile("/proc/self/stat", "utf8");
  const startTime = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  const left = { url, key: "left", pid: process.pid, start_time: startTime };
  await writeFile(join(root, "server.key"), JSON.stringify(left), { mode: 0o600 });
  await writeFile(join(root, "bob.key"), "of the file\n");
  await writeFile(join(root, "empty.key"), "\n");
  const sent = async (env: Record<string, string>, apiKey?: string): Promise<unknown> => {
    for (const name of names) delete process.env[name];
    Object.assign(process.env, { STACYVM_DATA_DIR: root, ...env });
    let key: unknown;
    const fake = (async (_: string, init: RequestInit) => {
      key = (init.headers as Record<string, string>)["x-api-key"];
      return Response.json({ code: "UNAUTHORIZED", message: "no" }, { status: 401 });
    }) as unknown as typeof fetch;
    await assert.rejects(new Client({ url, apiKey, fetch: fake }).list(), AuthError);
    return key;
  };
  const file = { STACYVM_API_KEY_FILE: join(root, "bob.key") };
  assert.equal(await sent({}), "left");
  assert.equal(await sent({ STACYVM_API_KEY: "wrong" }), "wrong");
  assert.equal(await sent({ STACYVM_API_KEY: "other", ...file }), "of the file");
  assert.equal(await sent(file, "option"), "option");
  for (const name of ["empty.key", "gone.key"]) {
    await assert.rejects(sent({ STACYVM_API_KEY_FILE: join(root, name) }), /STACYVM_API_KEY_FILE: cannot read the key/);
  }
});
