/**
 * A real guest whose root has taken the agent's channel (guest-programs/hostile-agent.py) and lies on it to every kind of call, through
 * the real server: the daemon stays up and answers, its memory has a bound, a good guest beside it goes on, and what the lies say comes out as an
 * answer or an error of this interface. The same decoders without a machine, in more forms: src/guest/hostile.test.ts, flood.test.ts.
 * `STACYVM_LONG=1` takes the lies that last, too.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { WebSocket } from "ws";
import { packageRoot } from "../src/host/paths.ts";
import { Server } from "./server-support.ts";

const LONG = process.env.STACYVM_LONG === "1";
/** Of the daemon above what it had, with one hostile guest: docs/security.md. */
const MEMORY_BYTES = 400 * 1024 * 1024;
/** How long a client takes what never ends. */
const FLOOD_MS = LONG ? 20_000 : 2_000;
/** What would order a terminal something. */
const ORDERS = /[\p{Cc}\u202e]/u;

/** Each is the answer to a call, and over with it. */
const LIES = ["status", "nothing", "cut-fields", "twice", "others", "kinds", "checks", "torn", "noise"];
/** These go on until the host has had enough. */
const FLOODS = ["events", ...(LONG ? ["credits", "pings", "thousands", "too-much"] : [])];

/** A context that never begins is waited for, and the whole machine is saved as it is. */
const LASTING: [string, string, object][] = [
  ["POST", "/code", { code: "1" }],
  ["POST", "/checkpoints", { name: "lie-status" }],
];

