/**
 * Every call that a client makes at this node: what is about a sandbox that another node has goes there before the application sees it,
 * new sandboxes go where there is a place for them, and a list has those of all nodes. The rest is the application's, as on one server.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { Logger } from "pino";
import { originAllowed } from "../api/auth.ts";
import { OpenCalls } from "../api/open-calls.ts";
import type { Front } from "../api/server.ts";
import { type Caller, vouch } from "../api/vouched.ts";
import { StacyError } from "../host/error.ts";
import { DEFAULT_OWNER } from "../sandboxes/owner.ts";
import type { Sandboxes } from "../sandboxes/sandboxes.ts";
import { type CallersParts, claimOf, type Known, knownOf, ownerNamed } from "./callers.ts";
import type { Directory, FleetNode, Ownership } from "./contract.ts";
import { type Call, FLEET_HEADER, type Forwarder, type Outcome } from "./forwarding/forwarder.ts";
import type { Probes } from "./forwarding/probes.ts";
import { type Target, targetIn } from "./forwarding/target.ts";
import { hasBody, Upload } from "./forwarding/upload.ts";
import type { Lists } from "./lists.ts";
import { arrived } from "./moving/arrived.ts";
import type { Placing } from "./placing.ts";
import { brokenOff, errorAs, sayAnswer, sayResponse, unreachable } from "./said.ts";
import type { Assertions, NewClaim } from "./trust/assertions.ts";

export interface EntranceParts extends CallersParts {
  directory: Directory;
  forwarder: Forwarder;
  probes: Probes;
  assertions: Assertions;
  sandboxes: Pick<Sandboxes, "idNamed" | "transits">;
  /** Whether this node has it. */
  isHere(id: string): boolean;
  placing: Placing;
  lists: Lists;
  log: Logger;
}

type OfSandbox = Extract<Target, { sandbox: string }>;

/** Ids have it, and no name does. */
const ID = /^sb-/;

export class Entrance implements Front {
  readonly #parts: EntranceParts;
  readonly #open = new OpenCalls();

  constructor(parts: EntranceParts) {
    this.#parts = parts;
  }

  request(incoming: IncomingMessage, outgoing: ServerResponse): boolean | Promise<boolean> {
    return this.#look({ incoming, outgoing });
  }

  upgrade(incoming: IncomingMessage, socket: Duplex, head: Buffer): boolean | Promise<boolean> {
    return this.#look({ incoming, upgrade: { socket, head } });
  }

  #look(call: Call): boolean | Promise<boolean> {
    const { incoming } = call;
    withoutFleetHeader(incoming);
    const { headers } = incoming;
    // A preflight asks for no sandbox, and nobody has to know who asks.
    if (incoming.method === "OPTIONS" && headers["access-control-request-method"] !== undefined) return false;
    const target = targetIn(incoming, this.#parts.config.server.preview_domain);
    if (target === undefined) return false;
    const { isHere, directory, placing, lists, sandboxes } = this.#parts;
    if (target.kind === "create") {
      if (call.upgrade !== undefined || !placing.hasChoice(incoming, target.e2b)) return false;
      return this.#safely(call, target, () => placing.create(call, target.e2b));
    }
    if (target.kind === "list") {
      if (call.upgrade !== undefined || directory.nodes().length < 2) return false;
      return this.#safely(call, target, () => lists.list(call, target));
    }
    const { sandbox } = target;
    if (ID.test(sandbox) && sandboxes.transits.settled(sandbox) === undefined && isHere(sandbox)) return false;
    return this.#safely(call, target, () => this.#pass(call, target));
  }

