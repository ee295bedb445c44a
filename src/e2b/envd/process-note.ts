/**
 * What E2B's clients said of a process when they started it. The guest's agent keeps it beside the process, so that it is known where this
 * server did not see the start: after its own restart, after a pause, in a fork.
 */
import { z } from "zod";
import { parseClientJson } from "../../host/json-bounds.ts";
import type { ProcessConfig } from "./gen/process/process_pb.ts";

export interface Described {
  readonly config: Pick<ProcessConfig, "cmd" | "args" | "envs" | "cwd">;
  readonly tag: string | undefined;
  readonly pty: boolean;
  /** Its input is open. */
  readonly stdin: boolean;
}

/** Bytes; the agent keeps no more of one (agent/src/exec.rs). */
const MOST = 4_096;
const Note = z.object({
  e2b: z.object({
    cmd: z.string(),
    args: z.array(z.string()),
    envs: z.record(z.string(), z.string()).optional(),
    cwd: z.string().optional(),
    tag: z.string().optional(),
    pty: z.boolean(),
    stdin: z.boolean(),
  }),
});

/** As much of it as there is room for; `undefined`: its arguments alone are too long. */
export function noteOf({ config, tag, pty, stdin }: Described): string | undefined {
  const { cmd, args, envs, cwd } = config;
  const least = { cmd, args, pty, stdin, ...(tag === undefined ? {} : { tag }), ...(cwd === undefined ? {} : { cwd }) };
  const notes = [{ ...least, envs }, least].map((e2b) => JSON.stringify({ e2b }));
  return notes.find((note) => Buffer.byteLength(note) <= MOST);
}

/** It comes from the guest, who may have written anything there. `undefined`: nothing that we wrote */
export function readNote(note: string | undefined): Described | undefined {
  if (note === undefined || Buffer.byteLength(note) > MOST) return undefined;
  try {
    const { tag, pty, stdin, cwd, ...config } = Note.parse(parseClientJson(note)).e2b;
    return { config: { ...config, envs: config.envs ?? {}, ...(cwd === undefined ? {} : { cwd }) }, tag, pty, stdin };
  } catch {
    return undefined;
  }
}
