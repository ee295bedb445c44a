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
import { callerOf, headersOf } from "./callers.ts";
import type { Directory } from "./contract.ts";
import { type Call, FLEET_HEADER, type Refusal } from "./forwarding/forwarder.ts";
import { targetIn } from "./forwarding/target.ts";
import { errorAs, sayResponse } from "./said.ts";
import type { Assertions, Claim } from "./trust/assertions.ts";

export interface InwardParts {
  directory: Directory;
  assertions: Assertions;
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
    const answer = (parts: InwardParts): boolean | Promise<boolean> => {
      try {
        const refused = this.#admit(call.incoming, parts);
        if (refused === undefined) return false;
        return sayResponse(call, refused).then(
          () => true,
          () => true,
        );
      } catch (error) {
        parts.log.warn({ phase: "fleet", err: error }, "a request on the nodes' listener was refused");
        return sayResponse(call, errorAs(call, error, false)).then(
          () => true,
          () => true,
        );
      }
    };
    return this.#parts === undefined ? this.#ready.promise.then(answer) : answer(this.#parts);
  }

  /** @returns what to say instead of the application @throws StacyError for what is no node's */
  #admit(incoming: IncomingMessage, parts: InwardParts): Response | undefined {
    const claim = claimIn(incoming, parts.assertions);
    const known = parts.directory.nodes().some(({ id, state }) => id === claim.from && state !== "lost");
    if (!known) {
      throw new StacyError("unavailable", "the node that sends this is not of this fleet, or no longer", {
        phase: "fleet",
        remedy: "`stacyvm node ls` shows which are",
      });
    }
    if (claim.sandbox !== undefined && !parts.isHere(claim.sandbox)) return refusal("not-mine");
    if (wantsToKnow(incoming, claim, parts)) return refusal("identify");
    vouch(incoming, {
      ...(claim.caller === undefined ? {} : { caller: callerOf(claim.caller) }),
      ...(claim.proved === undefined || claim.sandbox === undefined
        ? {}
        : { proved: { sandbox: claim.sandbox, by: callerOf(claim.proved) } }),
      ...(claim.sandbox === undefined ? { elsewhere: true as const } : {}),
      address: claim.address,
    });
    return undefined;
  }
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
