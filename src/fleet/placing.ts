/**
 * New sandboxes: the nodes that may have one are asked in the order of the placement, each decides for itself, and what one refuses for
 * want of room the next is asked for. What names things that only this node has is made here.
 */
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { type BodyLimits, holdBody } from "../api/body.ts";
import type { Api } from "../api/endpoint.ts";
import { REFUSAL_HEADER, vouch } from "../api/vouched.ts";
import { StacyError } from "../host/error.ts";
import type { Limits } from "../sandboxes/limits.ts";
import { type CallersParts, callerIn, claimOf, headersOf, type Known, ownerNamed } from "./callers.ts";
import type { Directory, FleetNode, Placement, PlacementRequest } from "./contract.ts";
import type { Answer, Call, Forwarder } from "./forwarding/forwarder.ts";
import { Upload } from "./forwarding/upload.ts";
import { brokenOff, sayAnswer, sayResponse } from "./said.ts";
import type { Assertions } from "./trust/assertions.ts";

export interface PlacingParts extends CallersParts {
  app: Pick<Api, "fetch">;
  directory: Directory;
  placement: Placement;
  forwarder: Forwarder;
  assertions: Assertions;
  /** What a request that says nothing of it gets. */
  limits: Pick<Limits, "defaultImage" | "defaultMemoryMiB" | "defaultVcpus" | "imageAliases">;
  /** Whether a name that E2B's clients give for a template is of something that only this node has. */
  isOwn(template: string): boolean;
}

/** Fields of a request that name what lies on one node. */
const OWN_FIELDS = ["template", "checkpoint", "volumes", "secrets", "mounts", "volumeMounts"];

type Wanted = Record<string, unknown>;

export class Placing {
  readonly #parts: PlacingParts;
  readonly #limits: BodyLimits;

  constructor(parts: PlacingParts) {
    this.#parts = parts;
    const { max_json_bytes: maxBytes, body_timeout: timeoutMs } = parts.config.server;
    this.#limits = { maxBytes, timeoutMs };
  }

  /** Whether there is anybody else to make one, or who may have made it. */
  hasChoice(incoming: IncomingMessage, e2b: boolean): boolean {
    const { self, nodes } = this.#of();
    if (e2b && keyOf(incoming) !== undefined) return true;
    return self.role === "entrance" || nodes.some((node) => node.id !== self.id && mayMake(node));
  }

  /** @returns whether it was answered; else the application has it as it came */
  async create(call: Call, e2b: boolean): Promise<boolean> {
    const { incoming, outgoing } = call;
    if (outgoing === undefined) return false;
    const known = await callerIn(incoming, this.#parts);
    if (known === undefined) return false;
    const gone = new AbortController();
    outgoing.once("close", () => gone.abort());
    const url = new URL(incoming.url ?? "/", `http://${incoming.headers.host ?? "localhost"}`);
    const request = (body: Buffer | ReadableStream): Request =>
      new Request(url, {
        ...{ method: "POST", headers: headersOf(incoming), body: body as never, duplex: "half", signal: gone.signal },
      } as RequestInit);
    using held = await holdBody(request(bodyOf(incoming)), this.#limits, known.caller.owner, incoming);
    const { body } = held;
    const wanted = parsed(body);
    vouch(incoming, { caller: known.caller, elsewhere: true });
    const here = async (): Promise<Response> => {
      const env = { incoming, outgoing } as never;
      return await this.#parts.app.fetch(request(body), env);
    };
    let last: Response | Answer | undefined;
    const made = this.#madeFor(incoming, known, e2b);
    const left = this.#candidates(incoming, known, wanted, e2b);
    for (let asked: FleetNode | undefined; ; ) {
      // Perhaps another one has begun with it meanwhile.
      const maker = await made();
      if (maker !== undefined && maker.id === asked?.id) break;
      const node = maker ?? left.shift();
      if (node === undefined) break;
      asked = node;
      if (node.id === this.#of().self.id) {
        const response = await here();
        if (response.headers.get(REFUSAL_HEADER) === null) return await said(call, response);
        response.headers.delete(REFUSAL_HEADER);
        last = response;
        continue;
      }
      const { forwarder, assertions } = this.#parts;
      const claim = { ...claimOf(incoming, known), to: node.id };
      const { url: path = "/" } = incoming;
      const outcome = await forwarder.forward(call, node, Upload.of(incoming, body), (headers) =>
        assertions.sign(claim, { method: "POST", path, headers }),
      );
      if (outcome.kind === "answered" || outcome.kind === "left") return true;
      // Perhaps it is being made: another one beside it would be nobody's.
      if (outcome.kind === "broken") throw brokenOff(node.name, outcome.error);
      if (outcome.kind === "unreached" && maker !== undefined) throw makerAway(node.name, outcome.error);
      if (outcome.kind === "refused") last = outcome.answer;
    }
    if (last === undefined) {
      throw new StacyError("unavailable", "no node of the fleet can make this sandbox now", {
        phase: "placement",
        remedy: "`stacyvm node ls` shows which there are, how full they are and what they have",
      });
    }
    if (last instanceof Response) return await said(call, last);
    await sayAnswer(call, last);
    return true;
  }

  /** @returns whoever has made something for a client's key says it again, or refuses: nobody else may make it once more */
  #madeFor(incoming: IncomingMessage, known: Known, e2b: boolean): () => Promise<FleetNode | undefined> {
    const key = keyOf(incoming);
    if (!e2b || key === undefined || !("caller" in known)) return async () => undefined;
    const { directory } = this.#parts;
    return async () => {
      const found = await directory.requested(ownerNamed(incoming, known.caller), key);
      if (found === undefined) return undefined;
      const node = this.#of().nodes.find(({ id }) => id === found.nodeId);
      if (node === undefined || node.state === "lost") throw makerAway(node?.name ?? found.nodeId);
      return node;
    };
  }

  #of(): { self: FleetNode; nodes: readonly FleetNode[] } {
    const { directory } = this.#parts;
    return { self: directory.self, nodes: directory.nodes() };
  }

