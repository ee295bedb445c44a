/**
 * What a request to a sandbox shows of that sandbox's tokens, and whose key they stand on: one that is revoked, has expired or was rotated
 * away opens nothing any more. It needs no sandbox: whoever has the right token of one that is gone may be told so, and without it nobody
 * learns which ones there are.
 */
import type { Access } from "../access/access.ts";
import type { Identity } from "../access/identity.ts";
import { Pace } from "../host/turns.ts";
import { ENVD_PORT, INTERPRETER_PORT } from "./parts.ts";
import { SandboxTokens, type SignedLink, signedLink } from "./sandbox-tokens.ts";

/** `right`: it is this one's. */
export type Proof = { kind: "right"; by: Identity } | { kind: "wrong" | "expired" | "none" };

export interface Proving {
  tokens: SandboxTokens;
  access: Access;
}

/** A sandbox that is asked for. */
export interface Named {
  id: string;
  /** Whose it is; `undefined`: it never was. */
  owner: string | undefined;
}

/**
 * Its token opens files, processes and the code interpreter; that of its traffic the code interpreter and what its programs serve;
 * a signature made of its token one file. One that is right is enough.
 */
export async function proofOf(proving: Proving, named: Named, port: number, request: Request): Promise<Proof> {
  const { tokens, access } = proving;
  const { headers, method } = request;
  const { pathname, searchParams } = new URL(request.url);
  const shown: Proof[] = [];
  const look = (presented: string, matches: (by: Identity) => boolean): void => {
    const behind = access.behind(SandboxTokens.credentialIn(presented));
    const by = behind.find((each) => mayUse(each, named) && matches(each));
    shown.push(by === undefined ? { kind: "wrong" } : { kind: "right", by });
  };
  const token = headers.get("x-access-token");
  const traffic = headers.get("e2b-traffic-access-token");
  // A program of the guest may call one of its own headers so.
  if (isOwn(port) && token !== null) look(token, ({ credential }) => tokens.matches(named.id, credential, token));
  if (port !== ENVD_PORT && traffic !== null)
    look(traffic, ({ credential }) => tokens.matchesTraffic(named.id, credential, traffic));
  if (port === ENVD_PORT && pathname === "/files" && searchParams.has("signature")) {
    shown.push(await signerOf(proving, [named], signedLink(method, searchParams)));
  }
  return ORDER.flatMap((kind) => shown.filter((proof) => proof.kind === kind))[0] ?? { kind: "none" };
}

/** The best of what was shown counts. */
const ORDER: readonly Proof["kind"][] = ["right", "expired", "wrong"];

/**
 * A signature names neither its key nor, where all sandboxes share one address, its sandbox: it is compared with those of all that come
 * into question, in turns.
 * @returns of the right one its sandbox, too
 */
export async function signerOf(
  { tokens, access }: Proving,
  candidates: Iterable<Named>,
  link: SignedLink,
): Promise<Proof & { id?: string }> {
  const now = Date.now();
  const holders = access.holders();
  const pace = new Pace();
  for (const named of candidates) {
    for (const by of holders) {
      if (pace.over) await pace.rest();
      if (!mayUse(by, named)) continue;
      const kind = tokens.looksAt(named.id, by.credential, link, now);
      // It may have ended since.
      if (kind === "right" && by.holds?.() !== false) return { kind, by, id: named.id };
      if (kind === "expired") return { kind };
    }
  }
  return { kind: "wrong" };
}

function mayUse({ scopes, owner }: Identity, named: Named): boolean {
  return scopes.has("use") && (named.owner === undefined || owner === named.owner || scopes.has("admin"));
}

/** One of E2B's own ports, which no program of the guest answers. */
export function isOwn(port: number): boolean {
  return port === ENVD_PORT || port === INTERPRETER_PORT;
}
