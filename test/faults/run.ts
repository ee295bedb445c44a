/** For every n of each operation and kind: the n-th call fails, once. Afterwards everything must be as if nothing had been, or done. */
import assert from "node:assert/strict";
import { asStacyError } from "../../src/host/error.ts";
import { OPERATIONS, type Operation, worksSoon } from "./operations.ts";
import { arm, type Calls, choose, countCalls, disarm, isMute, KINDS, type Kind } from "./points.ts";
import type { World } from "./world.ts";

export interface Tried {
  /** Calls that were made to fail. */
  points: number;
  /** Of these: the operation failed, and said so. In the others it went around the fault. */
  refused: number;
  /** The points of each operation and kind. */
  of: Record<string, Partial<Record<Kind, number>>>;
  failures: string[];
}

export function nothingTried(): Tried {
  return { points: 0, refused: 0, of: {}, failures: [] };
}

/** `fork 40 (db 8, fs.open 14, ...)` */
export function describePoints({ of }: Tried): string[] {
  return Object.entries(of).map(([operation, kinds]) => {
    const each = Object.entries(kinds).filter(([, count]) => count > 0);
    const sum = each.reduce((total, [, count]) => total + count, 0);
    return `${operation} ${sum} (${each.map(([kind, count]) => `${kind} ${count}`).join(", ")})`;
  });
}

export function countPoint(tried: Tried, { name }: Operation, kind: Kind): void {
  tried.points += 1;
  tried.of[name] ??= {};
  tried.of[name][kind] = (tried.of[name][kind] ?? 0) + 1;
}

export interface RunOptions {
  operations?: readonly string[];
  kinds?: readonly Kind[];
  /** At most so many points of each operation and kind, spread over all; absent: every one. */
  most?: number;
  /** Of each operation and kind only the points from this one on. */
  from?: number;
  /** By `performance.now()`; absent: until all were tried. */
  until?: number;
  /** So many are tried however long it takes. */
  least?: number;
  /** Decides on the order, so that a form that ends early tries others each time. */
  seed: number;
  say(line: string): void;
}

export async function tryPoints(world: World, options: RunOptions): Promise<Tried> {
  const { most, from = 1, say } = options;
  const tried = nothingTried();
  const fail = async (name: string, error: unknown): Promise<void> => {
    disarm();
    tried.failures.push(`${name}: ${(error as Error).stack ?? error}`);
    say(`FAILED ${tried.failures.at(-1)}`);
    await world.reset();
  };
  const calls = new Map<Operation, Calls>();
  for (const { operation, kind } of pairs(options)) {
    if (isOver(options, tried)) break;
    if (!calls.has(operation)) {
      try {
        calls.set(operation, await count(world, operation));
      } catch (error) {
        calls.set(operation, {});
        await fail(`${operation.name} without a fault`, error);
      }
    }
    const made = calls.get(operation)?.[kind] ?? [];
    const begun = performance.now();
    const before = tried.points;
    for (const n of choose(made, most).filter((each) => each >= from)) {
      if (isOver(options, tried)) break;
      try {
        const restart = tried.points % 2 === 1 && operation.name !== "adopt" && !isMute(kind);
        const { reached, refused } = await tryPoint(world, operation, kind, n, restart);
        if (reached) countPoint(tried, operation, kind);
        if (refused) tried.refused += 1;
      } catch (error) {
        countPoint(tried, operation, kind);
        await fail(`${operation.name}, ${kind} ${n} of ${made.length}`, error);
      }
    }
    const seconds = ((performance.now() - begun) / 1_000).toFixed(1);
    say(`${operation.name} ${kind}: ${made.length} calls, ${tried.points - before} of them tried, ${seconds} s`);
  }
  return tried;
}

export function isOver({ until = Number.POSITIVE_INFINITY, least = 0 }: RunOptions, { points }: Tried): boolean {
  return points >= least && performance.now() > until;
}

export function pairs({ operations, kinds = KINDS, seed }: RunOptions): { operation: Operation; kind: Kind }[] {
  const all = OPERATIONS.filter(({ name }) => operations?.includes(name) !== false);
  const list = all.flatMap((operation) => kinds.map((kind) => ({ operation, kind })));
  let state = seed;
  return list
    .map((pair) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return { pair, key: state };
    })
    .sort((a, b) => a.key - b.key)
    .map(({ pair }) => pair);
}

/** How many calls of each kind the operation makes when none fails. */
async function count(world: World, operation: Operation): Promise<Calls> {
  const of = await operation.prepare(world);
  countCalls();
  await operation.work(world, of);
  const { calls } = disarm();
  await operation.holds(world, of);
  await world.clear();
  return calls;
}

/** @param restart after a failure another daemon takes over, and is asked for the same: all that it knows is what that left */
async function tryPoint(
  world: World,
  operation: Operation,
  kind: Kind,
  at: number,
  restart: boolean,
): Promise<{ reached: boolean; refused: boolean }> {
  const other = await world.bystander();
  const of = await operation.prepare(world);
  arm(kind, at);
  let error: unknown;
  try {
    await operation.work(world, of);
  } catch (thrown) {
    error = thrown;
  }
  const { reached } = disarm();
  if (error !== undefined) {
    const { code, message } = asStacyError(error);
    assert.ok(message !== "" && code !== undefined);
    assert.ok(reached, `it failed without a fault: ${message}`);
    if (restart) {
      await world.close();
      await world.open();
      await world.reached();
    }
    // The same again.
    await operation.work(world, of);
  }
  try {
    await operation.holds(world, of);
  } catch (late) {
    // What the operation had no need of any more is silent still: whoever meets it first is told so, and it holds for the next.
    if (!isMute(kind) || error !== undefined || !reached) throw late;
    assert.ok(["timeout", "cancelled", "disconnected"].includes(asStacyError(late).code), String(late));
    await operation.holds(world, of);
  }
  await world.settled();
  if (other !== "" && world.sandboxes.list().some(({ id }) => id === other)) await worksSoon(world, other);
  else assert.equal(operation.name, "build", "another sandbox is gone");
  await world.clear();
  await world.nothingSaved();
  return { reached, refused: error !== undefined };
}
