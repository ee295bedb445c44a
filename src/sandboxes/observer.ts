/** What this layer tells whoever measures: metrics stand behind it, and tests without any. */
import type { BootReport } from "../providers/provider.ts";
import type { ExecRecord } from "./record.ts";

export interface Observer {
  spawned(boot: BootReport, totalMs: number): void;
  spawnFailed(phase: string): void;
  executed(outcome: ExecRecord["outcome"], ms: number): void;
  /** From the request to the agent until its answer, ms. */
  agentRoundTrip(ms: number): void;
  operation(name: string, ok: boolean, ms: number): void;
}

export const silentObserver: Observer = {
  spawned() {},
  spawnFailed() {},
  executed() {},
  agentRoundTrip() {},
  operation() {},
};

/** The part of a logger that this layer uses; pino fits. */
export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  debug(fields: object, message: string): void;
}

export const silentLog: Log = { info() {}, warn() {}, error() {}, debug() {} };
