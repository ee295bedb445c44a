import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { MONITOR_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import { parseLine, Qmp } from "./qmp.ts";

/** A monitor that greets, and answers nothing. */
async function silent(t: TestContext, then: (socket: Socket) => void = () => {}): Promise<Qmp> {
  const server = createServer((socket: Socket) => {
    socket.write('{"QMP": {}}\n');
    socket.resume();
    socket.on("error", () => {});
    then(socket);
    t.after(() => socket.destroy());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const socket = connect((server.address() as { port: number }).port, "127.0.0.1");
  await once(socket, "connect");
  const qmp = new Qmp(socket, async () => new StacyError("machine-exited", "QEMU closed its monitor"));
  t.after(() => qmp.close());
  return qmp;
}

test("a connection over which a command was not answered in its time takes no other one", async (t) => {
  const qmp = await silent(t);
  const other = qmp.execute("query-status");
  const lost = assert.rejects(other, { code: "machine-exited" });
  const late = qmp.execute("stop", undefined, { timeoutMs: 20 }).catch((error: StacyError) => [error.code, qmp.open]);
  assert.deepEqual(await late, ["timeout", false]);
  await lost;
});

test("a command that its caller gives up says nothing against the connection", async (t) => {
  const qmp = await silent(t);
  await assert.rejects(qmp.execute("stop", undefined, { signal: AbortSignal.timeout(20) }), { name: "TimeoutError" });
  assert.equal(qmp.open, true);
});

test("a monitor that says one thing after the other is heard in turns, and in order", async (t) => {
  const events = 200_000;
  const many = Array.from({ length: events }, (_, at) => `{"event":"NOISE","data":{"at":${at}}}\n`).join("");
  const qmp = await silent(t, (socket) => socket.write(many));
  let turns = 0;
  const count = (): void => {
    turns += 1;
    if (next < events) setImmediate(count);
  };
  setImmediate(count);
  let next = 0;
  let had = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  qmp.onEvent(({ data }) => {
    assert.equal(data.at, next);
    next += 1;
    // Longer than a turn: the next one comes in a later one.
    const until = performance.now() + (next <= 50 ? 2 : 0);
    while (performance.now() < until);
    if (next === 50) had = turns;
    if (next === events) resolve();
  });
  await promise;
  assert.ok(had >= 45, `others had ${had} turns`);
});

test("what is no end of a line, or no message, is the end of the connection: little of it is kept", async (t) => {
  let sent = 0;
  const endless = await silent(t, (socket) => {
    const more = (): void => {
      if (socket.destroyed) return;
      sent += 16_384;
      // The reader has its turn in between: else what counts is how much the kernel keeps for it.
      socket.write("x".repeat(16_384), () => setImmediate(more));
    };
    more();
  });
  await endless.closed;
  assert.ok(sent < 64 * MONITOR_BOUNDS.answerBytes, `${sent} bytes`);
  const wrong = await silent(t, (socket) => socket.write("[]x\n".repeat(1_000)));
  await wrong.closed;
  const words = parseLine(JSON.stringify({ error: { class: "GenericError", desc: "long ".repeat(10_000) } }));
  assert.ok(typeof words === "object" && "refused" in words && words.refused.length === MONITOR_BOUNDS.errorBytes);
});
