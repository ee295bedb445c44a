/**
 * What other nodes pass on to this one, on a listener that is for nodes alone. A request is answered by the application as any other is,
 * once it is known that a node of this fleet has sent it, and who calls; it is never passed on again.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { Logger } from "pino";
import { presentedKeys } from "../api/auth.ts";
import { json } from "../api/endpoint.ts";
import { isClosed } from "../api/preview.ts";
import type { Front } from "../api/server.ts";
import { REFUSAL_HEADER, vouch } from "../api/vouched.ts";
import { StacyError } from "../host/error.ts";
import { rawEndToEnd } from "../host/hop-by-hop.ts";
import type { Sandboxes } from "../sandboxes/sandboxes.ts";
import { View } from "../sandboxes/view.ts";
import { Between } from "./between.ts";
import { callerOf, headersOf } from "./callers.ts";
import type { Directory } from "./contract.ts";
import { type Call, FLEET_HEADER, type Refusal } from "./forwarding/forwarder.ts";
import { targetIn } from "./forwarding/target.ts";
import { arrived } from "./moving/arrived.ts";
import { errorAs, sayResponse } from "./said.ts";
import type { Assertions, Claim } from "./trust/assertions.ts";

export interface InwardParts {
  directory: Directory;
  assertions: Assertions;
  between: Between;
  sandboxes: Sandboxes;
  isHere(id: string): boolean;
  previewDomain: string;
  log: Logger;
}

export class Inward implements Front {
  readonly #ready = Promise.withResolvers<InwardParts>();
  #parts: InwardParts | undefined;

  /** From now on: what was asked before has waited for it. */
  open(parts: InwardParts): void {
    this.#parts = parts;
    this.#ready.resolve(parts);
  }

  request(incoming: IncomingMessage, outgoing: ServerResponse): boolean | Promise<boolean> {
    return this.#look({ incoming, outgoing });
  }

  upgrade(incoming: IncomingMessage, socket: Duplex, head: Buffer): boolean | Promise<boolean> {
    return this.#look({ incoming, upgrade: { socket, head } });
  }

  #look(call: Call): boolean | Promise<boolean> {
    return this.#parts === undefined
      ? this.#ready.promise.then((parts) => this.#answer(call, parts))
      : this.#answer(call, this.#parts);
  }

  #answer(call: Call, parts: InwardParts): boolean | Promise<boolean> {
    try {
      const claim = claimIn(call.incoming, parts.assertions);
      if (isKnown(claim, parts)) return this.#admit(call, claim, parts);
      return this.#learn(claim, parts)
        .then(() => this.#admit(call, claim, parts))
        .catch((error: unknown) => this.#refuse(call, error, parts));
    } catch (error) {
      return this.#refuse(call, error, parts);
    }
  }

  /** Whoever has come to the fleet a moment ago knows this node before this one knows it. @throws StacyError `unavailable` */
  async #learn(claim: Claim, { directory, ...parts }: InwardParts): Promise<void> {
    // The first may be one that had begun before.
    for (let reading = 0; reading < 2; reading++) {
      await directory.refresh();
      if (isKnown(claim, { directory, ...parts })) return;
    }
    throw new StacyError("unavailable", "the node that sends this is not of this fleet, or no longer", {
      phase: "fleet",
      remedy: "`stacyvm node ls` shows which are",
    });
  }

  /** @returns whether it was answered; else the application does */
  #admit(call: Call, claim: Claim, parts: InwardParts): boolean | Promise<boolean> {
    const { incoming } = call;
    if (Between.isOwn(claim)) {
      if (call.outgoing !== undefined) return parts.between.answer(incoming, call.outgoing, claim);
      call.upgrade.socket.destroy();
      return true;
    }
    const moving = claim.sandbox === undefined ? undefined : arrived(parts.sandboxes.transits, claim.sandbox);
    if (moving !== undefined) return moving.then(() => this.#know(call, claim, parts));
    return this.#know(call, claim, parts);
  }

  #know(call: Call, claim: Claim, parts: InwardParts): boolean | Promise<boolean> {
    const { incoming } = call;
    const why = refusalOf(incoming, claim, parts);
    if (why !== undefined) return said(call, refusal(why));
    vouch(incoming, {
      ...(claim.caller === undefined ? {} : { caller: callerOf(claim.caller) }),
      ...(claim.proved === undefined || claim.sandbox === undefined
        ? {}
        : { proved: { sandbox: claim.sandbox, by: callerOf(claim.proved) } }),
      ...(claim.sandbox === undefined ? { elsewhere: true as const } : {}),
      address: claim.address,
    });
    return false;
  }

  #refuse(call: Call, error: unknown, { log }: InwardParts): Promise<boolean> {
    log.warn({ phase: "fleet", err: error }, "a request on the nodes' listener was refused");
    return said(call, errorAs(call, error, false));
  }
}

function said(call: Call, response: Response): Promise<boolean> {
  return sayResponse(call, response).then(
    () => true,
    () => true,
  );
}

function isKnown({ from }: Claim, { directory }: InwardParts): boolean {
  return directory.nodes().some(({ id, state }) => id === from && state !== "lost");
}

function refusalOf(incoming: IncomingMessage, claim: Claim, parts: InwardParts): Refusal | undefined {
  if (claim.sandbox !== undefined && !parts.isHere(claim.sandbox)) return "not-mine";
  return wantsToKnow(incoming, claim, parts) ? "identify" : undefined;
}

/** Checked, and gone from the request. */
function claimIn(incoming: IncomingMessage, assertions: Assertions): Claim {
  const { rawHeaders, headers, method = "GET", url: path = "/" } = incoming;
  const passed = rawEndToEnd(rawHeaders, headers.connection);
  const sealed: string[] = [];
  const said: string[] = [];
  for (let i = 0; i + 1 < passed.length; i += 2) {
    const [name = "", value = ""] = [passed[i], passed[i + 1]];
    if (name.toLowerCase() === FLEET_HEADER) said.push(value);
    else sealed.push(name, value);
  }
  const [only, ...more] = said;
  if (only === undefined || more.length > 0) {
    throw new StacyError("permission", "this listener answers nodes of the fleet only", {
      phase: "fleet",
      remedy: "clients ask the server's own address (server.host, server.port)",
    });
  }
  const claim = assertions.verify(only, { method, path, headers: sealed });
  delete headers[FLEET_HEADER];
  rawHeaders.splice(0, rawHeaders.length, ...sealed, ...framingIn(rawHeaders));
  return claim;
}

/** What the connection adds, and the application has to know. */
function framingIn(raw: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (/^(?:transfer-encoding|connection|upgrade)$/i.test(raw[i] ?? "")) kept.push(raw[i] ?? "", raw[i + 1] ?? "");
  }
  return kept;
}

/** A public preview of a sandbox whose ports are closed: where it came in, nobody could know that. */
function wantsToKnow(incoming: IncomingMessage, claim: Claim, { sandboxes, previewDomain }: InwardParts): boolean {
  if (claim.caller !== undefined || claim.proved !== undefined || claim.sandbox === undefined) return false;
  if (presentedKeys(headersOf(incoming)).length === 0) return false;
  const target = targetIn(incoming, previewDomain);
  const preview = target?.kind === "preview" || target?.kind === "e2b";
  return preview && isClosed(new View(sandboxes, { owner: "", everything: true }), claim.sandbox);
}

function refusal(why: Refusal): Response {
  return json({ code: "MISDIRECTED", message: `this node refuses it: ${why}` }, 421, { [REFUSAL_HEADER]: why });
}
