import type { Duplex } from "node:stream";

/** A byte stream to the agent of a machine, as a VMM opens it and the guest's client uses it. */
export interface AgentStream {
  stream: Duplex;
  /**
   * True when no byte of an earlier connection can be in the stream (vsock: always). False makes the client send its
   * resynchronising filler first (guest/protocol.ts).
   */
  clean: boolean;
  /** How long the guest took to take the connection, ms; absent where nobody could tell. */
  tookMs?: number;
  /** The greeting that was given along has been sent: it was the stream's first bytes. */
  greeted?: boolean;
}