  /** Whatever goes wrong is an answer. */
  async #safely(call: Call, target: Target, work: () => Promise<boolean>): Promise<boolean> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof StacyError))
        this.#parts.log.error({ phase: "fleet", err: error }, "a call was not passed on");
      const response = errorAs(call, error, isE2b(target));
      const { origin, host } = call.incoming.headers;
      // A page of another origin that may call reads why it could not, too.
      if (origin !== undefined && originAllowed(origin, host, this.#parts.config)) {
        response.headers.set("access-control-allow-origin", origin);
        response.headers.append("vary", "Origin");
      }
      await sayResponse(call, response).catch(() => {});
      return true;
    }
  }

  async #pass(call: Call, target: OfSandbox): Promise<boolean> {
    const { incoming } = call;
    const { sandboxes, isHere, directory, probes, log } = this.#parts;
    let known: Known;
    try {
      known = await knownOf(incoming, target, this.#parts);
    } catch (refused) {
      // The application says so, in its words; a token of E2B's it looks at again.
      if (target.kind !== "e2b") vouch(incoming, { refused });
      return false;
    }
    const whose = ID.test(target.sandbox) ? undefined : ownerIn(incoming, known);
    const own = whose === undefined ? undefined : sandboxes.idNamed(whose, target.sandbox);
    await arrived(sandboxes.transits, own ?? target.sandbox);
    if (isHere(own ?? target.sandbox)) {
      if ("caller" in known && target.kind !== "e2b") vouch(incoming, { caller: known.caller });
      return false;
    }
    const upload = new Upload(incoming);
    let denied: string | undefined;
    for (let attempt = 0; ; attempt++) {
      const found = await directory.ownerOf(target.sandbox, whose);
      // A node that does not have what the table says that it has is about to say so there.
      if (
        found === undefined ||
        found.nodeId === directory.self.id ||
        (denied !== undefined && found.nodeId === denied)
      ) {
        // Its body may have gone to the wrong node already.
        if (attempt === 0 || !hasBody(incoming)) return false;
        throw new StacyError("not-found", `there is no sandbox ${JSON.stringify(target.sandbox)}`);
      }
      // Others' are told of like what is not there, before anything about their nodes is said.
      if (!("everybody" in known) && !mayUse("proved" in known ? known.proved : known.caller, found)) {
        if (attempt === 0 || !hasBody(incoming)) return false;
        throw new StacyError("not-found", `there is no sandbox ${JSON.stringify(target.sandbox)}`);
      }
      const node = nodeOf(directory, found);
      // What was remembered may be older than the node's end.
      if (attempt === 0 && (node === undefined || node.state === "lost")) {
        directory.mistaken(found.sandboxId, found.nodeId);
        continue;
      }
      if (node === undefined || !(await probes.answers(node))) {
        throw unreachable(target.sandbox, node?.name ?? found.nodeId);
      }
      const outcome = await this.#ask(
        call,
        node,
        upload,
        { ...claimOf(incoming, known), to: node.id, sandbox: found.sandboxId },
        known,
      );
      if (outcome.kind === "answered" || outcome.kind === "left") return true;
      if (outcome.kind === "unreached") throw unreachable(target.sandbox, node.name, outcome.error);
      if (outcome.kind === "broken") {
        if (!probes.seems(nodeOf(directory, found) ?? node))
          throw unreachable(target.sandbox, node.name, outcome.error);
        throw brokenOff(node.name, outcome.error);
      }
      if (attempt > 0 || !upload.repeatable) {
        if (outcome.why !== "not-mine") await sayAnswer(call, outcome.answer);
        else throw moved(target.sandbox);
        return true;
      }
      log.debug({ phase: "fleet", sandbox: found.sandboxId, node: node.name, why: outcome.why }, "asked again");
      if (outcome.why === "identify") known = await knownOf(incoming, target, this.#parts, { sure: true });
      else {
        directory.mistaken(found.sandboxId, node.id);
        denied = node.id;
      }
    }
  }

  async #ask(call: Call, node: FleetNode, upload: Upload, claim: NewClaim, known: Known): Promise<Outcome> {
    const { forwarder, assertions } = this.#parts;
    const by = "caller" in known ? known.caller : "proved" in known ? known.proved : undefined;
    // A call ends soon after its key, wherever it is answered.
    if (by !== undefined) {
      const { incoming, outgoing, upgrade } = call;
      this.#open.follow({ incoming, ...(outgoing && { outgoing }), ...(upgrade && { upgrade }) }, by);
    }
    const { method = "GET", url: path = "/" } = call.incoming;
    return await forwarder.forward(call, node, upload, (headers) => assertions.sign(claim, { method, path, headers }));
  }
}

function nodeOf(directory: Directory, { nodeId }: Ownership): FleetNode | undefined {
  return directory.nodes().find(({ id }) => id === nodeId);
}

/** A name is its owner's; of a public preview the default owner's. */
function ownerIn(incoming: IncomingMessage, known: Known): string {
  if ("caller" in known) return ownerNamed(incoming, known.caller);
  return "proved" in known ? known.proved.owner : DEFAULT_OWNER;
}

/** A key is its owner's, or an administrator's; a sandbox's token stands on one. */
function mayUse(by: Pick<Caller, "owner" | "scopes">, { owner }: Ownership): boolean {
  return by.owner === owner || by.scopes.has("admin");
}

function moved(sandbox: string): StacyError {
  return new StacyError("unavailable", `the sandbox ${sandbox} was not where it was looked for`, {
    phase: "fleet",
    remedy: "ask again: where it is now is known",
  });
}

function isE2b(target: Target): boolean {
  return target.kind === "e2b" || target.kind === "control" || ("e2b" in target && target.e2b);
}

/** What nodes say to each other no client can say. */
function withoutFleetHeader(incoming: IncomingMessage): void {
  if (incoming.headers[FLEET_HEADER] === undefined) return;
  delete incoming.headers[FLEET_HEADER];
  const { rawHeaders } = incoming;
  for (let i = rawHeaders.length - 2; i >= 0; i -= 2) {
    if (rawHeaders[i]?.toLowerCase() === FLEET_HEADER) rawHeaders.splice(i, 2);
  }
}