  #candidates(incoming: IncomingMessage, known: Known, wanted: Wanted, e2b: boolean): FleetNode[] {
    const { self, nodes } = this.#of();
    const { placement, isOwn } = this.#parts;
    const own =
      OWN_FIELDS.some((field) => isSaid(wanted[field])) ||
      (e2b && typeof wanted.templateID === "string" && isOwn(wanted.templateID));
    if (own && self.role !== "entrance") return [self];
    const candidates = placement.candidates(nodes, requestOf(wanted, this.#parts.limits));
    // Two that come at once with one key come to one node, where the second waits for the first.
    const key = keyOf(incoming);
    if (key === undefined || !("caller" in known)) return candidates;
    const rank = ({ id }: FleetNode): string =>
      createHash("sha256")
        .update(JSON.stringify([id, known.caller.owner, key]))
        .digest("hex");
    return candidates.toSorted((a, b) => (rank(a) < rank(b) ? -1 : 1));
  }
}

function keyOf({ headers }: IncomingMessage): string | undefined {
  const key = headers["idempotency-key"];
  return typeof key === "string" ? key : undefined;
}

function makerAway(node: string, cause?: unknown): StacyError {
  return new StacyError(
    "unavailable",
    `what was made for this idempotency key is on the node ${node}, which does not answer`,
    {
      phase: "unreachable",
      cause,
      remedy: "ask again: it is there when its node is (`stacyvm node ls`)",
    },
  );
}

async function said(call: Call, response: Response): Promise<true> {
  await sayResponse(call, response);
  return true;
}

function mayMake({ role, state, draining }: FleetNode): boolean {
  return role === "node" && state === "up" && !draining;
}

/** What cannot be read is any node's to refuse. */
function parsed(body: Buffer): Wanted {
  try {
    const value: unknown = JSON.parse(body.toString("utf8"));
    return typeof value === "object" && value !== null ? (value as Wanted) : {};
  } catch {
    return {};
  }
}

function isSaid(value: unknown): boolean {
  return Array.isArray(value) ? value.length > 0 : value != null && value !== "";
}

/** As a node would resolve it, so that what it has ready is known by the same name. */
function requestOf(wanted: Wanted, limits: PlacingParts["limits"]): PlacementRequest {
  const { provider, image, memory_mb: memory, vcpus } = wanted;
  const named = typeof image === "string" && image !== "" ? image : limits.defaultImage;
  return {
    ...(typeof provider === "string" && provider !== "" ? { provider } : {}),
    image: limits.imageAliases[named] ?? named,
    memoryMiB: typeof memory === "number" && memory > 0 ? memory : limits.defaultMemoryMiB,
    vcpus: typeof vcpus === "number" && vcpus > 0 ? vcpus : limits.defaultVcpus,
  };
}

function bodyOf(incoming: IncomingMessage): ReadableStream<Uint8Array> {
  const pieces = incoming[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  return new ReadableStream(
    {
      async pull(controller) {
        const { done, value } = await pieces.next();
        if (done === true) controller.close();
        else controller.enqueue(value);
      },
    },
    { highWaterMark: 0 },
  );
}
