/** Connections that programs in a real Linux guest open to the host, through the agent. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { buffer } from "node:stream/consumers";
import { after, before, test } from "node:test";
import type { Agent } from "../src/guest/agent.ts";
import { StacyError } from "../src/host/error.ts";
import { type Guest, shell, startGuest, testIdentity } from "./agent-support.ts";

const LIMIT = { timeout: 30_000 };
const PORT = 3128;
const NC = `nc 127.0.0.1 ${PORT}`;
/** The agent's ends of connections to it, also of those that nobody has taken. */
const CONNECTED = "grep ' 0100007F:0C38 0100007F:.* 0[18] ' /proc/net/tcp";

let guest: Guest;
let agent: Agent;

before(async () => {
  guest = await startGuest();
  agent = guest.agent;
});

after(async () => {
  await guest?.[Symbol.asyncDispose]();
});

async function fails(work: Promise<unknown>, code: string, message = /./): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(error instanceof StacyError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });
}

/** A call that waits in the guest already: the agent answers in the order of the frames. */
async function waits(signal?: AbortSignal): Promise<{ socket: Promise<Duplex> }> {
  const socket = agent.accept(PORT, signal === undefined ? {} : { signal });
  socket.catch(() => {});
  await agent.ping();
  return { socket };
}

/** Sees to it that the agent listens, and that nobody waits. */
async function listening(): Promise<void> {
  const abort = new AbortController();
  const { socket } = await waits(abort.signal);
  abort.abort();
  await fails(socket, "cancelled");
}

/** Programs that connect one after the other, say their number and wait for an answer; their answers when all have ended. */
async function dial(count: number): Promise<{ answers: Promise<string> }> {
  const names = Array.from({ length: count }, (_, i) => i + 1).join(" ");
  const script = `
    before=$(${CONNECTED} | wc -l)
    for i in ${names}; do
      echo $i | ${NC} >/tmp/answer.$i &
      until [ $(${CONNECTED} | wc -l) = $((before + i)) ]; do sleep 0.01; done
    done
    echo connected
    for i in ${names}; do until [ -s /tmp/answer.$i ]; do sleep 0.01; done; cat /tmp/answer.$i; rm /tmp/answer.$i; done`;
  const command = await agent.start({ argv: ["/bin/sh", "-c", script], timeoutMs: 20_000 });
  const output = command.output();
  const first = await output.next();
  assert.equal(first.value?.type === "stdout" && first.value.data.toString(), "connected\n");
  const answers = (async () => {
    let all = "";
    for await (const event of output) if (event.type === "stdout") all += event.data.toString();
    return all;
  })();
  return { answers };
}

async function firstLine(socket: Duplex): Promise<string> {
  const [chunk] = (await once(socket, "data")) as [Buffer];
  socket.pause();
  return chunk.toString().trim();
}

test("a program's HTTP request is answered by the host", LIMIT, async () => {
  const waiting = await waits();
  const page = shell(agent, `wget -q -O- http://127.0.0.1:${PORT}/page`);
  const socket = await waiting.socket;
  assert.match(await firstLine(socket), /^GET \/page HTTP/);
  socket.end("HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nhere");
  assert.equal(await page, "here");
});

test("much goes both ways, and a half-close leaves the other direction open", LIMIT, async () => {
  const waiting = await waits();
  const work = shell(agent, `head -c 3000000 /dev/urandom >/tmp/in; ${NC} </tmp/in | sha256sum; sha256sum </tmp/in`);
  const socket = await waiting.socket;
  const received: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => received.push(chunk));
  await once(socket, "end");
  const answer = randomBytes(3_000_000);
  socket.end(answer);
  const sums = [answer, Buffer.concat(received)].map((data) => createHash("sha256").update(data).digest("hex"));
  assert.deepEqual((await work).match(/[0-9a-f]{64}/g), sums);
});

