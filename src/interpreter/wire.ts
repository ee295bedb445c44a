/** How the host and a driver in the guest speak: what is written for a piece of code, and what comes back as events. */
import type { OutputEvent } from "../guest/agent.ts";
import { INTERPRETER_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";

/** What a piece of code does; what it shows goes to the client as it is. */
export interface CodeEvent {
  type: string;
  [field: string]: unknown;
}

/** @throws StacyError `limit` */
export function assertFits(bytes: number): void {
  if (bytes > INTERPRETER_BOUNDS.eventBytes) throw tooLarge();
}

/** `undefined` for what is no event. @param json as it came from the guest @throws StacyError `limit` */
export function parseEvent(json: Buffer): CodeEvent | undefined {
  assertFits(json.length);
  assertQuick(json);
  try {
    const value: unknown = JSON.parse(json.toString("utf8"));
    if (typeof value === "object" && value !== null && typeof (value as CodeEvent).type === "string") {
      return value as CodeEvent;
    }
  } catch {}
  return undefined;
}

const [QUOTE, BACKSLASH] = [0x22, 0x5c];

/**
 * A picture is one long string, which is read in no time; as many bytes of nested lists keep everybody waiting. So it is counted what is
 * outside of strings, and where they end or seem to.
 */
function assertQuick(json: Buffer): void {
  const { structureBytes, quotes: mostQuotes } = INTERPRETER_BOUNDS;
  if (json.length <= structureBytes) return;
  let outside = 0;
  let quotes = 0;
  let inside = false;
  for (let at = 0; at < json.length; ) {
    const next = json.indexOf(QUOTE, at);
    const end = next === -1 ? json.length : next;
    if (!inside) outside += end - at;
    quotes += 1;
    if (outside > structureBytes || quotes > mostQuotes) throw tooLarge();
    let escapes = 0;
    for (let back = end - 1; inside && back >= at && json[back] === BACKSLASH; back--) escapes += 1;
    if (escapes % 2 === 0) inside = !inside;
    at = end + 1;
  }
}

function tooLarge(): StacyError {
  return new StacyError("limit", "a result of the interpreter is too large", {
    remedy: "write it to a file of the sandbox, and read that",
    final: true,
  });
}

export interface CodeRequest {
  code: string;
  env: Record<string, string>;
  /** It is no piece of the user's: it does not count. */
  prepare?: true;
}

/** One of a driver's two ways to speak. Its state belongs to one process. */
export interface Conversation {
  /** What begins it: from then on the driver's words are the host's to read, whatever it said before. */
  begin(settings: { env: Record<string, string>; seed: string }): Buffer;
  ask(request: CodeRequest): Buffer;
  /** What a piece of output means. `begun` comes once after `begin`, `end` after each request. @throws StacyError `protocol` */
  read(event: OutputEvent): CodeEvent[];
}

export type Wire = () => Conversation;
