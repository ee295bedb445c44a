/**
 * E2B's protocol on our port: which requests speak it, and who may. Requests to a sandbox are told by `E2b-Sandbox-Id`, or by a
 * host name `<port>-<id>.<domain>` with one of E2B's own ports; the control plane by its paths. Under such a name of another port
 * every path is the guest's: its page, in the browser of the server's user, is no client of the control plane or of other sandboxes.
 *
 * Nothing is told of a sandbox, not even whether there is one, before its caller has shown a key or the sandbox's own token.
 */
import type { Identity } from "../access/identity.ts";
import { presentedKeys } from "../api/auth.ts";
import type { ServerParts } from "../api/context.ts";
import type { ApiContext, Gate, Mount, RouteAccess } from "../api/endpoint.ts";
import { isClosed, previewTarget, proxyPreview } from "../api/preview.ts";
import { REFUSAL_HEADER, vouchedOf } from "../api/vouched.ts";
import { StacyError } from "../host/error.ts";
import { View } from "../sandboxes/view.ts";
import { controlPlane, isControlPath } from "./control/control.ts";
import type { ControlEnv } from "./control/env.ts";
import { volumeShown } from "./control/volumes.ts";
import { Envd, gone, isGone } from "./envd/envd.ts";
import { E2bError, errorResponse, isRefusal } from "./error.ts";
import { Interpreter } from "./interpreter/interpreter.ts";
import { type E2bParts, ENVD_PORT, INTERPRETER_PORT } from "./parts.ts";
import { isOwn, type Proof, proofOf, signerOf } from "./proof.ts";
import { SandboxTokens, signedLink } from "./sandbox-tokens.ts";

export interface MountParts extends ServerParts {
  tokens: SandboxTokens;
}

export function e2b({ sandboxes: all, tokens, ...rest }: MountParts): Mount {
  const { config, access } = rest;
  const { providers, limits, store, policies } = all;
  const imageUsers = all.imageUsers(rest.images);
  const parts: E2bParts = { ...rest, tokens, providers, imageUsers, limits, store, policies };
  const control = controlPlane(parts);
  const envd = new Envd(parts);
  const interpreter = new Interpreter(parts);

  /** Where all sandboxes share one address a link names none: whose token signed it says which. */
  async function signedFor(c: ApiContext, gate: Gate): Promise<Target> {
    gate.limit(c); // before the search among all
    const proof = await signerOf(
      { tokens, access },
      all.list(),
      signedLink(c.req.method, new URL(c.req.url).searchParams),
    );
    if (proof.kind === "expired") throw expired();
    if (proof.kind !== "right" || proof.id === undefined) throw refused();
    return { id: proof.id, port: ENVD_PORT, admitted: proof.by };
  }

  /** A link for a template's files needs no key. @returns `by`: absent when its signature is wrong; `undefined`: it is no such link */
  function uploadBy(c: ApiContext): { owner: string; by?: Identity | undefined } | undefined {
    const [, hash = ""] = /^\/templates\/[^/]+\/files\/([0-9a-f]+)$/.exec(c.req.path) ?? [];
    const { owner = "", expires = "", signature } = c.req.query();
    if (c.req.method !== "PUT" || hash === "" || signature === undefined) return undefined;
    const by = access
      .behind(SandboxTokens.credentialIn(signature))
      .filter(({ scopes, owner: own }) => scopes.has("use") && (own === owner || scopes.has("admin")))
      .find(({ credential }) => tokens.matchesUpload({ owner, hash, expires }, credential, signature, Date.now()));
    return { owner, by };
  }

  /** A volume's token needs no key beside it, and brings nothing of its owner in sight. @returns `undefined`: it shows no token, or another one */
  function volumeBy(c: ApiContext): { owner: string; by: Identity } | undefined {
    const { id, token } = volumeShown(c.req.raw) ?? { id: "", token: "" };
    const by = access
      .behind(SandboxTokens.credentialIn(token))
      .find(({ scopes, credential }) => scopes.has("use") && tokens.matchesVolume(id, credential, token));
    return by === undefined ? undefined : { owner: "", by };
  }

  /** Who calls the control plane: the holder of a key, or of a link where the route has those. */
  function admission(c: ApiContext, gate: Gate): ControlEnv["Bindings"] {
    const shown = volumeBy(c) ?? uploadBy(c);
    if (shown === undefined) {
      return {
        admit: ({ access: scope }, work) =>
          gate.admit(c, scope, (sandboxes) => {
            const { scopes, credential } = c.get("identity");
            return work(sandboxes, scopes.has("use") ? credential : undefined);
          }),
      };
    }
    const { owner, by } = shown;
    return {
      admit: async ({ link }, work) => {
        gate.limit(c);
        if (by === undefined || link !== true) throw refused();
        gate.follow(c, by);
        return await work(new View(all, { owner, everything: false }), undefined);
      },
    };
  }

  /** Work for whoever may use the sandbox, if it is there: who shows its token, or a key that is looked at like any other. */
  async function admit(
    c: ApiContext,
    gate: Gate,
    { id, port, admitted }: Target,
    work: (sandboxes: View) => Promise<Response>,
  ): Promise<Response> {
    const owner = all.ownerOf(id);
    const vouched = vouchedOf(c.env.incoming);
    const proved = vouched?.proved?.sandbox === id ? vouched.proved.by : undefined;
    let by = admitted ?? proved;
    if (proved !== undefined) gate.limit(c, id);
    if (by === undefined) {
      const everybody = !isOwn(port) && config.server.preview_public && !isClosed(all, id);
      const proof: Proof | undefined = everybody
        ? undefined
        : vouched === undefined
          ? await proofOf({ tokens, access }, { id, owner }, port, c.req.raw)
          : { kind: "none" }; // whoever has passed it on has looked
      // A page in its user's browser has no key either: where this server knows its user by the connection, that opens no files.
      const shown = vouched === undefined ? presentedKeys(c.req.raw.headers).length > 0 : vouched.caller !== undefined;
      const keyless = isOwn(port) && !shown;
      if (proof?.kind === "expired") throw expired();
      if (proof?.kind === "wrong" || (proof?.kind === "none" && keyless)) throw refused();
      if (proof?.kind === "none") return gate.admit(c, "use", work);
      gate.limit(c, everybody ? undefined : id);
      if (proof?.kind === "right") by = proof.by;
    }
    if (by !== undefined) gate.follow(c, by);
    const limit = by?.hosts === undefined ? {} : { hosts: by.hosts };
    // Whoever has the sandbox's token acts for its owner there. Of one that never was nobody is the owner, and its view is empty.
    return work(new View(all, { owner: owner ?? "", everything: false, ...limit }));
  }

  async function answer(c: ApiContext, { id, port }: Target, sandboxes: View): Promise<Response> {
    const why = whyGone(sandboxes, id);
    if (why !== undefined) return gone(id, why);
    if (port === ENVD_PORT) return envd.handle({ sandboxes, id }, c.req.raw, c.env.incoming?.socket);
    if (port === INTERPRETER_PORT) return interpreter.handle({ sandboxes, id }, c.req.raw);
    const { pathname, search } = new URL(c.req.url);
    try {
      return await proxyPreview(c, sandboxes, { id, port, path: `${pathname}${search}`, sameOrigin: true });
    } catch (error) {
      if (!(error instanceof StacyError) || error.phase !== "tunnel") throw error;
      return portClosed(id, port);
    }
  }

  /** Of a sandbox: the answer, or the error in its protocol's form. */
  async function ofSandbox(c: ApiContext, gate: Gate, named: Target | undefined): Promise<Response> {
    const port = named?.port ?? ENVD_PORT;
    c.set("route", `e2b port ${isOwn(port) ? port : "other"}`);
    let id = named?.id;
    try {
      if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new E2bError(400, "that is not a port");
      const target = named ?? (await signedFor(c, gate));
      id = target.id;
      return await admit(c, gate, target, (sandboxes) => answer(c, target, sandboxes));
    } catch (error) {
      if (id !== undefined && isGone(error)) return gone(id, (error as StacyError).message);
      return errorResponse(error);
    }
  }

  return {
    routes: [...control.table, ...envd.routes, ...interpreter.routes, GUESTS],
    async answer(c, gate) {
      const { headers } = c.req.raw;
      const host = previewTarget(headers.get("host") ?? undefined, config.server.preview_domain);
      const named = targetOf(headers, host);
      if (named === undefined && host !== undefined) return undefined;
      if (named !== undefined || isSignedLink(c)) return ofSandbox(c, gate, named);
      if (!isControlPath(c.req.path)) return undefined;
      c.set("route", "e2b control");
      const response = await control.answer(c.req.raw, admission(c, gate));
      if (vouchedOf(c.env.incoming)?.elsewhere && isRefusal(response)) response.headers.set(REFUSAL_HEADER, "full");
      return response;
    },
    leadsNowhere({ id, port }, error) {
      if (!(error instanceof StacyError)) return undefined;
      if (error.phase === "tunnel") return portClosed(id, port);
      if (error.code === "not-found") return gone(id);
      return isGone(error) ? gone(id, "The sandbox is not running") : undefined;
    },
  };
}