test("what was sent before both sides had closed arrives whole at a program that takes its time", LIMIT, async () => {
  // Buffers far smaller than what is sent: most of it waits in the agent.
  const buffers = "for b in rmem wmem; do echo 4096 65536 65536 >/proc/sys/net/ipv4/tcp_$b; done";
  const waiting = await waits();
  const work = shell(agent, `${buffers}; mkfifo /tmp/go; ${NC} </dev/null | (read go </tmp/go; wc -c)`);
  const socket = await waiting.socket;
  socket.resume();
  await once(socket, "end");
  socket.end(Buffer.alloc(900_000));
  await once(socket, "close");
  await agent.ping();
  await shell(agent, "echo >/tmp/go; rm /tmp/go");
  assert.equal((await work).trim(), "900000");
});

test("calls that wait are served in their order, each with a connection of its own", LIMIT, async () => {
  const served: number[] = [];
  const calls = await Promise.all(Array.from({ length: 5 }, () => waits()));
  calls.forEach(({ socket }, i) => void socket.then(() => served.push(i)));
  const { answers } = await dial(5);
  const sockets = await Promise.all(calls.map(({ socket }) => socket));
  assert.deepEqual(served, [0, 1, 2, 3, 4]);
  const lines = await Promise.all(sockets.map(firstLine));
  assert.deepEqual(lines, ["1", "2", "3", "4", "5"]);
  sockets.forEach((socket, i) => void socket.end(`answer ${i + 1}\n`));
  assert.equal(await answers, "answer 1\nanswer 2\nanswer 3\nanswer 4\nanswer 5\n");
});

test(
  "connections that come before anybody waits are kept, in order, and do not keep the agent awake",
  LIMIT,
  async () => {
    await listening();
    const { answers } = await dial(3);
    // How often it slept, and its time in ticks: one that goes round and round does not sleep.
    const busy = "$(($(grep ^voluntary /proc/1/status | tr -dc 0-9) + $(cut -d ' ' -f 14,15 /proc/1/stat | tr ' ' +)))";
    const during = await shell(agent, `before=${busy}; sleep 1; echo $((${busy} - before))`);
    assert.ok(Number(during) <= 10, `awake: ${during}`);
    const sockets: Duplex[] = [];
    for (let i = 0; i < 3; i++) sockets.push(await agent.accept(PORT));
    assert.deepEqual(await Promise.all(sockets.map(firstLine)), ["1", "2", "3"]);
    for (const socket of sockets) socket.end("served\n");
    assert.equal(await answers, "served\n".repeat(3));
  },
);

test(
  "a wait can be cancelled without losing a connection, and a connection outlives its wait's signal",
  LIMIT,
  async () => {
    const abort = new AbortController();
    const cancelled = await waits(abort.signal);
    const kept = await waits();
    abort.abort();
    await fails(cancelled.socket, "cancelled");
    await fails(agent.accept(PORT, { signal: abort.signal }), "cancelled");
    const late = new AbortController();
    const second = await waits(late.signal);
    const { answers } = await dial(2);
    const sockets = [await kept.socket, await second.socket];
    late.abort();
    await agent.ping();
    assert.deepEqual(await Promise.all(sockets.map(firstLine)), ["1", "2"]);
    for (const socket of sockets) socket.end("served\n");
    assert.equal(await answers, "served\n".repeat(2));
  },
);

test(
  "one port at a time: another one is a conflict while calls wait, and takes over when none does",
  LIMIT,
  async () => {
    const abort = new AbortController();
    const waiting = await waits(abort.signal);
    await fails(agent.accept(PORT + 1), "conflict", /port 3129: calls wait for connections to port 3128/);
    abort.abort();
    await fails(waiting.socket, "cancelled");
    const other = agent.accept(PORT + 1);
    await agent.ping();
    assert.equal(await shell(agent, `${NC} </dev/null 2>/dev/null || echo refused`), "refused\n");
    const done = shell(agent, `echo moved | nc 127.0.0.1 ${PORT + 1}`);
    const socket = await other;
    assert.equal((await buffer(socket)).toString(), "moved\n");
    socket.end();
    await done;
  },
);

