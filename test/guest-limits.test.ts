/**
 * A guest whose commands take all they can get: its agent answers all the while, memory that runs out is ended and named, and another
 * command runs. What is held is that it answers at all; how long it took is printed, since that is the host's too.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Agent } from "../src/guest/agent.ts";
import { type Guest, shell, startGuest } from "./agent-support.ts";

const ANSWER_MS = 120_000;
let guest: Guest;
let agent: Agent;

before(async () => {
  guest = await startGuest({ image: "stacyvm/python", memoryMiB: 256, diskMiB: 128 });
  agent = guest.agent;
});

after(() => guest?.[Symbol.asyncDispose]());

/** What a user does about a sandbox in trouble, again and again. Prints how long each took at most. */
async function answers(what: string, rounds = 6): Promise<void> {
  const longest = { ping: 0, write: 0, read: 0, list: 0, processes: 0, exec: 0 };
  const timed = async <T>(name: keyof typeof longest, work: Promise<T>): Promise<T> => {
    const begun = performance.now();
    const limit = new Promise<never>((_, reject) => {
      setTimeout(() => reject(new Error(`${name} took longer than ${ANSWER_MS} ms during ${what}`)), ANSWER_MS).unref();
    });
    const result = await Promise.race([work, limit]);
    longest[name] = Math.max(longest[name], Math.round(performance.now() - begun));
    return result;
  };
  for (let i = 0; i < rounds; i++) {
    await timed("ping", agent.ping());
    await timed("write", agent.writeFile("/run/note", Buffer.from(`${i}`)));
    assert.equal((await timed("read", agent.readFile("/run/note"))).toString(), `${i}`);
    assert.ok((await timed("list", agent.list("/etc"))).length > 10);
    assert.ok((await timed("processes", agent.processes())).length > 0);
    const { stdout, exitCode } = await timed("exec", agent.exec({ argv: ["/bin/sh", "-c", "echo $((6 * 7))"] }));
    assert.deepEqual([stdout.toString(), exitCode], ["42\n", 0]);
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  process.stdout.write(`# during ${what}, ms at most: ${JSON.stringify(longest)}\n`);
}

/** Ends everything but the agent, without starting anything for it. */
async function quiet(): Promise<void> {
  for (const part of await agent.list("/sys/fs/cgroup/commands")) {
    if (part.kind === "directory")
      await agent.writeFile(`${part.path}/cgroup.kill`, Buffer.from("1"), { atomic: false });
  }
  for (;;) {
    const events = (await agent.readFile("/sys/fs/cgroup/commands/cgroup.events")).toString();
    if (events.includes("populated 0")) return;
  }
}

test("100 busy loops", async () => {
  const loops = await Promise.all(
    Array.from({ length: 100 }, () => agent.start({ argv: ["/bin/sh", "-c", "while :; do :; done"] })),
  );
  await answers("100 busy loops", 3);
  for (const loop of loops) await loop.kill(9);
  for (const loop of loops) assert.equal((await loop.exited).reason, "exited");
});

test("a fork bomb that nobody waits for", async () => {
  await agent.exec({ argv: ["/bin/bash", "-c", "f() { f | f & }; f"] });
  await answers("a fork bomb");
  await quiet();
});

test("as many processes as fit", async () => {
  const script = "i=0; while [ $i -lt 20000 ]; do sleep 1000 & i=$((i + 1)); done";
  const { stderr, reason } = await agent.exec({ argv: ["/bin/sh", "-c", script] });
  // Whichever ends first: the table, or the memory.
  assert.match(`${stderr} ${reason}`, /fork|unavailable|out-of-memory/i);
  await answers("as many processes as fit", 3);
  await quiet();
});

test("memory that runs out: the command that took it ends soon, and says why", async () => {
  const begun = performance.now();
  const hog = agent.exec({ argv: ["python3", "-c", "x = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))"] });
  await answers("a memory hog", 2);
  const { reason, signal, exitCode } = await hog;
  process.stdout.write(`# the hog ended after ${Math.round(performance.now() - begun)} ms\n`);
  assert.deepEqual([reason, signal, exitCode], ["out-of-memory", 9, 137]);
  const { reason: after } = await agent.exec({ argv: ["/bin/sh", "-c", "kill -9 $$"] });
  assert.equal(after, "exited", "one that ends by itself is not blamed on memory");
});

test("memory in the children of a shell, and in files of /dev/shm", async () => {
  const shellOf = await agent.exec({ argv: ["/bin/sh", "-c", "python3 -c 'x = bytearray(1 << 30)'; exit $?"] });
  assert.equal(shellOf.exitCode === 1 || shellOf.reason === "out-of-memory", true, JSON.stringify(shellOf.reason));
  const children = await agent.exec({
    argv: ["/bin/sh", "-c", "python3 -c 'x = [bytearray(b\"x\" * (1 << 20)) for _ in range(1000)]'"],
  });
  assert.equal(children.reason, "out-of-memory");
  await agent.exec({ argv: ["/bin/sh", "-c", "cat /dev/zero > /dev/shm/full"] });
  await answers("a full file system in memory", 2);
  await agent.remove("/dev/shm/full");
});

test("a full disk", async () => {
  await agent.exec({ argv: ["/bin/sh", "-c", "cat /dev/zero > /full"] });
  await answers("a full disk", 2);
  await assert.rejects(agent.writeFile("/more", Buffer.alloc(1 << 20, "x")), { code: "no-space" });
  await agent.remove("/full");
  await shell(agent, "echo room > /more");
});
