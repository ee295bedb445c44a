/**
 * Sandboxes move: suspended here, offered to another node, taken by it when all of it is there (docs/crash-protocol.md, "Move"). The node
 * that takes it writes that; the one that offers it takes its offer back by a new epoch. So one of the two has it whatever dies, and while the
 * database is away nobody wakes it.
 */
import { z } from "zod";
import type { DrainView, MovedView } from "../../api/fleet-nodes.ts";
import { asStacyError, StacyError } from "../../host/error.ts";
import type { Log } from "../../sandboxes/observer.ts";
import type { SandboxRecord } from "../../sandboxes/record.ts";
import type { Sandboxes } from "../../sandboxes/sandboxes.ts";
import type { Handed, PackedMachine } from "../../sandboxes/transits.ts";
import type { Between } from "../between.ts";
import type { Directory, FleetNode, Ownership, Placement } from "../contract.ts";
import { type Content, contentOf } from "../transfer/pieces.ts";
import { whileItAnswers } from "../transfer/things.ts";
import { Draining, drainSchema } from "./draining.ts";
import { hasAnswer, type Inquiry, inquiryAnswer, type Offer, offerAnswer } from "./offer.ts";

/** For a node to say whether it could have one; it may have to get the image. */
const INQUIRY_MS = 600_000;
/** For a short question. */
const ASK_MS = 5_000;

const drainQuestion = z.strictObject({ do: z.enum(["start", "stop", "say"]) });

export interface MovesParts {
  directory: Directory;
  placement: Placement;
  between: Between;
  sandboxes: Sandboxes;
  registry: {
    epochOf(id: string): number;
    renew(id: string): Promise<boolean>;
    owners(ids: readonly string[]): Promise<Ownership[]>;
  };
  answers(node: FleetNode): Promise<boolean>;
  log: Log;
}

export class Moves {
  readonly #parts: MovesParts;
  readonly #draining: Draining;
  #settling: Promise<void> | undefined;

  constructor(parts: MovesParts) {
    this.#parts = parts;
    this.#draining = new Draining(this, parts.sandboxes, parts.log);
    parts.between.on("drain", async (body) => this.#drain(drainQuestion.parse(body).do));
  }

  /** A node gives away what it has, or (`stop`) no more of it. @throws StacyError `not-found`, `unavailable` */
  async drain(nodeId: string, what: z.infer<typeof drainQuestion>["do"]): Promise<DrainView> {
    const { directory, between } = this.#parts;
    if (nodeId === directory.self.id) return this.#drain(what);
    const node = directory.nodes().find(({ id }) => id === nodeId);
    if (node === undefined) throw new StacyError("not-found", `there is no node ${JSON.stringify(nodeId)}`);
    return await between.ask(node, "drain", { do: what }, drainSchema, AbortSignal.timeout(ASK_MS));
  }

  #drain(what: z.infer<typeof drainQuestion>["do"]): DrainView {
    if (what === "start") this.#draining.start();
    if (what === "stop") this.#draining.stop();
    return this.#draining.status();
  }

