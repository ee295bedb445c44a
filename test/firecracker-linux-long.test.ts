/**
 * Linux under the real Firecracker in shapes of its own: each costs another golden snapshot, minutes where KVM interprets the guest's
 * kernel, so there it is a long form (`STACYVM_LONG=1`).
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname } from "node:path";
import { after, before, describe, test } from "node:test";
import { kvmState } from "../src/host/kvm.ts";
import { loadGuestKernel } from "../src/images/guest-kernel.ts";
import { type Ask, CRASH_GUESTS } from "./crash-guests.ts";
import { assets, whyNotLinux } from "./firecracker-support.ts";
import { lookFor } from "./look-for.ts";
import { Server } from "./server-support.ts";

const guest = CRASH_GUESTS["firecracker-linux"];
const shapes = [
  { name: "two processors", more: { vcpus: 2 }, processors: 2, leastMiB: 190, mostMiB: 256 },
  { name: "1 GiB of memory", more: { memory_mb: 1024 }, processors: 1, leastMiB: 900, mostMiB: 1024 },
];

test("a kernel and arguments of the user's own are what boots, and what its snapshot belongs to", {
  skip: (await whyNotLinux({ long: true })) ?? false,
}, async () => {
  const { mode } = await kvmState();
  const { path, arguments: needed, modules } = await loadGuestKernel(assets, { monitor: "firecracker", mode });
  const own = [
    ...[`kernel: "${path}"`, `kernel_arguments: "${needed} its.own=1"`],
    ...(modules[0] === undefined ? [] : [`kernel_modules: "${dirname(modules[0])}"`]),
  ];
  const pool = "warm: { adaptive: false }\n";
  await using server = await Server.create(`${guest.config}firecracker: { ${own.join(", ")} }\n${pool}`);
  await server.ok("POST", "/snapshots", guest.spawn);
  const { id, boot } = await server.ok("POST", "/sandboxes", guest.spawn);
  assert.equal(boot.path, "restored", JSON.stringify(boot));
  const { stdout } = await server.ok("POST", `/sandboxes/${id}/exec`, { command: "cat /proc/cmdline" });
  assert.match(stdout, / its\.own=1 /);
  await server.ok("DELETE", `/sandboxes/${id}`);
});

/** Every way that a vsock has: this host, the hypervisor, the guest itself by its own number and by loopback; and the agent's place. */
const SPEAKS = `
import json, socket, sys
told = {}
for cid in (0, 1, 2, 3, socket.VMADDR_CID_ANY):
    for port in (1024, 1025, 80, 3128, 52, 5000):
        try:
            with socket.socket(socket.AF_VSOCK) as s:
                s.settimeout(3)
                s.connect((cid, port))
                s.sendall(b"x" * 64)
                told[f"{cid}:{port}"] = s.recv(64).decode("latin1") or "closed"
        except Exception as error:
            told[f"{cid}:{port}"] = type(error).__name__
try:
    with socket.socket(socket.AF_VSOCK) as s:
        s.bind((socket.VMADDR_CID_ANY, 1024))
        s.listen()
        told["its place"] = "taken"
except OSError as error:
    told["its place"] = error.strerror
print(json.dumps(told))
`;

test("a program of the guest's that speaks by vsock itself reaches nobody, and its agent goes on", {
  skip: (await whyNotLinux({ long: true })) ?? false,
}, async () => {
  await using server = await Server.create(`${guest.config}warm: { adaptive: false }\n`);
  const shape = { ...guest.spawn, image: "stacyvm/python" };
  await server.ok("POST", "/snapshots", shape);
  const { id, boot } = await server.ok("POST", "/sandboxes", shape);
  assert.equal(boot.path, "restored", JSON.stringify(boot));
  await server.ok("POST", `/sandboxes/${id}/files`, { path: "/speaks.py", content: SPEAKS });
  const exec = { command: "python3 /speaks.py", timeout: "5m" };
  const { stdout, stderr } = await server.ok("POST", `/sandboxes/${id}/exec`, exec);
  const told: Record<string, string> = JSON.parse(stdout || JSON.stringify({ stderr }));
  console.log(`# ${JSON.stringify(told)}`);
  assert.equal(Object.keys(told).length, 31);
  for (const [to, said] of Object.entries(told)) assert.match(said, /Error|timeout|in use/, to);
  assert.equal((await server.ok("POST", `/sandboxes/${id}/exec`, { command: "echo still" })).stdout, "still\n");
  await server.ok("DELETE", `/sandboxes/${id}`);
});

