/** How the host and a driver in the guest speak: what is written for a piece of code, and what comes back as events. */
import type { OutputEvent } from "../guest/agent.ts";

/** What a piece of code does; what it shows goes to the client as it is. */
export interface CodeEvent {
  type: string;
  [field: string]: unknown;
}

/** `undefined` for what is no event. @param text JSON */
export function parseEvent(text: string): CodeEvent | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && typeof (value as CodeEvent).type === "string") {
      return value as CodeEvent;
    }
  } catch {}
  return undefined;
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
