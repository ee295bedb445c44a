/**
 * No regressions: a short set of ratios, each of a call to a server and of something plain that is measured beside it in the same round, so
 * that a faster or busier host changes little. Compared with the runs in `baseline.json`, or with another commit's server in turns.
 *
 *     --n=N            rounds for each monitor (default 15)
 *     --keep           adds this run to the baseline
 *     --against=REF    the server of that commit is measured in the same rounds, and is what this one is compared with
 */
import { rm } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import { dataPaths } from "../src/host/paths.ts";
import { buildBareGuest } from "../src/images/bare-guest.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { judge, judgeRounds, keep, readBaseline, type Verdict } from "./baseline.ts";
import { borrow } from "./borrow.ts";
import { type Measured, RATIOS, type RoundSpec, round } from "./check-rounds.ts";
import { startDaemon } from "./daemon.ts";
import { type BenchContext, type Suite, summarize } from "./harness.ts";
import { checkOut } from "./other-tree.ts";

const SIDES: readonly (RoundSpec & { name: "firecracker" | "qemu" })[] = [
  { name: "firecracker", spawn: { image: "stacyvm/bare", memory_mb: 256 }, linux: false },
  { name: "qemu", spawn: { image: "stacyvm/busybox", memory_mb: 256 }, linux: true },
];
/** Before the first round that counts: what a server does once is not what is compared. */
const UNCOUNTED = 2;

type Calls = Partial<Record<Measured, number>>;
/** What a call took, and what the same call, or something plain, took in that round: by name, of each round. */
type Quotients = Map<string, number[]>;

export const suite: Suite = {
  name: "check",
  about: "ratios that must not grow: calls to a server beside plain things of the same moment",
  async run(context) {
    const args = context.args.join(" ");
    const n = Number(/--n[= ](\d+)/.exec(args)?.[1] ?? 15);
    const ref = /--against[= ](\S+)/.exec(args)?.[1];
    const paths = dataPaths();
    const root = join(paths.tmp, `bench-check-${process.pid}`);
    await using left = new AsyncDisposableStack();
    left.defer(() => rm(root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }));
    const tree = join(root, "tree");
    if (ref !== undefined) left.defer(await checkOut(ref, tree));
    const monitors = { qemu: createQemu(), firecracker: createFirecracker({ assets: paths.assets }) };
    const machine = [cpus()[0]?.model.trim() ?? "unknown", `${cpus().length} cores`];
    const quotients: Quotients = new Map();
    for (const side of SIDES) {
      const probe = await monitors[side.name].probe();
      if (!probe.usable) {
        context.note(`${side.name} is left out: ${probe.reason}`);
        continue;
      }
      machine.push(`${side.name} ${probe.accelerator}`);
      if (side.name === "firecracker") await buildBareGuest(paths.assets);
      const rounds = await measure(context, side, n, join(root, side.name), ref === undefined ? [] : [tree]);
      for (const [now, other] of rounds) divide(quotients, side.name, now, other);
    }
    await conclude(context, machine.join(", "), quotients, ref);
  },
};

/** @param others trees whose servers are measured too @returns by round, this tree's first */
async function measure(
  context: BenchContext,
  side: (typeof SIDES)[number],
  n: number,
  root: string,
  others: readonly string[],
): Promise<Calls[][]> {
  await using left = new AsyncDisposableStack();
  const servers = [];
  for (const tree of [undefined, ...others]) {
    const name = tree === undefined ? side.name : `${side.name}.other`;
    const dir = join(root, name);
    await borrow(dir);
    const settings = { STACYVM_PROVIDER: side.name, STACYVM_WARM_ADAPTIVE: "false" };
    const daemon = left.use(await startDaemon(dir, 2, settings, tree));
    await daemon.ok("POST", "/snapshots", side.spawn);
    servers.push({ name, daemon });
  }
  context.progress(`${side.name}: n = ${n}`);
  const rounds: Calls[][] = [];
  for (let i = -UNCOUNTED; i < n; i++) {
    context.signal.throwIfAborted();
    const took = new Map<string, Calls>();
    try {
      // Neither is always the first.
      for (const { name, daemon } of i % 2 === 0 ? servers : servers.toReversed()) {
        took.set(name, await round(daemon, side));
      }
    } catch (error) {
      context.failure(side.name, error);
      continue;
    }
    if (i < 0) continue;
    for (const [name, ms] of took)
      for (const [call, value] of Object.entries(ms)) context.sample(`${name}.${call}`, value);
    rounds.push(servers.map(({ name }) => took.get(name) ?? {}));
  }
  return rounds;
}

function divide(quotients: Quotients, side: string, now: Calls = {}, other?: Calls): void {
  for (const [call, plain] of Object.entries(RATIOS) as [Measured, Measured][]) {
    const [value, by] = [now[call], other === undefined ? now[plain] : other[call]];
    if (value === undefined || by === undefined) continue;
    const name = other === undefined ? `${side}.${call} / ${plain}` : `${side}.${call}`;
    quotients.set(name, [...(quotients.get(name) ?? []), value / by]);
  }
}

async function conclude(context: BenchContext, machine: string, quotients: Quotients, ref?: string): Promise<void> {
  const medians = Object.fromEntries([...quotients].map(([name, values]) => [name, summarize(values, "x").p50]));
  const known = (await readBaseline())[machine] ?? {};
  const verdicts =
    ref === undefined
      ? Object.entries(medians).map(([name, now]) => judge(name, now, known[name] ?? []))
      : [...quotients].map(([name, rounds]) => judgeRounds(name, rounds));
  context.conclude(table(ref === undefined ? `beside earlier runs on ${machine}` : `beside ${ref}`, verdicts));
  for (const { what } of verdicts.filter(({ slower }) => slower))
    context.failure(what, new Error("slower than before"));
  if (ref === undefined && context.args.includes("--keep")) await keep(machine, medians);
}

function table(title: string, verdicts: readonly Verdict[]): string[] {
  const width = Math.max(...verdicts.map(({ what }) => what.length), 0);
  const number = (value: number): string => value.toFixed(2).padStart(8);
  return [
    title,
    "=".repeat(title.length),
    `${"".padEnd(width)}  ${["now", "low", "median", "high", "limit", "n"].map((head) => head.padStart(8)).join("")}`,
    ...verdicts.map(({ what, now, known, slower }) => {
      if (known === undefined) return `${what.padEnd(width)}  ${number(now)}  no baseline yet`;
      const { n, low, median, high, limit } = known;
      const cells = [now, low, median, high, limit].map(number).join("");
      return `${what.padEnd(width)}  ${cells}${String(n).padStart(8)}${slower ? "  SLOWER" : ""}`;
    }),
    "",
  ];
}
