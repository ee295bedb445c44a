/** For every n of each operation and kind: the daemon is killed before its n-th call. What the next one finds must be right. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Stop } from "./daemon.ts";
import { type Operation, worksSoon } from "./operations.ts";
import { type Calls, choose, STOP_KINDS } from "./points.ts";
import { countPoint, isOver, nothingTried, pairs, type RunOptions, type Tried } from "./run.ts";
import type { Monitor, World } from "./world.ts";

export async function tryStops(world: World, monitor: Monitor, options: RunOptions): Promise<Tried> {
  const { most, from = 1, say } = options;
  const tried = nothingTried();
  await using daemons = new Daemons(world.paths.root, monitor);
  const calls = new Map<Operation, Calls>();
  for (const { operation, kind } of pairs({ kinds: STOP_KINDS, ...options })) {
    if (isOver(options, tried)) break;
    const attempt = async (at?: Stop["at"]): Promise<Calls | undefined> => {
      try {
        return await stopAt(world, daemons, operation, at);
      } catch (error) {
        tried.failures.push(`${operation.name}, ${at?.kind} ${at?.n}: ${(error as Error).stack ?? error}`);
        say(`FAILED ${tried.failures.at(-1)}`);
        await world.reset();
        return undefined;
      }
    };
    if (!calls.has(operation)) calls.set(operation, (await attempt()) ?? {});
    const made = calls.get(operation)?.[kind] ?? [];
    for (const n of choose(made, most).filter((each) => each >= from)) {
      if (isOver(options, tried)) break;
      // It may get through: some calls do not come each time.
      if ((await attempt({ kind, n })) === undefined) countPoint(tried, operation, kind);
    }
    say(`${operation.name} ${kind}: ${made.length} calls`);
  }
  return tried;
}

/** @returns the calls there were, if the daemon got through */
async function stopAt(
  world: World,
  daemons: Daemons,
  operation: Operation,
  at: Stop["at"],
): Promise<Calls | undefined> {
  const other = await world.bystander();
  const of = await operation.prepare(world);
  if (operation.name !== "adopt") await world.close();
  const calls = await daemons.run({ operation: operation.name, of, ...(at === undefined ? {} : { at }) });
  await world.open();
  const there = world.sandboxes.list();
  for (const { id, state } of there) {
    if (state === "paused" || state === "suspended") await world.sandboxes.resume(id);
    await worksSoon(world, id);
  }
  const ids = there.map(({ id }) => id);
  if (other !== "" && operation.name !== "build") assert.ok(ids.includes(other), "another sandbox is gone");
  if (of !== "" && operation.name !== "destroy") assert.ok(ids.includes(of), "the sandbox is gone");
  await world.settled();
  if (at !== undefined) {
    // What was cut off can be done now.
    await operation.again?.(world, of);
    await operation.work(world, of);
    await operation.holds(world, of);
    await world.settled();
  }
  await world.clear();
  await world.nothingSaved();
  return calls;
}

/** The next one starts while the last one's traces are looked at. */
class Daemons implements AsyncDisposable {
  readonly #start: () => ChildProcess;
  #next: ChildProcess;

  constructor(root: string, monitor: Monitor) {
    const args = [new URL("daemon.ts", import.meta.url).pathname, root, monitor];
    this.#start = () => spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.#next = this.#start();
  }

  /** @returns the calls there were; `undefined` when it was killed */
  async run(stop: Stop): Promise<Calls | undefined> {
    const child = this.#next;
    let said = "";
    child.stdout?.on("data", (text) => {
      said += text;
    });
    const ended = once(child, "close");
    child.stdin?.write(`${JSON.stringify(stop)}\n`);
    const [code, signal] = await ended;
    this.#next = this.#start();
    if (signal === "SIGKILL") return undefined;
    assert.equal(code, 0, `the daemon ended with ${code ?? signal}`);
    return JSON.parse(said) as Calls;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#next, "close");
    this.#next.kill("SIGKILL");
    await ended;
  }
}
