/** Who gets a place on this host, at once or after waiting for one. */
import { asStacyError, StacyError } from "../host/error.ts";
import type { Clock } from "./clock.ts";
import type { Events } from "./events.ts";
import { type Admission, decideAdmission, explain, type Limits } from "./limits.ts";
import type { Quotas } from "./quotas.ts";
import type { SandboxRecord } from "./record.ts";
import type { MostTaken, Registry } from "./registry.ts";
import type { Sandbox } from "./sandbox.ts";
import { type QueueCounts, SpawnQueue } from "./spawn-queue.ts";
import type { SandboxTable } from "./table.ts";

/** The owner, and the user that it names. */
export type Whose = Pick<SandboxRecord, "owner"> & { ownerId: string | undefined };

export interface AdmissionsParts {
  table: SandboxTable;
  limits: Limits;
  quotas: Quotas;
  events: Events;
  clock: Clock;
  /** Absent: this server is alone. */
  registry?: Registry | undefined;
}

export class Admissions {
  readonly #parts: AdmissionsParts;
  readonly #queue: SpawnQueue;

  constructor(parts: AdmissionsParts) {
    this.#parts = parts;
    this.#queue = new SpawnQueue(parts.clock);
  }

  get queue(): QueueCounts {
    return this.#queue.counts;
  }

  /** What `count` more sandboxes with this time to live would meet now. */
  look(ttlMs: number, { owner, ownerId }: Whose, count: number): Admission {
    const { table, limits, quotas } = this.#parts;
    const quota = quotas.effective(owner, ownerId);
    return decideAdmission({ limits, quota, ttlMs, count, ...table.activeOf(owner, ownerId) });
  }

  /** The same of all servers, as far as this one knows what places they have. @throws StacyError `unavailable` */
  async lookEverywhere(ttlMs: number, whose: Whose, count: number): Promise<Admission> {
    const { table, limits, quotas, registry } = this.#parts;
    if (registry === undefined) return this.look(ttlMs, whose, count);
    const { owner, ownerId } = whose;
    const quota = quotas.effective(owner, ownerId);
    const { user, all } = await registry.taken(owner, ownerId);
    const here = table.activeOf(owner, ownerId);
    const elsewhere = registry.elsewhere();
    const unlimited = limits.maxSandboxes === 0 || elsewhere.maxSandboxes === undefined;
    const maxSandboxes = unlimited ? 0 : limits.maxSandboxes + (elsewhere.maxSandboxes ?? 0);
    return decideAdmission({
      ...{ limits: { ...limits, maxSandboxes }, quota, ttlMs, count },
      active: here.active + elsewhere.sandboxes,
      activeOwner: ownerId === undefined ? undefined : (user?.sandboxes ?? 0),
      activeOfAll: all.sandboxes,
    });
  }

  /** What all servers together may have of it; absent: any number, or this server is alone. */
  mostOf({ owner, ownerId }: Pick<SandboxRecord, "owner" | "ownerId">): MostTaken | undefined {
    const { limits, quotas } = this.#parts;
    const { maxSandboxes, maxSandboxesOfAll } = quotas.effective(owner, ownerId);
    const ofUser = ownerId === undefined ? 0 : maxSandboxes || limits.maxSandboxesPerOwner;
    if (ofUser === 0 && maxSandboxesOfAll === 0) return undefined;
    return {
      ...(ofUser === 0 ? {} : { user: { sandboxes: ofUser } }),
      ...(maxSandboxesOfAll === 0 ? {} : { all: { sandboxes: maxSandboxesOfAll } }),
    };
  }

  refusal(admission: Admission, owner: string): StacyError {
    const { message, remedy } = explain(admission);
    this.#parts.events.emit("resource.limit", undefined, { reason: admission.reason }, owner);
    const { reason } = admission;
    const final = reason === "max_ttl" ? { final: true as const } : {};
    return new StacyError("limit", message, { phase: "admission", remedy, data: { reason }, ...final });
  }

  /**
   * Waits for a place.
   * @param reserve takes it, as soon as there is one
   * @throws what `reserve` throws; StacyError `limit`, `timeout`, `cancelled`
   */
  async wait(reserve: () => Sandbox | undefined, owner: string, signal: AbortSignal | undefined): Promise<Sandbox> {
    const { events, limits } = this.#parts;
    let sandbox: Sandbox | undefined;
    let refused: unknown;
    const attempt = (): boolean => {
      try {
        sandbox = reserve();
        return sandbox !== undefined;
      } catch (error) {
        refused = error; // a limit that waiting does not lift
        return true;
      }
    };
    events.emit("spawn.queued", undefined, { waiting: this.#queue.length + 1 }, owner);
    try {
      await this.#queue.wait(owner, attempt, {
        max: limits.maxQueue,
        timeoutMs: limits.queueTimeoutMs,
        ...(signal === undefined ? {} : { signal }),
      });
    } catch (error) {
      if (asStacyError(error).code === "timeout") events.emit("spawn.queue_timeout", undefined, undefined, owner);
      throw error;
    }
    if (sandbox === undefined) throw refused;
    events.emit("spawn.dequeued", sandbox.id);
    return sandbox;
  }

  /** There may be room now. */
  advance(): void {
    this.#queue.advance();
  }

  close(): void {
    this.#queue.close();
  }
}
