/** Commands and terminals in a real Linux guest. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Agent, Command, OutputEvent } from "../src/guest/agent.ts";
import { type CollectedOutput, OutputBudget } from "../src/guest/output-budget.ts";
import { StacyError } from "../src/host/error.ts";
import { type Guest, shell, startGuest, testIdentity } from "./agent-support.ts";

let guest: Guest;
let agent: Agent;

before(async () => {
  guest = await startGuest();
  agent = guest.agent;
});

after(async () => {
  await guest?.[Symbol.asyncDispose]();
});

async function text(command: Command, until?: (all: string) => boolean): Promise<string> {
  let all = "";
  for await (const event of command.output()) {
    if (event.type !== "lost") all += event.data.toString("latin1");
    if (until?.(all)) break;
  }
  return all;
}

function sh(script: string): string[] {
  return ["/bin/sh", "-c", script];
}

async function fails(work: Promise<unknown>, code: string): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(error instanceof StacyError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  });
}

test("the guest's kernel sleeps for as long as it is asked to, not to its next tick", async () => {
  assert.match(await shell(agent, "cat /proc/timer_list"), /\.hres_active\s*: 1\n/);
});

test("an identity is applied before the first command", async () => {
  const identity = testIdentity({
    hostname: "individual",
    env: { GREETING: "hello" },
    cwd: "/workspace",
    dns: ["192.0.2.1"],
  });
  const again = await guest.connect(identity);
  agent = again;
  const seen = await shell(
    agent,
    "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id /etc/hostname; echo $GREETING; pwd; cat /etc/resolv.conf; echo $STACYVM_SANDBOX_ID",
  );
  assert.deepEqual(seen.trim().split("\n"), [
    "individual",
    identity.machineId,
    identity.bootId,
    "individual",
    "hello",
    "/workspace",
    "nameserver 192.0.2.1",
    "sb-test",
  ]);
  const info = await agent.info();
  assert.ok(Math.abs(info.nowMs - Date.now()) < 1000, `the guest's clock is off by ${info.nowMs - Date.now()} ms`);
});

test("an identity that fails half-way is told", async () => {
  await fails(agent.identify(testIdentity({ hostname: "x".repeat(65) })), "invalid");
  await fails(guest.connect(testIdentity({ hostname: "x".repeat(65) })), "invalid");
  agent = await guest.connect(testIdentity());
});

test("separate outputs, exit code and signal", async () => {
  const result = await agent.exec({ argv: sh("echo out; echo err >&2; exit 3") });
  assert.deepEqual(
    [result.exitCode, result.reason, result.stdout.toString(), result.stderr.toString()],
    [3, "exited", "out\n", "err\n"],
  );
  const killed = await agent.exec({ argv: sh("kill -9 $$") });
  assert.deepEqual([killed.exitCode, killed.signal], [137, 9]);
});

test("what cannot be started says why", async () => {
  await fails(agent.exec({ argv: ["no-such-program"] }), "not-found");
  await fails(agent.exec({ argv: ["/etc/passwd"] }), "permission");
  await fails(agent.exec({ argv: ["/bin"] }), "permission");
  await fails(agent.exec({ argv: ["true"], cwd: "/no/such/dir" }), "not-found");
  await fails(agent.exec({ argv: ["true"], user: "nobody-here" }), "not-found");
  await fails(agent.exec({ argv: ["true", "nul\0byte"] }), "invalid");
  assert.equal((await agent.exec({ argv: ["true"] })).exitCode, 0);
});

test("user, environment and working directory of one call", async () => {
  const result = await agent.exec({
    argv: sh("id -u; id -g; pwd; echo $X"),
    user: "1234:2345",
    cwd: "/tmp",
    env: { X: "a b" },
  });
  assert.equal(result.stdout.toString(), "1234\n2345\n/tmp\na b\n");
});

test("all 256 byte values pass through stdin and stdout", async () => {
  const bytes = Buffer.from(Array.from({ length: 256 * 1024 }, (_, i) => i % 256));
  const result = await agent.exec({ argv: ["cat"], stdin: bytes });
  assert.ok(result.stdout.equals(bytes));
});

test("more input than the credit, to a slow reader and to one that does not read", async () => {
  const bytes = Buffer.alloc(3_000_000, "x");
  const slow = await agent.exec({ argv: sh("sleep 0.3; wc -c"), stdin: bytes });
  assert.equal(slow.stdout.toString().trim(), "3000000");
  const deaf = await agent.exec({ argv: ["true"], stdin: bytes });
  assert.equal(deaf.exitCode, 0);
});

test("each chunk comes when it is written", async () => {
  const command = await agent.start({ argv: sh("echo one; read x; echo $x"), stdin: true });
  const chunks = command.output()[Symbol.asyncIterator]();
  const first = await chunks.next();
  assert.equal(first.value?.type === "stdout" && first.value.data.toString(), "one\n");
  await command.write(Buffer.from("two\n"));
  const second = await chunks.next();
  assert.equal(second.value?.type === "stdout" && second.value.data.toString(), "two\n");
  assert.equal((await chunks.next()).done, true);
  assert.equal((await command.exited).exitCode, 0);
});

test("multibyte text cut at every position arrives whole", async () => {
  const original = "aé€😀";
  const bytes = Buffer.from(original);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const command = await agent.start({ argv: ["cat"], stdin: true });
    await command.write(bytes.subarray(0, cut));
    await command.write(bytes.subarray(cut));
    await command.closeStdin();
    const parts: Buffer[] = [];
    for await (const event of command.output()) if (event.type !== "lost") parts.push(event.data);
    assert.equal(Buffer.concat(parts).toString("utf8"), original);
  }
});

test("a process left in the background does not delay the result for long, and its later output does no harm", async () => {
  const result = await agent.exec({ argv: sh("(sleep 5; echo late; echo late >/tmp/late) & echo started") });
  assert.equal(result.stdout.toString(), "started\n");
  await shell(agent, "[ ! -e /tmp/late ]");
  await shell(agent, "for i in $(seq 100); do [ -s /tmp/late ] && exit 0; sleep 0.1; done; exit 1");
  await agent.exec({ argv: sh("sleep 1000 >/dev/null 2>&1 & ") });
  // Nor one that writes without an end.
  const endless = await agent.start({ argv: sh("yes & echo $! >&2") });
  let pid = "";
  for await (const event of endless.output()) if (event.type === "stderr") pid += event.data;
  assert.equal((await endless.exited).exitCode, 0);
  await shell(agent, `kill ${pid}`);
});

test("what a command has left behind may still end its words: those of a log's writer", async () => {
  const result = await agent.exec({ argv: sh("(sleep 0.05; echo child) & echo parent") });
  assert.equal(result.stdout.toString(), "parent\nchild\n");
});

test("where it is asked for, a result waits until the output is closed, or somebody ends that", async () => {
  const script = sh("(sleep 1; echo child) & echo parent");
  assert.equal((await agent.exec({ argv: script, untilClosed: true })).stdout.toString(), "parent\nchild\n");
  const held = sh("sleep 1000 & echo started");
  const killed = await agent.start({ argv: held, untilClosed: true });
  while ((await agent.processes()).find(({ id }) => id === killed.id)?.running) await sleep(20);
  await killed.kill(15);
  let said = "";
  for await (const event of killed.output()) if (event.type !== "lost") said += event.data;
  assert.equal(said, "started\n");
  assert.deepEqual(await killed.exited, { exitCode: 0, reason: "exited" });
  const late = await agent.exec({ argv: held, untilClosed: true, timeoutMs: 1_000 });
  assert.deepEqual([late.exitCode, late.stdout.toString()], [0, "started\n"]);
  await shell(agent, "killall sleep");
  // A reader who comes late: that the output was closed was told long before its last byte is read.
  const much = await agent.start({ argv: ["head", "-c", "800001", "/dev/zero"], untilClosed: true });
  while ((await agent.processes()).find(({ id }) => id === much.id)?.running) await sleep(20);
  let bytes = 0;
  for await (const event of much.output()) if (event.type !== "lost") bytes += event.data.length;
  assert.equal(bytes, 800_001);
  assert.equal((await much.exited).reason, "exited");
});

test("orphans are reaped", async () => {
  await shell(agent, "for i in 1 2 3 4 5; do (sh -c 'sleep 0.01 &' &); done; sleep 0.3");
  const zombies = await shell(agent, "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l");
  assert.equal(zombies.trim(), "0");
});

test("a timeout ends the whole process group, with TERM and then with KILL", async () => {
  const soft = await agent.exec({ argv: sh("trap 'echo term; exit 7' TERM; sleep 60 & wait"), timeoutMs: 2_000 });
  assert.deepEqual([soft.reason, soft.exitCode, soft.stdout.toString()], ["timeout", 7, "term\n"]);
  const hard = await agent.exec({
    argv: sh("trap '' TERM; (trap '' TERM; sleep 61.5) & sleep 61.5; sleep 61.5"),
    timeoutMs: 2_000,
    graceMs: 200,
  });
  assert.deepEqual([hard.reason, hard.signal], ["timeout", 9]);
  const sleepers = async (seconds: string): Promise<string> =>
    (
      await shell(
        agent,
        `for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done | grep -cx 'sleep ${seconds} '; true`,
      )
    ).trim();
  // The others of the group were killed with the one whose end is known, and may need a moment for it; by themselves they sleep longer.
  const limit = performance.now() + 30_000;
  let left = await sleepers("61.5");
  while (left !== "0" && performance.now() < limit) left = await sleepers("61.5");
  // That the count can see a sleeper at all. Its shell's child may still be on its way to being `sleep`.
  await shell(agent, "sleep 61.4 >/dev/null 2>&1 &");
  while ((await sleepers("61.4")) === "0") await sleep(50);
  assert.equal(left, "0");
});

test("a command that is to end is asked by the signal that it was started with", async () => {
  const argv = sh("trap 'echo quit; exit 5' QUIT; trap 'echo term; exit 6' TERM; sleep 60 & wait");
  const ended = await agent.exec({ argv, timeoutMs: 2_000, stopSignal: 3 });
  assert.deepEqual([ended.reason, ended.exitCode, ended.stdout.toString()], ["timeout", 5, "quit\n"]);
});

test("cancelling by the caller ends the command", async () => {
  const abort = new AbortController();
  const command = await agent.start({ argv: ["sleep", "100"], signal: abort.signal });
  abort.abort();
  assert.deepEqual(await command.exited, { exitCode: 143, signal: 15, reason: "cancelled" });
});

test("signals by number, to a command and by id", async () => {
  const one = await agent.start({ argv: sh("trap 'exit 42' USR1; while :; do sleep 0.02; done") });
  const other = await agent.start({ argv: ["sleep", "100"] });
  await shell(agent, "sleep 0.2");
  await one.kill(10);
  await agent.signal(other.id, 2);
  assert.equal((await one.exited).exitCode, 42);
  assert.equal((await other.exited).signal, 2);
  await fails(agent.signal("999999", 9), "not-found");
});

test("collected output stops at its limit and at that of all calls together, and says so", async () => {
  const budget = new OutputBudget(1_000_000, 1_500_000);
  const run = async (output: CollectedOutput): Promise<[number, boolean, number]> => {
    const { stdout, truncated, exitCode } = await agent.exec({ argv: sh("yes | head -c 3000000"), output });
    return [stdout.length, truncated, exitCode];
  };
  {
    using one = budget.open();
    using two = budget.open();
    assert.deepEqual(await run(one), [1_000_000, true, 0]);
    assert.deepEqual(await run(two), [500_000, true, 0]);
  }
  using three = budget.open();
  assert.deepEqual(await run(three), [1_000_000, true, 0], "what was disposed of is free again");
});

test("a reader that stops holds the writing process back", async () => {
  const command = await agent.start({ argv: sh("yes | head -c 20000000; echo done >/tmp/yes-done") });
  const output = command.output()[Symbol.asyncIterator]();
  await output.next();
  await shell(agent, "sleep 0.5; ! [ -e /tmp/yes-done ]");
  let size = 0;
  for (let next = await output.next(); !next.done; next = await output.next())
    if (next.value.type !== "lost") size += next.value.data.length;
  assert.ok(size > 19_000_000);
  await command.exited;
  await shell(agent, "[ -e /tmp/yes-done ]");
});

test("processes are listed, detached from and attached to again, also from another connection", async () => {
  const command = await agent.start({
    argv: sh("echo early; for i in $(seq 100); do sleep 0.05; done; echo late; exit 5"),
  });
  const early: OutputEvent[] = [];
  for await (const event of command.output()) {
    early.push(event);
    break;
  }
  await command.detach();
  const listed = (await agent.processes()).find((p) => p.id === command.id);
  assert.equal(listed?.running, true);
  assert.match(listed?.command ?? "", /echo early/);
  assert.ok(Math.abs((listed?.startedAt ?? 0) - Date.now()) < 60_000);
  await agent.close();
  agent = await guest.connect();
  const attached = await agent.attach(command.id);
  assert.equal(await text(attached), "early\nlate\n");
  assert.equal((await attached.exited).exitCode, 5);
  const ended = (await agent.processes()).find((p) => p.id === command.id);
  assert.deepEqual([ended?.running, ended?.exit?.exitCode], [false, 5]);
  assert.equal(await text(await agent.attach(command.id)), "early\nlate\n");
});

test("calls beyond what the agent holds at once are refused as such, and the others go on", async () => {
  const command = await agent.start({ argv: sh("read line; echo got $line"), stdin: true });
  const calls = await Promise.allSettled(Array.from({ length: 1100 }, () => agent.attach(command.id)));
  const refused = calls.filter((call) => call.status === "rejected").map((call) => call.reason);
  // The command's own call is one of 1,024.
  assert.equal(refused.length, 1100 - 1023);
  for (const error of refused) assert.equal(error instanceof StacyError && error.code, "limit", String(error));
  await agent.ping();
  await command.write(Buffer.from("it\n"));
  const followers = calls.flatMap((call) => (call.status === "fulfilled" ? [call.value] : []));
  const outputs = await Promise.all([command, ...followers].map((each) => text(each)));
  assert.deepEqual(new Set(outputs), new Set(["got it\n"]));
  assert.equal(await shell(agent, "echo still here"), "still here\n");
});

test("a ring that has dropped output says how much", async () => {
  const command = await agent.start({
    argv: sh("yes 0123456789abcde | head -c 4194304; sleep 0.2"),
  });
  await command.detach();
  await shell(agent, "sleep 1.5");
  const attached = await agent.attach(command.id);
  let lost = 0;
  let kept = 0;
  for await (const event of attached.output()) {
    if (event.type === "lost") lost += event.bytes;
    else kept += event.data.length;
  }
  assert.equal(lost + kept, 4_194_304);
  assert.ok(kept >= 2 ** 20, `only ${kept} bytes were kept`);
});

test("the connection breaks in mid-stream: calls fail at once, the command goes on", async () => {
  const command = await agent.start({ argv: sh("for i in $(seq 200); do echo line $i; sleep 0.01; done; echo end") });
  const reading = text(command);
  const pending = agent.exec({ argv: ["sleep", "50"] });
  await shell(agent, "sleep 0.3");
  const broken = performance.now();
  await agent.close();
  await fails(reading, "disconnected");
  await fails(pending, "disconnected");
  await fails(agent.ping(), "disconnected");
  assert.ok(performance.now() - broken < 200);
  agent = await guest.connect();
  const attached = await agent.attach(command.id);
  const all = await text(attached);
  assert.ok(all.startsWith("line 1\n") && all.endsWith("line 200\nend\n"), all.slice(-40));
});

test("a terminal: size, resize, job control and interactive programs", { timeout: 60_000 }, async () => {
  const command = await agent.start({ argv: ["/bin/sh"], pty: { rows: 33, cols: 99, term: "xterm" } });
  const output = command.output()[Symbol.asyncIterator]();
  let all = "";
  const until = async (expected: RegExp) => {
    while (!expected.test(all)) {
      const next = await output.next();
      if (next.done) throw new Error(`the terminal ended before ${expected}: ${all}`);
      if (next.value.type !== "lost") all += next.value.data.toString("utf8");
    }
  };
  await command.write(Buffer.from("stty size; echo $TERM; tty\n"));
  await until(/33 99[\s\S]*xterm[\s\S]*\/dev\/pts\/\d/);
  await command.resize(50, 120);
  await command.write(Buffer.from("stty size\n"));
  await until(/50 120/);
  // Its own word says that it is in the foreground; the quotes tell it from the echo of what was typed.
  await command.write(Buffer.from("sh -c 'echo go\"\"ing; exec sleep 1000'\n"));
  await until(/\ngoing/);
  await command.write(Buffer.from("\x03echo interrupted\n"));
  await until(/\ninterrupted/);
  await command.write(Buffer.from("vi /tmp/typed\n"));
  // Its status line: what is typed before vi has set the terminal up is thrown away by that.
  await until(/- \/tmp\/typed/);
  await command.write(Buffer.from("ihello from vi"));
  await until(/ello from vi/);
  all = "";
  // On its own: an escape with text after it would be a key sequence.
  await command.write(Buffer.from("\x1b"));
  await until(/- \/tmp\/typed/);
  await command.write(Buffer.from(":wq\n"));
  await until(/\x1b\[\?1049l/);
  await command.write(Buffer.from("echo saved\n"));
  await until(/\nsaved/);
  assert.equal((await agent.readFile("/tmp/typed")).toString().trim(), "hello from vi");
  await command.write(Buffer.from("exit 9\n"));
  await until(/exit 9/);
  await output.return?.();
  assert.equal((await command.exited).exitCode, 9);
});

test("an interactive Python prompt: results, blocks, the line before, Ctrl-C, resize, Ctrl-D", {
  timeout: 120_000,
}, async () => {
  await using python = await startGuest({ image: "stacyvm/python" });
  // A prompt that never comes ends the program, and with it the reading.
  const signal = AbortSignal.timeout(90_000);
  const pty = { rows: 24, cols: 80, term: "xterm" };
  const command = await python.agent.start({ argv: ["python3", "-q"], pty, signal });
  const output = command.output()[Symbol.asyncIterator]();
  let all = "";
  const until = async (expected: RegExp) => {
    while (!expected.test(all)) {
      const next = await output.next();
      if (next.done) throw new Error(`the terminal ended before ${expected}: ${all}`);
      if (next.value.type !== "lost") all += next.value.data.toString("utf8");
    }
    all = "";
  };
  const type = (text: string) => command.write(Buffer.from(text));
  await until(/>>> $/);
  await type("6 * 7\n");
  await until(/\r\n42\r\n.*>>> $/s);
  await type("for i in range(2):\n");
  await until(/\.\.\. $/);
  await type("    print('turn', i)\n");
  await until(/\.\.\. $/);
  await type("\n");
  await until(/turn 0\r\nturn 1\r\n.*>>> $/s);
  // Escape, bracket, A: the key that brings the line before back, which readline knows only of a terminal.
  await type("n = 40 + 2\n");
  await until(/>>> $/);
  await type("print('value', n)\n");
  await until(/value 42\r\n.*>>> $/s);
  await type("\x1b[A\n");
  await until(/value 42\r\n.*>>> $/s);
  // Many short sleeps: a signal just before one long sleep would wait for its end.
  await type("print('sleeps'); exec('while True: __import__(\"time\").sleep(0.01)')\n");
  await until(/\r\nsleeps\r\n/);
  await type("\x03");
  await until(/KeyboardInterrupt\r\n.*>>> $/s);
  await command.resize(40, 132);
  await type("tuple(__import__('os').get_terminal_size())\n");
  await until(/\(132, 40\)\r\n.*>>> $/s);
  await type("\x04");
  for (;;) if ((await output.next()).done) break;
  const { exitCode, signal: killedBy } = await command.exited;
  assert.deepEqual([exitCode, killedBy], [0, undefined]);
});

test("end of input reaches a program in a terminal", async () => {
  const command = await agent.start({ argv: ["cat"], pty: { rows: 24, cols: 80 } });
  await command.write(Buffer.from("line\n"));
  await command.closeStdin();
  assert.match(await text(command), /line\r\nline\r\n/);
  assert.equal((await command.exited).exitCode, 0);
});

test("a full /run leaves the next identity its room, and programs see by a file that they are another copy", async () => {
  const before = await shell(agent, "cat /run/stacyvm/generation");
  assert.match(before, /^[0-9a-f]{32}\n$/);
  await shell(agent, "dd if=/dev/zero of=/run/full bs=1M 2>/dev/null; ! echo more > /run/more 2>/dev/null");
  const named = testIdentity({ hostname: "x".repeat(64), dns: Array.from({ length: 8 }, (_, i) => `192.0.2.${i}`) });
  await agent.identify(named);
  const [now, machine, host] = (
    await shell(agent, "cat /run/stacyvm/generation /etc/machine-id /etc/hostname; rm -f /run/full /run/more")
  ).split("\n");
  assert.match(now ?? "", /^[0-9a-f]{32}$/);
  assert.notEqual(`${now}\n`, before);
  assert.deepEqual([machine, host], [named.machineId, named.hostname]);
});

test("freeze stops every command, thaw lets them go on", async () => {
  const command = await agent.start({ argv: sh("while :; do echo x >>/tmp/ticks; sleep 0.01; done") });
  await shell(agent, "sleep 0.2");
  await agent.freeze();
  const before = (await agent.stat("/tmp/ticks")).size;
  await fails(agent.exec({ argv: ["true"] }), "conflict");
  await sleep(200);
  assert.equal((await agent.stat("/tmp/ticks")).size, before);
  await agent.identify(testIdentity({ thaw: true }));
  await shell(agent, "sleep 0.2");
  assert.ok((await agent.stat("/tmp/ticks")).size > before);
  await command.kill(9);
  await command.exited;
});

test("exercise runs and leaves nothing", async () => {
  await agent.exercise();
  await assert.rejects(agent.stat("/run/stacyvm/exercised"));
});
