/**
 * Who calls, found out where the client has come in: by the same rules as the application's, and said in a claim to the node that does
 * the work. Whoever cannot be known is the application's to refuse, in the words and the form that it has for that.
 */
import type { IncomingMessage } from "node:http";
import type { Access } from "../access/access.ts";
import { scopesUpTo } from "../access/identity.ts";
import { addressOf, assertLocalRequest, identify, presentedKeys } from "../api/auth.ts";
import { assertOwnPage } from "../api/other-pages.ts";
import { type Caller, vouch } from "../api/vouched.ts";
import type { Config } from "../config/schema.ts";
import { isOwn, proofOf } from "../e2b/proof.ts";
import type { SandboxTokens } from "../e2b/sandbox-tokens.ts";
import type { Target } from "./forwarding/target.ts";
import type { NewClaim, Who } from "./trust/assertions.ts";

export interface CallersParts {
  access: Access;
  config: Config;
  tokens: SandboxTokens;
}

/** `everybody`: who asks for a public preview is not asked who it is. */
export type Known = { caller: Caller } | { proved: Caller } | { everybody: true };

/** @param sure a public preview's node has asked for it: its ports are closed @throws whatever the application would answer with */
export async function knownOf(
  incoming: IncomingMessage,
  target: Extract<Target, { sandbox: string }> | undefined,
  { access, config, tokens }: CallersParts,
  { sure = false } = {},
): Promise<Known> {
  const headers = headersOf(incoming);
  if (access.ownUser && presentedKeys(headers).length === 0) {
    assertLocalRequest(headers, config, { preview: true });
    assertOwnPage(headers, new URL(incoming.url ?? "/", "http://localhost").pathname, config);
  }
  const preview = target?.kind === "preview" || (target?.kind === "e2b" && !isOwn(target.port));
  const everybody = preview && config.server.preview_public && !sure;
  if (target?.kind === "e2b") {
    const request = new Request(new URL(incoming.url ?? "/", "http://localhost"), {
      method: incoming.method ?? "GET",
      headers,
    });
    const proof = await proofOf({ tokens, access }, { id: target.sandbox, owner: undefined }, target.port, request);
    if (proof.kind === "right") return { proved: proof.by };
    if (!everybody && proof.kind !== "none") throw new Error("a token that opens nothing");
    if (isOwn(target.port) && presentedKeys(headers).length === 0) throw new Error("neither a token nor a key");
  }
  if (everybody) return { everybody: true };
  return { caller: await identify(headers, incoming, access, config, { preview: target?.kind === "preview" }) };
}

/** Of a request that is about no sandbox. @returns `undefined` for whom the application has to refuse */
export async function callerIn(
  incoming: IncomingMessage,
  parts: CallersParts,
): Promise<{ caller: Caller } | undefined> {
  try {
    const known = await knownOf(incoming, undefined, parts);
    return "caller" in known ? known : undefined;
  } catch (refused) {
    vouch(incoming, { refused });
    return undefined;
  }
}

/** Of the claim, what is about who calls. */
export function claimOf(incoming: IncomingMessage, known: Known): Pick<NewClaim, "caller" | "proved" | "address"> {
  const address = addressOf(incoming);
  if ("caller" in known) return { address, caller: whoOf(known.caller) };
  return "proved" in known ? { address, proved: whoOf(known.proved) } : { address };
}

/** A command of the server's own user is that on its own host only. */
function whoOf({ name, owner, scopes, hosts, keyId, credential, header }: Caller): Who {
  return {
    name,
    owner,
    scopes: [...scopes],
    credential: { id: credential.id, bound: credential.bound },
    ...(hosts === undefined ? {} : { hosts: [...hosts] }),
    ...(keyId === undefined ? {} : { keyId }),
    ...(header === undefined ? {} : { header }),
  };
}

export function callerOf({ scopes, hosts, keyId, header, ...rest }: Who): Caller {
  return {
    ...rest,
    scopes: scopesUpTo(scopes),
    ...(hosts === undefined ? {} : { hosts }),
    ...(keyId === undefined ? {} : { keyId }),
    ...(header === undefined ? {} : { header }),
  };
}

/** Whose things a caller names: its own, or those of the owner that an administrator acts for. */
export function ownerNamed(incoming: IncomingMessage, caller: Caller): string {
  const named = incoming.headers["x-owner"] || incoming.headers["x-tenant-id"];
  const owner = (Array.isArray(named) ? named[0] : named)?.trim();
  return owner === undefined || owner === "" ? caller.owner : owner;
}

export function headersOf({ headers }: IncomingMessage): Headers {
  const all = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    for (const each of Array.isArray(value) ? value : [value]) if (each !== undefined) all.append(name, each);
  }
  return all;
}
