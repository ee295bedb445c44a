/** One sandbox: its record, its machine, and who is using it right now. State changes go through `Sandboxes`. */
import type { Agent } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";
import { SerialQueue } from "../host/serial-queue.ts";
import type { SandboxMachine, UnreachableMachine } from "../providers/provider.ts";
import type { SandboxRecord } from "./record.ts";
import { isVisible, type SandboxState } from "./state.ts";

/** A use of a sandbox: it is not idle as long as one is open. */
export interface Lease extends Disposable {
  readonly agent: Agent;
  readonly machine: SandboxMachine;
  readonly sandbox: Sandbox;
}

export class Sandbox {
  record: SandboxRecord;
  machine: SandboxMachine | undefined;
  /** In place of a machine: it is there, or may be, and does not answer. */
  unreachable: UnreachableMachine | undefined;
  /** The environment that it was made with, for what ran in its machine before that; in memory only, empty after a restart. */
  env: Record<string, string> = {};
  /** ms since 1970 of the last use. */
  lastUsedAt: number;
  /** Its making and every change of its state, one after another, its end included; commands and files do not wait for them. */
  readonly changes = new SerialQueue();
  /** While an end of it is under way: settles with that. */
  ending: Promise<void> | undefined;
  #autoStop: Promise<void> | undefined;
  #uses = 0;
  readonly #now: () => number;

  constructor(record: SandboxRecord, now: () => number) {
    this.record = record;
    this.#now = now;
    this.lastUsedAt = now();
  }

  get id(): string {
    return this.record.id;
  }

  get state(): SandboxState {
    return this.record.state;
  }

  /** One that another server still has is not there yet. */
  get visible(): boolean {
    return isVisible(this.state) && this.record.transit?.is !== "arriving";
  }

  get inUse(): boolean {
    return this.#uses > 0;
  }

  /** While it is paused or suspended by itself, because nobody uses it or its time is over: a use waits for that, and resumes it. */
  get autoStop(): Promise<void> | undefined {
    return this.#autoStop;
  }

  /** @param stopping never rejects */
  autoStopsDuring(stopping: Promise<void>): void {
    this.#autoStop = stopping;
    void stopping.then(() => {
      if (this.#autoStop === stopping) this.#autoStop = undefined;
    });
  }

  /** @throws StacyError `conflict` (not running), `machine-exited` (with the reason), `not-found` */
  lease(): Lease {
    const machine = this.machineIn(["running"]);
    this.#uses += 1;
    this.lastUsedAt = this.#now();
    let open = true;
    return {
      agent: machine.agent,
      machine,
      sandbox: this,
      [Symbol.dispose]: () => {
        if (!open) return;
        open = false;
        this.#uses -= 1;
        this.lastUsedAt = this.#now();
      },
    };
  }

  /** The machine, if the sandbox is in one of these states. */
  machineIn(states: readonly SandboxState[]): SandboxMachine {
    if (!this.visible) throw new StacyError("not-found", `sandbox ${this.id} is gone`);
    if (this.state === "error") {
      throw new StacyError(
        "machine-exited",
        `sandbox ${this.id} has failed: ${this.record.failure?.message ?? "unknown"}`,
        {
          remedy: "destroy it; its console is kept under /logs",
        },
      );
    }
    if (this.record.transit !== undefined) throw inTransit(this.id);
    if (this.unreachable !== undefined) {
      throw new StacyError(
        "unavailable",
        `the machine of sandbox ${this.id} does not answer: ${this.unreachable.reason}`,
        {
          remedy: "it is kept and asked again; destroy the sandbox if you do not want to wait for it",
        },
      );
    }
    if (this.machine === undefined || !states.includes(this.state)) {
      const remedy = this.state === "paused" || this.state === "suspended" ? "resume it first" : "wait until it runs";
      throw new StacyError("conflict", `sandbox ${this.id} is ${this.state}`, { remedy });
    }
    return this.machine;
  }
}

/** Nothing can be done with it before it is known whose it is. */
export function inTransit(id: string): StacyError {
  return new StacyError("unavailable", `sandbox ${id} is on its way to another node`, {
    phase: "move",
    remedy: "try again in a moment: it goes on there, or here",
    data: { retryAfterMs: 1_000 },
  });
}