describe("a guest whose agent was replaced", () => {
  let server: Server;
  let bad = "";
  let good = "";
  let memoryBefore = 0;

  const memory = async (): Promise<number> => {
    const kib = /^VmRSS:\s+(\d+)/m.exec(await readFile(`/proc/${server.pid}/status`, "utf8"))?.[1];
    return Number(kib) * 1024;
  };
  const call = (method: string, path: string, body?: unknown) => server.call(method, `/sandboxes/${bad}${path}`, body);
  /** What comes in this time; who waits for no more goes away, and the call with it. A client that reads slowly: what it does not take waits in the guest. */
  const within = async (ms: number, method: string, path: string, body?: object): Promise<string> => {
    let bytes = 0;
    try {
      const response = await fetch(`${server.url}/api/v1/sandboxes/${bad}${path}`, {
        method,
        signal: AbortSignal.timeout(ms),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const parts: Uint8Array[] = [];
      for await (const part of response.body ?? []) {
        bytes += part.length;
        if (bytes < 10_000) parts.push(part);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      return `${response.status} ${Buffer.concat(parts)}`;
    } catch {
      return "nothing";
    }
  };
  /** Asks until the answer is the right one: a lie on the channel ends what else is under way on it, too. */
  const answers = async (path: string, right: (answer: Awaited<ReturnType<typeof call>>) => boolean | undefined) => {
    const until = performance.now() + 120_000;
    for (let answer = await call("GET", path); !right(answer); answer = await call("GET", path)) {
      assert.ok(performance.now() < until, `${path}: ${JSON.stringify(answer.body)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  /** Everybody else, and the server itself. @returns how much memory it has taken, MiB */
  const goesOn = async (): Promise<string> => {
    const { body } = await server.call("POST", `/sandboxes/${good}/exec`, { command: "echo fine" });
    assert.equal(body.stdout, "fine\n", JSON.stringify(body));
    assert.equal((await server.call("GET", "/health")).status, 200);
    const grown = (await memory()) - memoryBefore;
    assert.ok(grown < MEMORY_BYTES, `the daemon grew by ${grown} bytes`);
    return `the daemon has ${(grown / 2 ** 20).toFixed(0)} MiB more`;
  };

  before(async () => {
    server = await Server.create("warm: { adaptive: false }\n");
    // One boot, and two copies of it.
    const shape = { image: "stacyvm/python", memory_mb: 192 };
    const built = await server.call("POST", "/snapshots", shape);
    assert.ok(built.status < 300, JSON.stringify(built.body));
    const spawn = async (): Promise<string> => {
      const { status, body } = await server.call("POST", "/sandboxes", shape);
      assert.equal(status, 201, JSON.stringify(body));
      return body.id;
    };
    [bad, good] = await Promise.all([spawn(), spawn()]);
    const program = await readFile(join(packageRoot, "test/guest-programs/hostile-agent.py"), "utf8");
    await call("POST", "/files", { path: "/tmp/hostile.py", content: program });
    const started = await call("POST", "/processes", { command: "python3 /tmp/hostile.py" });
    assert.equal(started.status, 201, JSON.stringify(started.body));
    await answers("/files/stat?path=/tmp", ({ body }) => body.message?.includes("the channel is taken"));
    memoryBefore = await memory();
    await goesOn();
  });
  after(() => server[Symbol.asyncDispose]());

  test("lists, files, output and changes without end, in any size, and calls that never end", async (t) => {
    const ends = await Promise.all([
      within(FLOOD_MS, "GET", "/files/list?path=/lie-entries"),
      within(FLOOD_MS, "GET", "/files/glob?pattern=lie-paths"),
      within(FLOOD_MS, "GET", "/files?path=/lie-body"),
      within(FLOOD_MS, "GET", "/files/archive?path=/lie-body"),
      within(FLOOD_MS, "POST", "/exec", { command: "lie-ones" }),
      within(FLOOD_MS, "POST", "/exec", { command: "lie-ones", stream: true }),
      within(FLOOD_MS, "GET", "/files/watch?path=/lie-changes"),
      within(FLOOD_MS, "GET", "/files/stat?path=/lie-silence"),
      within(FLOOD_MS, "POST", "/exec", { command: "lie-silence" }),
    ]);
    for (const end of ends) assert.match(end, /^nothing$|^200 |"code":"[A-Z_]+"/);
    t.diagnostic(await goesOn());
  });

  test("numbers beyond arithmetic, words that order a terminal something, answers that are none", async (t) => {
    const numbers = "/files/stat?path=/lie-numbers";
    await answers(numbers, ({ status }) => status === 200);
    assert.equal((await call("GET", numbers)).body.size, Number.MAX_SAFE_INTEGER);
    const words = await call("GET", "/files/stat?path=/lie-words");
    assert.ok(words.status >= 400);
    assert.ok(words.body.message.length < 8_192, String(words.body.message.length));
    assert.doesNotMatch(words.body.message, ORDERS);
    for (const [name, ms] of [
      ...LIES.map((each) => [each, 60_000] as const),
      ...FLOODS.map((each) => [each, FLOOD_MS / 4] as const),
    ]) {
      const ends = [
        await within(ms, "GET", `/files/stat?path=/lie-${name}`),
        await within(ms, "POST", "/exec", { command: `lie-${name}`, timeout: "2s" }),
      ];
      for (const end of ends) assert.match(end, /^nothing$|^200 |"code":"[A-Z_]+"/, name);
      // The channel is opened anew where it had to be, and the next call has an answer.
      await answers(numbers, ({ status }) => status === 200);
    }
    t.diagnostic(await goesOn());
  });

  test("every other kind of call has an end, too", async (t) => {
    const ends: [string, string, object?][] = [
      ["POST", "/files", { path: "/lie-status", content: "x" }],
      ["DELETE", "/files?path=/lie-status"],
      ["POST", "/files/move", { old_path: "/lie-twice", new_path: "/x" }],
      ["POST", "/files/copy", { old_path: "/lie-nothing", new_path: "/x" }],
      ["POST", "/files/chmod", { path: "/lie-cut-fields", mode: "0644" }],
      ["POST", "/files/mkdir", { path: "/lie-words" }],
      ["GET", "/files/list?path=/lie-names"],
      ["GET", "/processes"],
      ["GET", "/processes/1"],
      ["POST", "/processes", { command: "lie-status" }],
      ["POST", "/processes/1/signal", { signal: 15 }],
      ["GET", "/stats"],
      ["GET", "/logs"],
      ["GET", "/contexts"],
      ["POST", "/fork"],
      ["GET", "/ports/80/lie-status"],
      ...(LONG ? LASTING : []),
    ];
    for (const [method, path, body] of ends) {
      const { status, body: answer } = await call(method, path, body);
      assert.ok(status >= 200 && status < 600, path);
      if (status >= 500) assert.match(JSON.stringify(answer), /"code":"[A-Z_]+"/, `${path}: ${status}`);
    }
    const socket = new WebSocket(`${server.url.replace("http", "ws")}/api/v1/sandboxes/${bad}/terminal`);
    const over = new Promise<string>((resolve) => {
      socket.on("message", (data) => resolve(String(data)));
      socket.on("close", () => resolve("closed"));
    });
    socket.on("open", () => socket.send(JSON.stringify({ type: "start", command: "lie-status" })));
    assert.match(await over, /error|exit|started|closed/);
    socket.terminate();
    t.diagnostic(await goesOn());
  });

  test("what is copied out stays in its target, and names order no terminal anything", async () => {
    const dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "out-"));
    try {
      await mkdir(join(dir, "victim"));
      await writeFile(join(dir, "victim", "kept"), "kept");
      const run = (...args: string[]) =>
        promisify(execFile)(process.execPath, [join(packageRoot, "src/cli/main.ts"), ...args], {
          env: { PATH: process.env.PATH ?? "", HOME: dir, STACYVM_URL: server.url },
          timeout: 60_000,
        }).catch((error: { stdout: string; stderr: string }) => error);
      const listed = await run("files", "ls", bad, "/lie-names");
      assert.doesNotMatch(`${listed.stdout}${listed.stderr}`.replaceAll("\n", ""), ORDERS);
      assert.match(listed.stdout, /owned/);
      // The second time the first one's links are there.
      for (let times = 0; times < 2; times++) await run("cp", `${bad}:/lie-tar`, join(dir, "target"));
      assert.deepEqual(await readdir(join(dir, "victim")), ["kept"]);
      assert.equal(await readFile(join(dir, "victim", "kept"), "utf8"), "kept");
      const beside = (await readdir(dir)).filter((name) => !["victim", "target"].includes(name) && name[0] !== ".");
      assert.deepEqual(beside, []);
      await assert.rejects(readFile("/tmp/stacyvm-absolute"), { code: "ENOENT" });
      await goesOn();
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });

  test("it is ended like any other", async () => {
    assert.equal((await server.call("DELETE", `/sandboxes/${bad}`)).status, 200);
    await goesOn();
    // A copy of it, where its lies let it be copied, is a sandbox like any other.
    for (const { id } of (await server.call("GET", "/sandboxes")).body)
      assert.equal((await server.call("DELETE", `/sandboxes/${id}`)).status, 200);
    assert.deepEqual(await server.machines(), []);
    assert.doesNotMatch(server.log, /uncaught|unhandled/i);
  });
});
