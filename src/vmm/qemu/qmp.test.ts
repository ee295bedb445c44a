import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { StacyError } from "../../host/error.ts";
import { Qmp } from "./qmp.ts";

/** A monitor that greets, and answers nothing. */
async function silent(t: TestContext): Promise<Qmp> {
  const server = createServer((socket: Socket) => {
    socket.write('{"QMP": {}}\n');
    socket.resume();
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
