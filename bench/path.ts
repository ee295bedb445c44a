/**
 * The path of a request: what stands between a client and the machine. Each call is made in turns to this tree's server and, with
 * `--against=REF`, to that commit's, and beside it directly where there is such a call.
 *
 *     --n=N            rounds (default 40)
 *     --against=REF    the server of that commit, in the same rounds
 *     --only=NAME,...  of `list`, `firecracker`, `qemu`
 */

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { dataPaths, packageRoot } from "../src/host/paths.ts";
import { buildBareGuest } from "../src/images/bare-guest.ts";
import { createImages } from "../src/images/store.ts";
import { createMicrovmProvider } from "../src/providers/microvm.ts";
import { newSandboxId } from "../src/sandboxes/record.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { borrow } from "./borrow.ts";
import { type BenchDaemon, startDaemon } from "./daemon.ts";
import { type BenchContext, optionOf, type Suite } from "./harness.ts";
import { fillList, LISTED } from "./listed.ts";
import { checkOut } from "./other-tree.ts";

/** Before the first round that counts: what a server does once is not what is compared. */
const UNCOUNTED = 3;
/** Base64 of so many bytes is 30 MB of text. It is a file: programs that make so much take longer for that than it takes to bring. */
const RANDOM_BYTES = 22_500_000;
const OUTPUT_BYTES = 30_000_000;
const OUTPUT_ROUNDS = 5;
/** Behind what a DELETE leaves to be done, so that it slows no other sample. */
const REST_MS = 60;

const SIDES = [
  { name: "firecracker", spawn: { image: "stacyvm/bare", memory_mb: 256 }, linux: false },
  { name: "qemu", spawn: { image: "stacyvm/busybox", memory_mb: 256 }, linux: true },
] as const;
type Side = (typeof SIDES)[number];

interface Server {
  /** Of the results' names: empty, or that of the other tree. */
  suffix: string;
  daemon: BenchDaemon;
}

export const suite: Suite = {
  name: "path",
  about: "the path of a request: what HTTP, records and events add to what the machine takes",
  async run(context) {
    const option = (name: string): string | undefined => optionOf(context.args, name);
    await measurePath(context, Number(option("n") ?? 40), option("only")?.split(","), option("against"));
  },
};

/** @param only of `list` and the monitors; default all @param ref the other tree, if there is one */
export async function measurePath(
  context: BenchContext,
  n: number,
  only: readonly string[] | undefined,
  ref?: string,
): Promise<void> {
  const wanted = (name: string): boolean => only === undefined || only.includes(name);
  const paths = dataPaths();
  const root = join(paths.tmp, `bench-path-${process.pid}`);
  await using left = new AsyncDisposableStack();
  left.defer(() => rm(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }));
  const trees = [{ suffix: "", tree: packageRoot }];
  if (ref !== undefined) {
    const tree = join(root, "tree");
    left.defer(await checkOut(ref, tree));
    trees.push({ suffix: ".other", tree });
  }
  if (wanted("list")) await lists(context, join(root, "list"), trees, n * 5);
  for (const side of SIDES) if (wanted(side.name)) await calls(context, join(root, side.name), trees, side, n);
}

async function start(
  left: AsyncDisposableStack,
  root: string,
  { suffix, tree }: { suffix: string; tree: string },
  settings: Record<string, string>,
  fill?: (dir: string) => void,
): Promise<Server> {
  const dir = join(root, `server${suffix}`);
  await borrow(dir);
  fill?.(dir);
  const probe = join(packageRoot, "bench/after-report.ts");
  const whole = {
    ...settings,
    STACYVM_WARM_ADAPTIVE: "false",
    STACYVM_BENCH_TREE: tree,
    NODE_OPTIONS: `--import=${probe} ${process.env.NODE_OPTIONS ?? ""}`,
  };
  return { suffix, daemon: left.use(await startDaemon(dir, 2, whole, tree)) };
}

async function lists(
  context: BenchContext,
  root: string,
  trees: readonly { suffix: string; tree: string }[],
  n: number,
): Promise<void> {
  await using left = new AsyncDisposableStack();
  const servers: Server[] = [];
  for (const tree of trees) {
    servers.push(
      await start(left, root, tree, { STACYVM_PROVIDER: "qemu" }, (dir) => fillList(join(dir, "stacyvm.db"))),
    );
  }
  context.progress(`list of ${LISTED}, n = ${n}`);
  for (let i = -UNCOUNTED; i < n; i++) {
    for (const { suffix, daemon } of inTurns(servers, i)) {
      context.signal.throwIfAborted();
      const health = await timed(() => daemon.ok("GET", "/health"));
      const list = await timed(() => daemon.ok("GET", "/sandboxes"));
      if (!list.result.includes("sb-000003e7")) context.failure("list", new Error("it is not whole"));
      if (i < 0) continue;
      context.sample(`health${suffix}`, health.ms);
      context.sample(`list-${LISTED}${suffix}`, list.ms);
    }
  }
}

