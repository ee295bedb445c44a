/** Requests whose callers somebody else has found out: another node of the fleet, or whoever looked at one before the application. */
import type { IncomingMessage } from "node:http";
import type { Identity } from "../access/identity.ts";

export interface Caller extends Identity {
  /** The request's header that had the key. It is between the client and us: nothing hands it on. */
  header?: string;
}

/** Between nodes: says in an answer that it is a refusal, which the one who asked may have done elsewhere. */
export const REFUSAL_HEADER = "x-stacyvm-refused";

export interface Vouched {
  /** By its key; absent: it has shown none that is good, and is answered what is for everybody. */
  caller?: Caller | undefined;
  /** Why it is nobody: what it is told where somebody is asked for. */
  refused?: unknown;
  /** The holder of a sandbox's own token, for that sandbox and for nothing else. */
  proved?: { sandbox: string; by: Caller } | undefined;
  /** It asks for a new sandbox, and others may be asked for it: a refusal says that it is one. */
  elsewhere?: true;
  /** The client's, where another node has passed the request on. */
  address?: string | undefined;
}

const vouched = new WeakMap<IncomingMessage, Vouched>();

export function vouch(incoming: IncomingMessage, by: Vouched): void {
  vouched.set(incoming, by);
}

export function vouchedOf(incoming: IncomingMessage | undefined): Vouched | undefined {
  return incoming === undefined ? undefined : vouched.get(incoming);
}
