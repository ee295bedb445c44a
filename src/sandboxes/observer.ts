/** What this layer tells whoever measures: metrics stand behind it, and tests without any. */
import { asStacyError, type StacyError } from "../host/error.ts";
import type { BootReport } from "../providers/provider.ts";
import type { ExecRecord } from "./record.ts";

export interface Observer {
  spawned(boot: BootReport, totalMs: number): void;
  spawnFailed(failure: StacyError, provider: string): void;
  executed(outcome: ExecRecord["outcome"], ms: number, how: { provider: string; streamed: boolean }): void;
  /** From the request to the agent until its answer, ms. */
  agentRoundTrip(ms: number): void;
  /** @param failure absent: it went well */
  operation(name: string, provider: string, ms: number, failure?: StacyError): void;
}

/** Does the work and tells how it went. */
export async function observed<T>(
  observer: Observer,
  operation: { name: string; provider: string },
  work: () => Promise<T>,
): Promise<T> {
  const begun = performance.now();
  const tell = (failure?: StacyError): void =>
    observer.operation(operation.name, operation.provider, performance.now() - begun, failure);
  try {
    const result = await work();
    tell();
    return result;
  } catch (error) {
    tell(asStacyError(error));
    throw error;
  }
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
