/**
 * What a sandbox's network costs and carries: spawns with and without one in turns, requests of a program in the guest to a server on
 * this host, and bytes in both directions; beside them a command that does nothing, and a file of the guest's that is read.
 * `npm run -s bench -- network [--json] [ROUNDS]`
 */
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DEFAULT_NETWORK, Network } from "../src/egress/network.ts";
import { dataPaths } from "../src/host/paths.ts";
import { createImages } from "../src/images/store.ts";
import { createMicrovmProvider } from "../src/providers/microvm.ts";
import type { SandboxMachine } from "../src/providers/provider.ts";
import { newSandboxId } from "../src/sandboxes/record.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { borrow } from "./borrow.ts";
import type { BenchContext, Suite } from "./harness.ts";

/** On loopback, and not among what programs ask without a proxy. */
const ADDRESS = "127.8.8.8";
const BODY = Buffer.alloc(32 * 2 ** 20, "stacyvm ");
const PARALLEL = 8;

export const suite: Suite = {
  name: "network",
  about: "what a sandbox's network costs a spawn, and how fast requests and bytes go through it",
  async run(context) {
    const rounds = Number(context.args[0] ?? 30);
    context.guest = "linux";
    const server = createServer((request, response) => {
      request.resume();
      if (request.url === "/big") response.end(BODY);
      else request.once("end", () => response.end("small"));
    });
    server.listen(0, ADDRESS);
    await once(server, "listening");
    const host = `${ADDRESS}:${(server.address() as AddressInfo).port}`;
    const root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "bench-network-"));
    await borrow(root);
    const paths = dataPaths(root);
    const network = new Network({ ...DEFAULT_NETWORK, private: [ADDRESS] });
    const provider = createMicrovmProvider({ vmm: createQemu(), images: createImages(paths), paths, network });
    try {
      await measure(context, provider, host, rounds);
    } finally {
      await provider.close();
      server.close();
      await rm(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    }
  },
};

async function measure(
  context: BenchContext,
  provider: ReturnType<typeof createMicrovmProvider>,
  host: string,
  rounds: number,
): Promise<void> {
  const spec = { image: "stacyvm/busybox", memoryMiB: 256, vcpus: 1, diskMiB: 1_024, env: {}, setup: [] };
  const timed = async (name: string, work: () => Promise<unknown>, amount?: number): Promise<void> => {
    if (context.signal.aborted) return;
    const begun = performance.now();
    try {
      await work();
      const ms = performance.now() - begun;
      if (amount === undefined) context.sample(name, ms);
      else context.sample(name, amount / 1e3 / ms, "MB/s");
    } catch (error) {
      context.failure(name, error);
    }
  };
  const run = async (machine: SandboxMachine, command: string): Promise<void> => {
    const { exitCode, stderr } = await machine.agent.exec({ argv: ["sh", "-c", command] });
    if (exitCode !== 0) throw new Error(`${command} ended with ${exitCode}: ${stderr}`);
  };

  context.progress("spawns, with a network and without in turns");
  await provider.buildSnapshot(spec);
  for (let i = 0; i < rounds; i++) {
    for (const [name, allowedHosts] of [
      ["restore", []],
      ["restore.network", [host]],
    ] as const) {
      let machine: SandboxMachine | undefined;
      const begun = performance.now();
      await timed(`${name}.total`, async () => {
        machine = await provider.spawn({ ...spec, id: newSandboxId(), allowedHosts });
      });
      if (machine === undefined) continue;
      await run(machine, "echo").then(
        () => context.sample(`${name}.total.first-exec`, performance.now() - begun),
        (error) => context.failure(name, error),
      );
      await machine.destroy();
    }
  }

  context.progress("requests and bytes");
  const machine = await provider.spawn({ ...spec, id: newSandboxId(), allowedHosts: [host] });
  await run(machine, `dd if=/dev/zero of=/root/big bs=1M count=${BODY.length / 2 ** 20} 2>/dev/null`);
  const get = (path: string): string => `wget -q -O /dev/null http://${host}${path}`;
  for (let i = 0; i < rounds; i++) {
    await timed("command", () => run(machine, "true"));
    await timed("request", () => run(machine, get("/small")));
    await timed(`request.x${PARALLEL}`, () =>
      run(machine, `for i in $(seq ${PARALLEL}); do ${get("/small")} & done; wait`),
    );
  }
  for (let i = 0; i < Math.ceil(rounds / 3); i++) {
    await timed("file.read", () => run(machine, "cat /root/big >/dev/null"), BODY.length);
    await timed("download", () => run(machine, get("/big")), BODY.length);
    await timed(
      "upload",
      () => run(machine, `wget -q -O /dev/null --post-file /root/big http://${host}/`),
      BODY.length,
    );
  }
  await machine.destroy();
}
