/**
 * The agent under load, in a real Linux guest. The short form runs always; `AGENT_LOAD=full` moves 1 GiB each way instead of
 * 8 MiB and 1 GiB through a slow reader instead of 24 MiB.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { Agent } from "../src/guest/agent.ts";
import { dataPaths, packageRoot } from "../src/host/paths.ts";
import { type Guest, startGuest } from "./agent-support.ts";

const FULL = process.env.AGENT_LOAD === "full";
const FILE_BYTES = (FULL ? 1024 : 8) * 2 ** 20;
const YES_BYTES = (FULL ? 1024 : 24) * 2 ** 20;
const COMMANDS = 64;
/** How long each of them runs, s: starting them all the time would be what is measured. */
const SLEEP = FULL ? 10 : 0.5;

let guest: Guest;
let agent: Agent;

before(async () => {
  guest = await startGuest({ memoryMiB: 384, diskMiB: FULL ? 2048 : 256 });
  agent = guest.agent;
});

after(async () => {
  await guest?.[Symbol.asyncDispose]();
});

/** Different in every block, and cheap to make. */
async function* blocks(bytes: number, hash: ReturnType<typeof createHash>): AsyncGenerator<Buffer> {
  const block = Buffer.from(crypto.getRandomValues(new Uint8Array(65_536)));
  for (let at = 0; at < bytes; at += block.length) {
    block.writeUIntBE(at, 0, 6);
    const copy = Buffer.from(block);
    hash.update(copy);
    yield copy;
  }
}

/** Runs a terminal that echoes until `done`, and gives the round trips in ms. */
async function echoes(done: Promise<unknown>): Promise<number[]> {
  const command = await agent.start({ argv: ["cat"], pty: { rows: 24, cols: 80 } });
  const output = command.output()[Symbol.asyncIterator]();
  const times: number[] = [];
  let over = false;
  void done.finally(() => {
    over = true;
  });
  for (let i = 0; !over; i++) {
    const start = performance.now();
    await command.write(Buffer.from(`key ${i}\n`));
    let seen = "";
    // Once from the terminal's own echo, once from the program behind it.
    while ((seen.match(new RegExp(`key ${i}\r`, "g")) ?? []).length < 2) {
      const next = await output.next();
      if (next.done) throw new Error(`the terminal ended: ${seen}`);
      if (next.value.type !== "lost") seen += next.value.data.toString("latin1");
    }
    times.push(performance.now() - start);
  }
  await command.kill(9);
  await output.return?.();
  await command.exited;
  return times;
}

test(`${COMMANDS} commands at once while a file goes in and out and a terminal answers`, async () => {
  const path = "/workspace/big";
  const sent = createHash("sha256");
  const received = createHash("sha256");
  const transfer = (async () => {
    await agent.writeFile(path, blocks(FILE_BYTES, sent));
    const { stream } = await agent.readStream(path);
    for await (const chunk of stream) received.update(chunk as Buffer);
  })();
  let ran = 0;
  let moving = true;
  void transfer.finally(() => {
    moving = false;
  });
  const commands = Array.from({ length: COMMANDS }, async (_, i) => {
    for (let round = 0; round < (FULL ? Number.POSITIVE_INFINITY : 2) && (round === 0 || moving); round++) {
      const result = await agent.exec({
        argv: ["/bin/sh", "-c", `echo out ${i}; echo err ${i} >&2; sleep ${SLEEP}; exit ${i}`],
      });
      assert.deepEqual(
        [result.exitCode, result.stdout.toString(), result.stderr.toString()],
        [i, `out ${i}\n`, `err ${i}\n`],
      );
      ran += 1;
    }
  });
  const times = await echoes(Promise.all([transfer, ...commands]));
  await Promise.all([transfer, ...commands]);
  assert.equal(received.digest("hex"), sent.digest("hex"));
  times.sort((a, b) => a - b);
  const at = (q: number) => (times[Math.min(times.length - 1, Math.ceil(q * times.length) - 1)] ?? 0).toFixed(1);
  process.stdout.write(
    `# ${FILE_BYTES >> 20} MiB in and out, ${ran} commands, ${times.length} echoes: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${at(1)} ms\n`,
  );
  assert.ok(times.length >= 3, "the terminal stood still");
  await agent.remove(path);
});

test("`yes` and a slow reader keep the host's memory flat", async () => {
  const command = await agent.start({ argv: ["/bin/sh", "-c", `yes | head -c ${YES_BYTES}`] });
  setFlagsFromString("--expose-gc");
  const collectGarbage = runInNewContext("gc") as () => void;
  // What is really held: garbage that waits for its collection is not.
  const held = () => {
    collectGarbage();
    const { external, heapUsed } = process.memoryUsage();
    return external + heapUsed;
  };
  const base = held();
  let peak = 0;
  let size = 0;
  let looked = 0;
  for await (const event of command.output()) {
    if (event.type === "lost") continue;
    size += event.data.length;
    // Slower than the guest: the writing process has to wait.
    for (let i = 0; i < 4; i++) await new Promise((resolve) => setImmediate(resolve));
    if (size - looked < 2 ** 20) continue;
    looked = size;
    peak = Math.max(peak, held() - base);
  }
  assert.equal(size, YES_BYTES);
  process.stdout.write(
    `# ${YES_BYTES >> 20} MiB of yes: ${(peak / 2 ** 20).toFixed(1)} MiB more on the host at most\n`,
  );
  assert.ok(peak < 8 * 2 ** 20, `${peak} bytes`);
});