test(
  "a port that a program has, or that is none, is an error that names it, and the former port stays",
  LIMIT,
  async () => {
    await listening();
    const program = await agent.start({ argv: ["nc", "-l", "-p", "8000"] });
    await shell(agent, "until grep -q ':1F40 ' /proc/net/tcp /proc/net/tcp6; do sleep 0.01; done");
    await fails(agent.accept(8000), "conflict", /port 8000/);
    await program.kill(9);
    await fails(agent.accept(0), "invalid", /PORT/);
    const { answers } = await dial(1);
    const socket = await agent.accept(PORT);
    socket.end("still here\n");
    assert.equal(await answers, "still here\n");
  },
);

test("calls beyond what the agent holds at once are refused as such", LIMIT, async () => {
  // Connections of earlier tests count too, while their programs have not closed them.
  await shell(agent, `while ${CONNECTED}; do sleep 0.01; done`);
  const abort = new AbortController();
  const calls = Array.from({ length: 1100 }, () => agent.accept(PORT, { signal: abort.signal }));
  const settled = Promise.allSettled(calls);
  await agent.ping();
  abort.abort();
  const codes = (await settled).map((call) => call.status === "rejected" && call.reason.code);
  assert.equal(codes.lastIndexOf("cancelled"), 1023);
  assert.equal(codes.indexOf("limit"), 1024);
});

test("a program that ends abruptly ends its connection, before it was taken and after", LIMIT, async () => {
  await listening();
  await shell(agent, `echo early | ${NC} & until ${CONNECTED}; do sleep 0.01; done; kill -9 $!`);
  const early = await agent.accept(PORT);
  assert.equal(await firstLine(early), "early");
  early.resume();
  await once(early, "end");
  early.destroy();
  // One that dies with something unread resets its connection.
  const waiting = await waits();
  const program = await agent.start({ argv: NC.split(" "), stdin: true });
  const socket = await waiting.socket;
  await program.kill(19);
  const failed = once(socket, "error");
  socket.resume();
  socket.write("unread");
  await shell(agent, "until grep '0C38 01 00000000:00000006' /proc/net/tcp; do sleep 0.01; done");
  await program.kill(9);
  const [error] = await failed;
  assert.match(String(error), /tunnel: Connection reset/);
});

test("a connection that waits outlives the host's connection, a call that waits does not", LIMIT, async () => {
  await listening();
  await shell(agent, `echo again | ${NC} >/tmp/answer.again 2>&1 &`);
  await shell(agent, `until ${CONNECTED}; do sleep 0.01; done`);
  await agent.close();
  agent = await guest.connect(testIdentity());
  const kept = await agent.accept(PORT);
  assert.equal(await firstLine(kept), "again");
  kept.end("over the new session\n");
  await shell(agent, "until [ -s /tmp/answer.again ]; do sleep 0.01; done");
  assert.equal(await shell(agent, "cat /tmp/answer.again"), "over the new session\n");
  const lost = await waits();
  await agent.close();
  await fails(lost.socket, "disconnected");
  agent = await guest.connect();
  const { answers } = await dial(1);
  (await agent.accept(PORT)).end("not to the lost one\n");
  assert.equal(await answers, "not to the lost one\n");
});

test("a machine that becomes another sandbox listens no longer", LIMIT, async () => {
  const refused = () => shell(agent, `${NC} </dev/null 2>/dev/null || echo refused`);
  const same = await waits();
  await agent.identify(testIdentity({ hostname: "same" }));
  const { answers } = await dial(1);
  (await same.socket).end("still the same\n");
  assert.equal(await answers, "still the same\n");
  const waiting = await waits();
  await agent.identify(testIdentity({ sandboxId: "sb-clone" }));
  await fails(waiting.socket, "cancelled", /another sandbox/);
  assert.equal(await refused(), "refused\n");
  await listening();
  await agent.close();
  agent = await guest.connect(testIdentity({ sandboxId: "sb-other-clone" }));
  assert.equal(await refused(), "refused\n");
});
