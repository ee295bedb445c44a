/**
 * Whether a node answers. Of one whose heartbeats are fresh that is known; one whose heartbeats the database does not have may be gone, or
 * only its way to the database is: it is asked itself, and whoever waits for it is told what it said.
 */
import type { FleetNode } from "../contract.ts";

/** How long an answer, or that there was none, is good, ms. */
const GOOD_MS = 1_000;

interface Probe {
  at: number;
  answered: Promise<boolean>;
  /** As far as it is known. */
  known: boolean;
}

export class Probes {
  readonly #ask: (node: FleetNode) => Promise<unknown>;
  readonly #probes = new Map<string, Probe>();

  /** @param ask rejects when there is no answer within a short time */
  constructor(ask: (node: FleetNode) => Promise<unknown>) {
    this.#ask = ask;
  }

  async answers(node: FleetNode): Promise<boolean> {
    if (node.state === "up") {
      this.#probes.delete(node.id);
      return true;
    }
    return await this.#probe(node).answered;
  }

  /** The same without waiting: what is not known yet is taken for the better. */
  seems(node: FleetNode): boolean {
    return node.state === "up" || this.#probe(node).known;
  }

  #probe(node: FleetNode): Probe {
    const last = this.#probes.get(node.id);
    if (last !== undefined && performance.now() - last.at < GOOD_MS) return last;
    const answered = this.#ask(node).then(
      () => true,
      () => false,
    );
    const probe: Probe = { at: performance.now(), answered, known: last?.known ?? true };
    this.#probes.set(node.id, probe);
    void answered.then((yes) => {
      probe.known = yes;
      probe.at = performance.now();
    });
    return probe;
  }
}