  /**
   * @param to name or id of the node; absent: where the placement says
   * @throws StacyError `conflict` saying why it cannot be had there; `unavailable`
   */
  async move(id: string, to: string | undefined): Promise<MovedView> {
    const { directory, sandboxes } = this.#parts;
    const begun = performance.now();
    const { record } = sandboxes.get(id);
    const { self } = directory;
    if (to === self.id || to === self.name) {
      const { state } = record;
      return { id, node: self.name, formerNode: self.name, state, stoppedMs: 0, totalMs: 0, bytes: 0, known: 0 };
    }
    sandboxes.transits.assertTravels(record);
    const travel = sandboxes.transits.travelOf(record);
    const node = await this.#target(record, await travel.outline(id), to);
    let answer: { state: string; bytes: number; known: number } | undefined;
    const { stoppedMs } = await sandboxes.transits.leave(
      id,
      { node: node.id, name: node.name },
      async (record, wakes, signal) => {
        const packed = await travel.pack(id);
        const offer: Offer = {
          ...{ sandbox: record, packed, wakes, epoch: this.#parts.registry.epochOf(id) },
          contents: await contentsOf(packed, (name) => travel.file(id, name), signal),
        };
        return await this.#hand(node, offer, signal, (said) => {
          answer = said;
        });
      },
    );
    const { state = record.state, bytes = 0, known = 0 } = answer ?? {};
    const totalMs = performance.now() - begun;
    return { id, node: node.name, formerNode: self.name, state, stoppedMs, totalMs, bytes, known };
  }

  /** The first that says that it can have it. */
  async #target(record: SandboxRecord, packed: PackedMachine, to: string | undefined): Promise<FleetNode> {
    const { directory, placement } = this.#parts;
    const others = directory.nodes().filter(({ id }) => id !== directory.self.id);
    const named = others.find(({ id, name }) => id === to || name === to);
    if (to !== undefined && named === undefined) {
      throw new StacyError("not-found", `there is no node ${JSON.stringify(to)}`, {
        remedy: "`stacyvm node ls` shows them",
      });
    }
    const { provider, image, memoryMiB, vcpus } = record;
    const { architecture } = directory.self;
    const candidates =
      named === undefined ? placement.candidates(others, { provider, image, memoryMiB, vcpus, architecture }) : [named];
    const refusals: string[] = [];
    for (const node of candidates) {
      const why = await this.#ask(node, { sandbox: record, packed });
      if (why === undefined) return node;
      refusals.push(`${node.name}: ${why}`);
    }
    const remedy =
      "`stacyvm node ls` shows the nodes; versions and hosts have to be alike for what a saved machine needs";
    if (refusals.length === 0) {
      throw new StacyError("unavailable", `no other node can have sandbox ${record.id} now`, { phase: "move", remedy });
    }
    throw new StacyError("conflict", `sandbox ${record.id} cannot move: ${refusals.join("; ")}`, {
      phase: "move",
      remedy,
    });
  }

  /** @returns why that node cannot have it */
  async #ask(node: FleetNode, inquiry: Inquiry): Promise<string | undefined> {
    const { between, answers } = this.#parts;
    try {
      const { differs } = await whileItAnswers(node, answers, AbortSignal.timeout(INQUIRY_MS), (signal) =>
        between.ask(node, "inquiry", inquiry, inquiryAnswer, signal),
      );
      return differs.length === 0 ? undefined : differs.join(", ");
    } catch (error) {
      return asStacyError(error).message;
    }
  }

  async #hand(
    node: FleetNode,
    offer: Offer,
    signal: AbortSignal,
    took: (said: { state: string; bytes: number; known: number }) => void,
  ): Promise<Handed> {
    const { between, answers, registry } = this.#parts;
    try {
      took(
        await whileItAnswers(node, answers, signal, (signal) => between.ask(node, "offer", offer, offerAnswer, signal)),
      );
      return { is: "gone" };
    } catch (why) {
      try {
        if (await registry.renew(offer.sandbox.id)) return { is: "kept", why };
        if ((await this.#whose(offer.sandbox)) === "theirs") return { is: "gone" };
      } catch {} // the database is away
      return { is: "unknown", why };
    }
  }

  /**
   * Of one that is not this node's any more by what the database says: it is let go when the other one says that it has it, and not before.
   */
  async #whose({ id, transit }: SandboxRecord): Promise<"theirs" | "nobody's" | "unknown"> {
    const { directory, between, registry } = this.#parts;
    const [row] = await registry.owners([id]);
    const node = directory.nodes().find((each) => each.id === (row?.nodeId ?? transit?.node));
    if (node === undefined) return row === undefined ? "nobody's" : "unknown";
    const { is } = await between.ask(
      node,
      "has",
      { id, since: transit?.since ?? 0 },
      hasAnswer,
      AbortSignal.timeout(ASK_MS),
    );
    if (is === "here" || is === "ended") return "theirs";
    return row === undefined && is === "none" ? "nobody's" : "unknown";
  }

  /** Finds out whose those are that were on their way when a process ended, or the database went away. */
  settle(): Promise<void> {
    this.#settling ??= this.#settle().finally(() => {
      this.#settling = undefined;
    });
    return this.#settling;
  }

  async #settle(): Promise<void> {
    const { sandboxes, registry, log } = this.#parts;
    for (const record of sandboxes.transits.open()) {
      const { id, transit } = record;
      try {
        if (await registry.renew(id)) await sandboxes.transits.keep(id);
        else if (transit?.is === "arriving") await sandboxes.transits.letGo(id);
        else {
          const whose = await this.#whose(record);
          if (whose === "theirs") await sandboxes.transits.letGo(id);
          else if (whose === "nobody's") await sandboxes.transits.keep(id);
          else continue;
        }
        log.info({ sandbox: id, phase: "move", was: transit?.is }, "whose a sandbox is that was on its way is known");
      } catch (err) {
        log.debug({ sandbox: id, phase: "move", err }, "whose a sandbox is that was on its way is not known yet");
      }
    }
  }
}

async function contentsOf(
  packed: PackedMachine,
  path: (name: string) => string,
  signal: AbortSignal,
): Promise<Record<string, Content>> {
  const contents: Record<string, Content> = {};
  for (const name of Object.keys(packed.files)) contents[name] = await contentOf(path(name), signal);
  return contents;
}
