/** Both VMMs behind one server: clients pick the other one by name, and a killed daemon finds its machines again. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Server } from "./server-support.ts";

test("a sandbox of the provider that is not the default runs, and survives the daemon", async (t) => {
  await using server = await Server.create();
  const providers = (await server.call("GET", "/providers")).body as {
    name: string;
    healthy: boolean;
    error?: string;
  }[];
  assert.deepEqual(providers.map(({ name }) => name).sort(), ["firecracker", "qemu"]);
  const firecracker = providers.find(({ name }) => name === "firecracker");
  if (firecracker?.healthy !== true) {
    t.skip(`firecracker cannot be used here (${firecracker?.error}); a host with /dev/kvm runs this`);
    return;
  }
  const shape = { image: "stacyvm/bare", provider: "firecracker", memory_mb: 128 };
  const spawned = await server.call("POST", "/sandboxes", shape);
  assert.equal(spawned.status, 201, JSON.stringify(spawned.body));
  const { id } = spawned.body;
  assert.equal(spawned.body.boot.vmm, "firecracker");
  await server.stop("SIGKILL");
  await server.start();
  const command = { command: "echo", args: ["again"], mode: "argv" };
  assert.equal((await server.call("POST", `/sandboxes/${id}/exec`, command)).body.stdout, "again\n");
  assert.equal((await server.call("DELETE", `/sandboxes/${id}`)).status, 200);
  assert.deepEqual(await server.machines(), []);
});
