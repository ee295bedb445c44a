/**
 * The server over HTTP: a real daemon in its own process, one client here. `exec.http` and `exec.direct` are the same command in
 * the same kind of machine, taken in turns in one run: what lies between them is the cost of HTTP, validation, history and events.
 * `npm run -s bench -- server [--json] [ROUNDS]`
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { dataPaths } from "../src/host/paths.ts";
import { createImages } from "../src/images/store.ts";
import { createMicrovmProvider } from "../src/providers/microvm.ts";
import type { SandboxMachine } from "../src/providers/provider.ts";
import { newSandboxId } from "../src/sandboxes/record.ts";
import { Store } from "../src/sandboxes/store.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { borrow } from "./borrow.ts";
import { type BenchDaemon, startDaemon } from "./daemon.ts";
import type { BenchContext, Suite } from "./harness.ts";
import { failedSandbox, fillList, LISTED } from "./listed.ts";

const SPAWN = { image: "stacyvm/busybox", memory_mb: 256, vcpus: 1 };
const PARALLEL = 16;

export const suite: Suite = {
  name: "server",
  about: "requests per second and latency over HTTP, and what HTTP costs over a direct call",
  async run(context) {
    const rounds = Number(context.args[0] ?? 100);
    context.guest = "linux";
    const root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "bench-server-"));
    for (const name of ["server", "direct"]) await borrow(join(root, name));
    fillList(join(root, "server", "stacyvm.db"));
    await writes(context, join(root, "direct", "stacyvm.db"), rounds * 10);
    const daemon = await startDaemon(join(root, "server"), PARALLEL, { STACYVM_PROVIDER: "qemu" });
    const paths = dataPaths(join(root, "direct"));
    // As `serve` makes it, only without HTTP in front.
    const provider = createMicrovmProvider({ vmm: createQemu(), images: createImages(paths), paths, pool: {} });
    try {
      await measure(context, daemon, provider, rounds);
    } finally {
      await provider.close();
      await daemon[Symbol.asyncDispose]();
      await rm(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    }
  },
};

async function measure(
  context: BenchContext,
  { ok }: BenchDaemon,
  provider: ReturnType<typeof createMicrovmProvider>,
  rounds: number,
): Promise<void> {
  const timed = async (name: string, work: () => Promise<unknown>): Promise<void> => {
    if (context.signal.aborted) return;
    const begun = performance.now();
    try {
      await work();
      context.sample(name, performance.now() - begun);
    } catch (error) {
      context.failure(name, error);
    }
  };
  /** Requests per second with several under way. */
  const rate = async (name: string, count: number, work: () => Promise<unknown>): Promise<void> => {
    let left = count;
    const begun = performance.now();
    await Promise.all(
      Array.from({ length: PARALLEL }, async () => {
        while (left-- > 0) await timed(`${name}.x${PARALLEL}`, work);
      }),
    );
    context.sample(`${name}.rate`, (count / (performance.now() - begun)) * 1000, "1/s");
  };

  context.progress("health and list");
  const health = () => ok("GET", "/health");
  const list = async (): Promise<void> => {
    const listed = (JSON.parse(await ok("GET", "/sandboxes")) as unknown[]).length;
    if (listed < LISTED) throw new Error(`${listed} sandboxes are listed`);
  };
  for (let i = 0; i < rounds * 5; i++) await timed("health", health);
  await rate("health", rounds * 20, health);
  for (let i = 0; i < rounds; i++) await timed("list-1000", list);
  await rate("list-1000", rounds * 2, list);

  context.progress("exec, over HTTP and direct in turns");
  const spec = { image: SPAWN.image, memoryMiB: SPAWN.memory_mb, vcpus: 1, diskMiB: 1_024, env: {}, setup: [] };
  await ok("POST", "/snapshots", SPAWN);
  await provider.buildSnapshot(spec);
  const { id } = JSON.parse(await ok("POST", "/sandboxes", SPAWN)) as { id: string };
  const machine = await provider.spawn({ ...spec, id: newSandboxId() });
  const overHttp = () => ok("POST", `/sandboxes/${id}/exec`, { command: "true", mode: "argv" });
  for (let i = 0; i < rounds; i++) {
    await timed("exec.direct", () => machine.agent.exec({ argv: ["true"], env: {} }));
    await timed("exec.http", overHttp);
  }
  await rate("exec.http", rounds * 2, overHttp);
  await machine.destroy();
  await ok("DELETE", `/sandboxes/${id}`);

  context.progress("spawn to the first command's output, over HTTP and direct in turns");
  for (let i = 0; i < Math.ceil(rounds / 4); i++) {
    let direct: SandboxMachine | undefined;
    await timed("spawn.first-exec.direct", async () => {
      direct = await provider.spawn({ ...spec, id: newSandboxId() });
      await direct.agent.exec({ argv: ["true"], env: {} });
    });
    await timed("destroy.direct", async () => direct?.destroy());
    let spawned = "";
    await timed("spawn.first-exec.http", async () => {
      spawned = (JSON.parse(await ok("POST", "/sandboxes", SPAWN)) as { id: string }).id;
      await ok("POST", `/sandboxes/${spawned}/exec`, { command: "true", mode: "argv" });
    });
    if (spawned !== "") await timed("destroy.http", () => ok("DELETE", `/sandboxes/${spawned}`));
  }
}

/** What a spawn waits for before it answers: its record, committed. */
async function writes(context: BenchContext, path: string, count: number): Promise<void> {
  using store = new Store(path);
  for (let i = 0; i < count; i++) {
    const record = failedSandbox(i, Date.now());
    const begun = performance.now();
    await store.putSandbox(record, record.createdAt);
    context.sample("record.write", performance.now() - begun);
  }
}
