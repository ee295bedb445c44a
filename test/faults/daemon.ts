/**
 * A daemon that is to be stopped at one call: `node daemon.ts ROOT MONITOR`, then a line of JSON that says at which. It takes over what
 * is there, begins the operation, and is killed (-9) inside it; or it gets through, says how many calls there were, and leaves.
 */
import { createInterface } from "node:readline";
import { OPERATIONS } from "./operations.ts";
import { arm, countCalls, disarm, type Kind } from "./points.ts";
import { type Monitor, World } from "./world.ts";

export interface Stop {
  operation: string;
  /** The sandbox that it is done to. */
  of: string;
  /** Absent: none, and all are counted. */
  at?: { kind: Kind; n: number };
}

const [root = "", monitor] = process.argv.slice(2);
for await (const line of createInterface({ input: process.stdin })) {
  const { operation: name, of, at } = JSON.parse(line) as Stop;
  const operation = OPERATIONS.find((each) => each.name === name);
  if (operation === undefined) throw new Error(`no operation ${name}`);
  const world = World.at(root, monitor as Monitor);
  // Taking over is the operation there.
  if (name !== "adopt") await world.open();
  if (at === undefined) countCalls();
  else arm(at.kind, at.n, "stop");
  await operation.work(world, of);
  const { calls } = disarm();
  await world.close();
  process.stdout.write(`${JSON.stringify(calls)}\n`);
  break;
}
process.stdin.destroy(); // else it would keep this process
