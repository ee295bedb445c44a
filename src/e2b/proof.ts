/**
 * What a request to a sandbox shows of that sandbox's tokens. It needs no sandbox: whoever has the right token of one that is gone
 * may be told so, and without it nobody learns which ones there are.
 */
import { ENVD_PORT, INTERPRETER_PORT } from "./parts.ts";
import { type SandboxTokens, signedLink } from "./sandbox-tokens.ts";

export type Proof = "right" | "wrong" | "expired" | "none";

/**
 * Its token opens files, processes and the code interpreter; that of its traffic the code interpreter and what its programs serve;
 * a signature made of its token one file. One that is right is enough.
 */
export function proofOf(tokens: SandboxTokens, id: string, port: number, request: Request): Proof {
  const { headers, method } = request;
  const { pathname, searchParams } = new URL(request.url);
  const shown: Proof[] = [];
  const seen = (matches: boolean): Proof => (matches ? "right" : "wrong");
  const token = headers.get("x-access-token");
  const traffic = headers.get("e2b-traffic-access-token");
  // A program of the guest may call one of its own headers so.
  if (isOwn(port) && token !== null) shown.push(seen(tokens.matches(id, token)));
  if (port !== ENVD_PORT && traffic !== null) shown.push(seen(tokens.matchesTraffic(id, traffic)));
  if (port === ENVD_PORT && pathname === "/files" && searchParams.has("signature")) {
    shown.push(tokens.looksAt(id, signedLink(method, searchParams), Date.now()));
  }
  return ORDER.find((proof) => shown.includes(proof)) ?? "none";
}

/** The best of what was shown counts. */
const ORDER: readonly Proof[] = ["right", "expired", "wrong"];

/** One of E2B's own ports, which no program of the guest answers. */
export function isOwn(port: number): boolean {
  return port === ENVD_PORT || port === INTERPRETER_PORT;
}
