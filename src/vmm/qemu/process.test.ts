import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import type { HostProcess } from "../../host/process.ts";
import { QMP_SOCKET } from "./arguments.ts";
import { type QemuContext, RunningQemu } from "./machine.ts";
import { QemuProcess } from "./process.ts";

/** A process whose monitor takes what it is told. @param hangsUpOn at these commands, one after the other, it closes the connection */
async function monitored(t: TestContext, ...hangsUpOn: string[]) {
  const dir = await mkdtemp(join(tmpdir(), "qemu-"));
  await mkdir(dirname(join(dir, QMP_SOCKET)));
  const said: string[] = [];
  const connections: { gone: Promise<unknown> }[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {}).unref();
    connections.push({ gone: new Promise((settle) => socket.once("close", settle)) });
    socket.write('{"QMP": {}}\n');
    const lines = createInterface(socket).on("error", () => {});
    lines.on("line", (line) => {
      const { execute } = JSON.parse(line);
      said.push(execute);
      if (execute === hangsUpOn[0]) {
        hangsUpOn.shift();
        socket.destroy();
      } else socket.write('{"return": {}}\n');
    });
  });
  server.listen(join(dir, QMP_SOCKET)).unref();
  await once(server, "listening");
  const host = { record: { pid: 0 }, exited: new Promise(() => {}), check() {}, release() {} };
  const process = new QemuProcess(host as unknown as HostProcess, dir, true);
  t.after(async () => {
    await process.release();
    server.close();
    await rm(dir, { recursive: true });
  });
  return { process, said, connections };
}

test("a stop that was not answered is undone until QEMU confirms it; the next one comes after that", async (t) => {
  const { process, said } = await monitored(t, "stop", "qmp_capabilities", "cont");
  await (await process.connectMonitor(10_000)).execute("query-status");
  const running = new RunningQemu(process, { sharedMemory: false } as QemuContext);
  await assert.rejects(running.pause(), { code: "machine-exited" });
  await running.pause();
  const [connected, undone] = ["qmp_capabilities", "cont"];
  assert.deepEqual(said, ["query-status", "stop", connected, connected, undone, connected, undone, "stop"]);
});

test("a monitor whose connection broke is opened once for all who ask: it serves one client at a time", async (t) => {
  const { process, connections } = await monitored(t);
  const [one, other] = await Promise.all([process.monitor(), process.monitor()]);
  assert.deepEqual([one === other, (await process.monitor()) === one, connections.length], [true, true, 1]);
});

test("a machine that is let go while its monitor is opened anew leaves that to the next daemon", async (t) => {
  const { process, connections } = await monitored(t);
  const opening = assert.rejects(process.monitor());
  await process.release();
  await opening;
  for (const each of connections) await each.gone;
  await assert.rejects(process.monitor(), { code: "internal" });
});