/** Whatever a program of a guest serves. */
const GUESTS: RouteAccess = { method: "ALL", path: "/*", access: "sandbox", protocol: "E2B", port: "other" };

interface Target {
  id: string;
  port: number;
  /** What the request shows has been looked at and counted: it is this one's. */
  admitted?: Identity;
}

/** @param named by the request's host: no header makes another sandbox of it */
export function targetOf(headers: Pick<Headers, "get" | "has">, named: Target | undefined): Target | undefined {
  const id = headers.get("e2b-sandbox-id");
  if (id !== null && (named === undefined || named.id === id))
    return { id, port: Number(headers.get("e2b-sandbox-port") ?? ENVD_PORT) };
  // With a sandbox's own token it is ours to look at; without one it is a preview, which asks for a key.
  const ours = named !== undefined && (isOwn(named.port) || headers.has("e2b-traffic-access-token"));
  return ours ? named : undefined;
}

function isSignedLink(c: ApiContext): boolean {
  return c.req.path === "/files" && c.req.query("signature") !== undefined;
}

/** @returns `undefined` for one that runs, or that its use brings back */
function whyGone(sandboxes: View, id: string): string | undefined {
  try {
    const { state, record } = sandboxes.get(id);
    return state === "running" || record.resumeOnUse === true ? undefined : "The sandbox is not running";
  } catch (error) {
    if (error instanceof StacyError && error.code === "not-found") return "The sandbox was not found";
    throw error;
  }
}

/** The sandbox is there: clients tell this from one that is gone by the words. */
function portClosed(sandboxId: string, port: number): Response {
  const body = { sandboxId, message: "The sandbox is running but port is not open", port, code: 502 };
  return Response.json(body, { status: 502 });
}

/** Said to nobody who has not had the right link. */
function expired(): E2bError {
  return new E2bError(401, "signature is already expired");
}

function refused(): E2bError {
  return new E2bError(401, "unauthorized access, please provide a valid access token");
}
