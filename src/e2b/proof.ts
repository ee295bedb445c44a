/**
 * What a request to a sandbox shows of that sandbox's tokens. It needs no sandbox: whoever has the right token of one that is gone
 * may be told so, and without it nobody learns which ones there are.
 */
import { ENVD_PORT, INTERPRETER_PORT } from "./parts.ts";
import { type SandboxTokens, signedLink } from "./sandbox-tokens.ts";

export type Proof = "right" | "wrong" | "none";

/**
 * Its token opens files, processes and the code interpreter; that of its traffic the code interpreter and what its programs serve;
 * a signature made of its token one file. One that is right is enough.
 */
export function proofOf(tokens: SandboxTokens, id: string, port: number, request: Request): Proof {
  const { headers, method } = request;
  const { pathname, searchParams } = new URL(request.url);
  const shown: boolean[] = [];
  const token = headers.get("x-access-token");
  const traffic = headers.get("e2b-traffic-access-token");
  // A program of the guest may call one of its own headers so.
  if (isOwn(port) && token !== null) shown.push(tokens.matches(id, token));
  if (port !== ENVD_PORT && traffic !== null) shown.push(tokens.matchesTraffic(id, traffic));
  if (port === ENVD_PORT && pathname === "/files" && searchParams.has("signature")) {
    shown.push(tokens.matchesSignature(id, signedLink(method, searchParams), Date.now()));
  }
  if (shown.length === 0) return "none";
  return shown.includes(true) ? "right" : "wrong";
}

/** One of E2B's own ports, which no program of the guest answers. */
export function isOwn(port: number): boolean {
  return port === ENVD_PORT || port === INTERPRETER_PORT;
}
