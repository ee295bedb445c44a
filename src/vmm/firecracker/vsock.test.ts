import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { dialGuest } from "./vsock.ts";

/** What stands for Firecracker: takes connections, and answers those after `silent`. */
async function listening(silent: number) {
  const dir = await mkdtemp(join(tmpdir(), "vsock-"));
  const asked: string[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (data) => {
      asked.push(data.toString());
      if (asked.length > silent) socket.write("OK 1073741824\nfrom the agent");
    });
  });
  await new Promise<void>((resolve) => server.listen(join(dir, "v.sock"), resolve));
  return {
    dir,
    asked,
    async [Symbol.asyncDispose]() {
      server.close();
      await rm(dir, { recursive: true });
    },
  };
}

test("a greeting goes with the request for the connection, in one piece; what the agent says first is kept", async () => {
  await using firecracker = await listening(0);
  const { socket, greeted } = await dialGuest(firecracker.dir, "v.sock", {
    port: 1024,
    gone: new Promise(() => {}),
    greeting: () => Buffer.from("hello"),
  });
  assert.deepEqual(firecracker.asked, ["CONNECT 1024\nhello"]);
  assert.equal(greeted, true);
  const [first] = (await socket.take(1).toArray()) as Buffer[];
  assert.equal(first?.toString(), "from the agent");
});

test("a guest that takes only a later connection is not told an old time: that one has no greeting", async () => {
  await using firecracker = await listening(1);
  const { socket, greeted } = await dialGuest(firecracker.dir, "v.sock", {
    port: 1024,
    gone: new Promise(() => {}),
    greeting: () => Buffer.from("hello"),
  });
  assert.deepEqual(firecracker.asked, ["CONNECT 1024\nhello", "CONNECT 1024\n"]);
  assert.equal(greeted, false);
  socket.destroy();
});