test("the daemon's side is killed in mid-stream; its command is attached to again", async () => {
  await agent.close();
  const script = `
    import { connectUnix } from "./src/host/unix-socket.ts";
    import { connectAgent } from "./src/guest/client.ts";
    const stream = await connectUnix(${JSON.stringify(guest.dir)}, "run/agent.sock", { timeoutMs: 10_000 });
    const agent = await connectAgent({ stream, clean: false }, { timeoutMs: 60_000 });
    const command = await agent.start({ argv: ["/bin/sh", "-c", "seq 200000; sleep 0.5; echo end; exit 6"] });
    for await (const event of command.output()) { console.log(command.id); await new Promise(() => setInterval(() => {}, 1000)); }`;
  const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", script], {
    cwd: packageRoot,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  const [id] = (await once(createInterface(child.stdout), "line")) as [string];
  child.kill("SIGKILL");
  await exited;
  agent = await guest.connect();
  const command = await agent.attach(id);
  let all = "";
  let lost = 0;
  for await (const event of command.output()) {
    if (event.type === "lost") lost += event.bytes;
    else all += event.data.toString("latin1");
  }
  assert.ok(all.endsWith("\n200000\nend\n"), all.slice(-40));
  assert.equal(lost + all.length, 1_288_895 + "end\n".length);
  assert.equal((await command.exited).exitCode, 6);
});

test("a fork bomb leaves the agent answering", async () => {
  const bomb = await agent.start({ argv: ["/bin/sh", "-c", "b() { b | b & }; b; sleep 1000"] });
  for (let i = 0; i < 20; i++) await agent.ping();
  await agent.writeFile("/run/alive", Buffer.from("yes"));
  assert.equal((await agent.readFile("/run/alive")).toString(), "yes");
  // All of them are in the group of their shell.
  await bomb.kill(9);
  assert.equal((await bomb.exited).signal, 9);
  assert.equal((await agent.exec({ argv: ["true"] })).exitCode, 0);
});

test("too many commands and too large a request are errors to their callers alone", async () => {
  const started = await Promise.allSettled(Array.from({ length: 450 }, () => agent.start({ argv: ["sleep", "1000"] })));
  const refused = started.flatMap((one) => (one.status === "rejected" ? [(one.reason as { code?: string }).code] : []));
  assert.ok(refused.length > 0 && refused.length < 400, `${refused.length} were refused`);
  assert.deepEqual([...new Set(refused)], ["limit"]);
  await agent.ping();
  for (const one of started) if (one.status === "fulfilled") await one.value.kill(9);
  for (const one of started) if (one.status === "fulfilled") assert.equal((await one.value.exited).signal, 9);
  await assert.rejects(agent.exec({ argv: ["true"], env: { LARGE: "x".repeat(140_000) } }), { code: "too-large" });
  assert.equal((await agent.exec({ argv: ["true"] })).exitCode, 0);
});

test("an idle agent makes no wake-ups, and its binary is small", async () => {
  const switches = async () => {
    const status = (await agent.readFile("/proc/1/status")).toString();
    return ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"].map((name) =>
      Number(new RegExp(`^${name}:\\s*(\\d+)`, "m").exec(status)?.[1]),
    );
  };
  await switches();
  const [quick, preempted] = await switches();
  const [again] = await switches();
  // The time itself is what is measured: between two readings, an idle agent runs only for the readings.
  await new Promise((resolve) => setTimeout(resolve, 2000));
  const [later, later2] = await switches();
  const perReading = (again ?? 0) - (quick ?? 0);
  process.stdout.write(
    `# switches: ${perReading} of one reading, ${(later ?? 0) - (again ?? 0)} over 2 s with one reading\n`,
  );
  assert.ok((later ?? 0) - (again ?? 0) <= perReading + 2, `${later} - ${again}, one reading takes ${perReading}`);
  assert.ok((later2 ?? 0) - (preempted ?? 0) <= 4);
  const { size } = await stat(join(dataPaths().assets, "agent", "stacyvm-agent"));
  assert.ok(size <= 1_800_000, `${size} bytes`);
});

test("top draws its screen again and again and leaves; the kernel's log can be read", async () => {
  const command = await agent.start({ argv: ["top", "-d", "1"], pty: { rows: 30, cols: 100 } });
  let all = "";
  let asked = false;
  for await (const event of command.output()) {
    if (event.type !== "lost") all += event.data.toString("latin1");
    if (!asked && /Load average[\s\S]*PID[\s\S]*Load average[\s\S]*PID/.test(all)) {
      asked = true;
      await command.write(Buffer.from("q"));
    }
  }
  assert.ok(asked, all);
  assert.equal((await command.exited).exitCode, 0);
  assert.match((await agent.console()).toString("latin1"), /Linux version/);
});
