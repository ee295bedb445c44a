/**
 * What a command has written and its agent has kept, with the times: the last lines of it, and what comes after. The agent keeps it
 * in the guest's memory, bounded for each command, so it is there after a pause, a suspend, a fork and a restart of the server.
 */
import type { Agent, Command, OutputEvent } from "../guest/agent.ts";
import { OutputBudget } from "../guest/output-budget.ts";
import { StacyError } from "../host/error.ts";

/** In place of a command's number: the one that was last started to go on by itself (`exec -d`, `spawn --start`). */
export const MAIN = "main";

/** @returns its number @throws StacyError `not-found` */
export async function numberOf(agent: Agent, process: string, sandboxId: string, signal: AbortSignal): Promise<string> {
  if (process !== MAIN) return process;
  // An agent from before the mark says nothing of it: then each may be.
  const started = (await agent.processes({ signal })).filter(({ detached }) => detached !== false);
  const last = started.reduce<bigint | undefined>((most, { id }) => {
    const number = BigInt(id);
    return most === undefined || number > most ? number : most;
  }, undefined);
  if (last !== undefined) return String(last);
  throw new StacyError("not-found", `no program was left running in sandbox ${sandboxId}`, {
    remedy: `\`stacyvm exec -d ${sandboxId} -- COMMAND\` starts one; \`stacyvm logs --console ${sandboxId}\` shows the kernel's console`,
  });
}

export interface Window {
  /** Lines from the end of what is there; absent: all. */
  tail?: number | undefined;
  /** Go on with what comes. */
  follow: boolean;
  /** Who reads. */
  owner: string;
}

/** More than any agent keeps of one command; how much there is, the guest says. */
const MOST_HELD = 20 << 20;
const EVENT_OVERHEAD = 256;
/** Of all that are read at a time, bytes, of which one owner has half at most; each takes as much of it as it needs, by the step. */
const MOST_TOGETHER = 256 << 20;
const STEP = 1 << 20;
const together = new OutputBudget(MOST_HELD + STEP, MOST_TOGETHER);

/** @throws StacyError `not-supported`, before anything is read, for a part of what an older agent keeps */
export function keptOutput(command: Command, window: Window): AsyncGenerator<OutputEvent> {
  if (command.written === undefined && (window.tail !== undefined || !window.follow)) {
    throw new StacyError("not-supported", "the agent of this sandbox is older and does not say how much it has kept", {
      remedy: "follow its output instead, or start the sandbox anew",
    });
  }
  return read(command, window);
}

async function* read(command: Command, { tail, follow, owner }: Window): AsyncGenerator<OutputEvent> {
  const end = command.written ?? 0;
  if (end === 0 && !follow) return;
  let before: OutputEvent[] | undefined = tail === undefined || end === 0 ? undefined : [];
  using room = together.open(owner);
  let granted = 0;
  let held = 0;
  let at = 0;
  for await (const event of command.output()) {
    const bytes = event.type === "lost" ? event.bytes : event.data.length;
    at += bytes;
    if (before === undefined) yield event;
    else {
      before.push(event);
      held += sizeOf(event);
      while (held > granted && granted < MOST_HELD) {
        if (room.take(STEP) < STEP) throw tooMany();
        granted += STEP;
      }
      if (held > MOST_HELD) held = dropOldest(before, held);
      // At once: a program that is quiet from here on would keep the lines from whoever follows it.
      if (at >= end) {
        const last = lastLines(before, tail ?? 0);
        before = undefined;
        yield* last;
        // Whoever follows holds nothing from here on.
        room[Symbol.dispose]();
      }
    }
    if (!follow && at >= end) break;
  }
  if (before !== undefined) yield* lastLines(before, tail ?? 0);
}

function tooMany(): StacyError {
  return new StacyError("limit", "the logs of too many programs are being read at a time", {
    remedy: "try again, or read without --tail",
  });
}

function sizeOf(event: OutputEvent): number {
  return EVENT_OVERHEAD + (event.type === "lost" ? 0 : event.data.length);
}

/** Half of it, so that many small pieces are not moved for each one that comes. @returns what is left, bytes */
function dropOldest(events: OutputEvent[], held: number): number {
  let count = 0;
  for (; held > MOST_HELD / 2; count++) held -= sizeOf(events[count] as OutputEvent);
  events.splice(0, count);
  return held;
}

const NEWLINE = 10;

/** A last line without its end is one, too. */
export function lastLines(events: readonly OutputEvent[], count: number): OutputEvent[] {
  const kept: OutputEvent[] = [];
  let lines = 0;
  for (const event of events.toReversed()) {
    if (event.type === "lost") continue;
    const { data } = event;
    let from = data.length;
    while (from > 0) {
      const ends = data[from - 1] === NEWLINE;
      const last = kept.length === 0 && from === data.length;
      // The end of the line before the first one that is wanted.
      if (ends && !last && lines === count - 1) break;
      if (ends && !last) lines += 1;
      from -= 1;
    }
    if (count > 0 && from < data.length) kept.push({ ...event, data: data.subarray(from) });
    if (from > 0 || count === 0) break;
  }
  return kept.reverse();
}