async function calls(
  context: BenchContext,
  root: string,
  trees: readonly { suffix: string; tree: string }[],
  side: Side,
  n: number,
): Promise<void> {
  const { assets } = dataPaths();
  const vmm = side.name === "qemu" ? createQemu() : createFirecracker({ assets });
  const probe = await vmm.probe();
  if (!probe.usable) {
    context.note(`${side.name} is left out: ${probe.reason}`);
    return;
  }
  context.versions[side.name] = `${probe.version}, ${probe.accelerator}`;
  if (side.name === "firecracker") await buildBareGuest(assets);
  await using left = new AsyncDisposableStack();
  const servers: Server[] = [];
  for (const tree of trees) {
    const server = await start(left, root, tree, { STACYVM_PROVIDER: side.name });
    await server.daemon.ok("POST", "/snapshots", side.spawn);
    // A pool of the default size, pinned.
    await server.daemon.ok("POST", "/templates", { ...side.spawn, name: "bench", pool_size: 2 });
    servers.push(server);
  }
  const dir = join(root, "direct");
  await borrow(dir);
  const paths = dataPaths(dir);
  const provider = createMicrovmProvider({ vmm, images: createImages(paths), paths, pool: { adaptive: false } });
  left.defer(() => provider.close());
  const spec = { image: side.spawn.image, memoryMiB: 256, vcpus: 1, diskMiB: 1_024, env: {}, setup: [] };
  await provider.buildSnapshot(spec);
  const machine = await provider.spawn({ ...spec, id: newSandboxId() });
  left.defer(() => machine.destroy());
  const direct = () => machine.agent.exec({ argv: ["echo", "hello"], env: {} });
  for (let i = 0; i < UNCOUNTED; i++) await direct();

  context.progress(`${side.name}: n = ${n}`);
  for (let i = -UNCOUNTED; i < n; i++) {
    for (const server of inTurns(servers, i)) {
      context.signal.throwIfAborted();
      try {
        await life(context, server, side, direct, i >= 0);
      } catch (error) {
        context.failure(side.name, error);
      }
    }
  }
  if (!side.linux) return;
  context.progress(`${side.name}: ${OUTPUT_BYTES} bytes of output`);
  const kept: { id: string; server: Server }[] = [];
  for (const server of servers) {
    const { id } = JSON.parse(await server.daemon.ok("POST", "/sandboxes", side.spawn));
    const command = `head -c ${RANDOM_BYTES} /dev/urandom | base64 > /tmp/text`;
    await server.daemon.ok("POST", `/sandboxes/${id}/exec`, { command });
    kept.push({ id, server });
  }
  for (let i = -1; i < OUTPUT_ROUNDS; i++) {
    for (const { id, server } of inTurns(kept, i)) await output(context, server, id, `${side.name}.`, i >= 0);
  }
}

/** Creates from the pool, runs, deletes, and does it all in one request; each once. */
async function life(
  context: BenchContext,
  { daemon, suffix }: Server,
  { name: monitor, spawn }: Side,
  direct: () => Promise<unknown>,
  counts: boolean,
): Promise<void> {
  const sample = (name: string, ms: number): void => {
    if (counts) context.sample(`${monitor}.${name}${suffix}`, ms);
  };
  const echo = { command: "echo", args: ["hello"] };
  const afterReport = (name: string, answer: { status: number; headers: Record<string, unknown>; text: string }) => {
    if (answer.status >= 300) throw new Error(answer.text);
    const { boot } = JSON.parse(answer.text);
    if (boot.path !== "warm") throw new Error(`it came ${boot.path}`);
    sample(name, Number(answer.headers["x-after-report"]));
  };
  await filled(daemon);
  const created = await timed(() => daemon.call("POST", "/sandboxes", spawn));
  sample("create", created.ms);
  afterReport("create.after-report", created.result);
  const { id } = JSON.parse(created.result.text);
  const exec = () => daemon.ok("POST", `/sandboxes/${id}/exec`, echo);
  await exec();
  await delay(REST_MS); // the pool fills
  for (let turn = 0; turn < 3; turn++) {
    const [http, without] = [await timed(exec), await timed(direct)];
    sample("exec.http", http.ms);
    sample("exec.direct", without.ms);
    sample("exec.over", http.ms - without.ms);
  }
  sample("delete", (await timed(() => daemon.ok("DELETE", `/sandboxes/${id}`))).ms);
  await filled(daemon);
  await delay(REST_MS);
  const run = await timed(() => daemon.call("POST", "/run", { ...spawn, ...echo }));
  sample("run", run.ms);
  if (run.result.status >= 300) throw new Error(run.result.text);
  await delay(REST_MS);
}

async function output(
  context: BenchContext,
  { daemon, suffix }: Server,
  id: string,
  prefix: string,
  counts: boolean,
): Promise<void> {
  const command = { command: "cat", args: ["/tmp/text"] };
  for (const encoding of ["utf8", "base64"]) {
    const { result, ms } = await timed(() => daemon.ok("POST", `/sandboxes/${id}/exec`, { ...command, encoding }));
    if (result.length < OUTPUT_BYTES) context.failure("output", new Error(`it has ${result.length} bytes`));
    if (counts) context.sample(`${prefix}output.${encoding}${suffix}`, ms);
  }
}

async function filled({ ok }: BenchDaemon): Promise<void> {
  while ((JSON.parse(await ok("GET", "/pool/status")) as { vms?: number }).vms !== 2) await delay(20);
}

async function timed<T>(work: () => Promise<T>): Promise<{ result: T; ms: number }> {
  const begun = performance.now();
  const result = await work();
  return { result, ms: performance.now() - begun };
}

/** Nobody is always the first. */
function inTurns<T>(all: readonly T[], turn: number): T[] {
  return turn % 2 === 0 ? [...all] : all.toReversed();
}
