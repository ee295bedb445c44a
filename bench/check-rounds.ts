/** One round of `bench -- check`: the calls whose ratios are kept, each beside what it is compared with, a moment apart. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { BenchDaemon } from "./daemon.ts";

/** Of the output that is collected in one answer. */
const OUTPUT_BYTES = 4 * 2 ** 20;

/** What each call is divided by: `process`, the start of one; `health`, the least that a request costs; `pipe`, the same bytes from a process. */
export const RATIOS = {
  create: "process",
  run: "process",
  delete: "process",
  exec: "health",
  list: "health",
  output: "pipe",
} as const;
export type Measured = keyof typeof RATIOS | (typeof RATIOS)[keyof typeof RATIOS];

export interface RoundSpec {
  spawn: { image: string; memory_mb: number };
  /** The guest has a shell and files: its output can be of any size. */
  linux: boolean;
}

/** @returns ms of each */
export async function round(daemon: BenchDaemon, spec: RoundSpec): Promise<Partial<Record<Measured, number>>> {
  const { ok } = daemon;
  const echo = { command: "echo", args: ["hello"] };
  const ms: Partial<Record<Measured, number>> = {};
  const timed = async <T>(name: Measured, work: () => Promise<T>): Promise<T> => {
    const begun = performance.now();
    const result = await work();
    ms[name] = performance.now() - begun;
    return result;
  };
  await timed("process", () => output(["true"]));
  const { id, boot } = JSON.parse(await timed("create", () => ok("POST", "/sandboxes", spec.spawn)));
  if (boot.path === "cold") throw new Error("it booted cold");
  await ok("POST", `/sandboxes/${id}/exec`, echo); // a guest's first command is another thing
  await timed("health", () => ok("GET", "/health"));
  await timed("exec", () => ok("POST", `/sandboxes/${id}/exec`, echo));
  await timed("list", () => ok("GET", "/sandboxes"));
  if (spec.linux) {
    const command = ["head", "-c", String(OUTPUT_BYTES), "/dev/zero"];
    await timed("pipe", () => output(command));
    const [program = "", ...args] = command;
    const answer = await timed("output", () => ok("POST", `/sandboxes/${id}/exec`, { command: program, args }));
    if (answer.length < OUTPUT_BYTES) throw new Error(`the answer has ${answer.length} bytes`);
  }
  await timed("delete", () => ok("DELETE", `/sandboxes/${id}`));
  await timed("run", () => ok("POST", "/run", { ...spec.spawn, ...echo }));
  return ms;
}

/** Runs a program of this host to its end, and takes what it puts out. */
async function output([program = "", ...args]: string[]): Promise<void> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  child.stdout.resume();
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`${program} ended with ${code}`);
}