test("a secret whose value is kept: over a killed server, running and suspended, in a fork, and in no saved machine", {
  skip: (await whyNotLinux({ long: true })) ?? false,
}, async () => {
  const [address, value] = ["127.8.8.7", "value-of-the-secret-under-firecracker"];
  // Without TLS: this guest's `wget` verifies nobody. The certificate is put there all the same.
  const web = createServer((request, response) =>
    response.end(`got ${request.headers.authorization === `Bearer ${value}`}`),
  );
  web.listen(0, address);
  await once(web, "listening");
  try {
    const { port } = web.address() as AddressInfo;
    const network = `network: { private: ["${address}"], names: { api.test: "${address}" } }\n`;
    const pool = "warm: { adaptive: false }\n";
    await using server = await Server.create(
      `${guest.config}${network}secrets: { key: "${"5a".repeat(32)}" }\n${pool}`,
    );
    const good = (method: string, path: string, body?: unknown) => server.ok(method, path, body);
    await good("PUT", "/secrets/KEY", { value, hosts: [`http://api.test:${port}`] });
    await good("POST", "/snapshots", guest.spawn);
    const { id, boot } = await good("POST", "/sandboxes", { ...guest.spawn, secrets: ["KEY"] });
    assert.equal(boot.path, "restored", JSON.stringify(boot));
    /** By the proxy of the environment and without one. */
    const uses = async (of: string, when: string): Promise<void> => {
      const command = `wget -q -O - http://api.test:${port}/ && env -u http_proxy -u HTTP_PROXY wget -q -O - http://api.test:${port}/`;
      const { stdout, stderr } = await good("POST", `/sandboxes/${of}/exec`, { command, timeout: "2m" });
      assert.equal(stdout, "got truegot true", `${when}: ${stderr}`);
    };
    const run = async (command: string): Promise<string> =>
      (await good("POST", `/sandboxes/${id}/exec`, { command })).stdout;
    await uses(id, "spawned");
    assert.match(await run("cat /etc/ssl/stacyvm/ca.pem"), /BEGIN CERTIFICATE/);
    const placeholder = await run("printf %s $KEY");
    assert.match(placeholder, /^placeholder-/);
    const [fork] = (await good("POST", `/sandboxes/${id}/fork`, {})).sandboxes;
    await uses(fork.id, "forked");
    await server.stop("SIGKILL");
    await server.start();
    for (const each of [id, fork.id]) await uses(each, "adopted");
    await good("DELETE", `/sandboxes/${fork.id}`);
    await good("POST", `/sandboxes/${id}/suspend`);
    await server.stop("SIGKILL");
    const found = await lookFor(server.root, [placeholder, value]);
    assert.ok(
      found.some(({ path, text }) => text === placeholder && /memory\.bin$/.test(path)),
      JSON.stringify(found),
    );
    assert.deepEqual(
      found.filter(({ text }) => text === value),
      [],
    );
    await server.start();
    await good("POST", `/sandboxes/${id}/resume`);
    await uses(id, "woken by the next server");
    await good("DELETE", `/sandboxes/${id}`);
    assert.deepEqual(await server.machines(), []);
  } finally {
    web.closeAllConnections();
    web.close();
  }
});

describe("Linux under the real Firecracker, other shapes", {
  skip: (await whyNotLinux({ long: true })) ?? false,
}, () => {
  let server: Server;
  before(async () => {
    server = await Server.create(`${guest.config}warm: { adaptive: false }\n`);
  });
  after(() => server[Symbol.asyncDispose]());

  for (const { name, more, processors, leastMiB, mostMiB } of shapes) {
    test(`${name}: restored, forked, suspended and woken, back at a checkpoint, adopted`, async () => {
      const good = (method: string, path: string, body?: unknown) => server.ok(method, path, body);
      const asking =
        (id: string): Ask =>
        async (method, path, body) => ({ body: await good(method, `/sandboxes/${id}${path}`, body) });
      const shape = { ...guest.spawn, ...more };
      await good("POST", "/snapshots", shape);
      const { id, boot } = await good("POST", "/sandboxes", shape);
      assert.equal(boot.path, "restored", JSON.stringify(boot));
      const mine = asking(id);
      /** Each processor has worked, and all answer at once; and the memory is there. */
      const whole = async (of: string): Promise<void> => {
        const command = `for i in $(seq ${processors * 2}); do (n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); done; echo done) & done; wait;
          grep -c '^processor' /proc/cpuinfo; awk '/^cpu[0-9]/ && $2 + $4 > 0' /proc/stat | wc -l; grep MemTotal /proc/meminfo | tr -dc 0-9`;
        const { exit_code, stdout, stderr } = await good("POST", `/sandboxes/${of}/exec`, { command, timeout: "5m" });
        assert.equal(exit_code, 0, stderr);
        const lines = stdout.trim().split("\n");
        assert.deepEqual(
          lines.slice(0, -3),
          Array.from({ length: processors * 2 }, () => "done"),
        );
        const [listed, worked, kib] = lines.slice(-3).map(Number);
        assert.deepEqual([listed, worked], [processors, processors]);
        assert.ok(kib >= leastMiB * 1024 && kib <= mostMiB * 1024, `${kib} KiB`);
      };
      await guest.begin(mine);
      assert.equal(await guest.count(mine), 1);
      await whole(id);
      const [fork] = (await good("POST", `/sandboxes/${id}/fork`, {})).sandboxes;
      for (const each of [id, fork.id]) assert.equal(await guest.count(asking(each)), 2);
      await whole(fork.id);
      await good("DELETE", `/sandboxes/${fork.id}`);
      await good("POST", `/sandboxes/${id}/suspend`);
      await good("POST", `/sandboxes/${id}/resume`);
      assert.equal(await guest.count(mine), 3);
      await whole(id);
      const { id: checkpoint } = await good("POST", `/sandboxes/${id}/checkpoints`, {});
      assert.equal(await guest.count(mine), 4);
      await good("POST", `/sandboxes/${id}/restore`, { checkpoint });
      assert.equal(await guest.count(mine), 4);
      await server.stop("SIGKILL");
      await server.start();
      assert.equal(await guest.count(mine), 5);
      await whole(id);
      await good("DELETE", `/sandboxes/${id}`);
      await good("DELETE", `/checkpoints/${checkpoint}`);
      assert.deepEqual(await server.machines(), []);
    });
  }
});
