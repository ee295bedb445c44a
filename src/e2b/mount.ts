/**
 * E2B's protocol on our port: which requests speak it, and who may. Requests to a sandbox are told by `E2b-Sandbox-Id`, or by a
 * host name `<port>-<id>.<domain>` with one of E2B's own ports; the control plane by its paths.
 */
import type { Mount } from "../api/endpoint.ts";
import { previewTarget, proxyPreview } from "../api/preview.ts";
import type { StacyError } from "../host/error.ts";
import { View } from "../sandboxes/view.ts";
import { controlPlane, isControlPath } from "./control/control.ts";
import { Envd, gone, isGone } from "./envd/envd.ts";
import { errorResponse } from "./error.ts";
import { Interpreter } from "./interpreter/interpreter.ts";
import { type E2bParts, ENVD_PORT, INTERPRETER_PORT } from "./parts.ts";
import { signedLink } from "./sandbox-tokens.ts";

export function e2b(parts: E2bParts): Mount {
  const { sandboxes, config, tokens } = parts;
  const control = controlPlane(parts);
  const envd = new Envd(parts);
  const interpreter = new Interpreter(parts);
  /** A signed link names no sandbox where all of them share one address: whose token signed it says which. */
  function signedFor(request: Request): Target | undefined {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname !== "/files" || !searchParams.has("signature")) return undefined;
    const now = Date.now();
    const link = signedLink(request.method, searchParams);
    const found = sandboxes.list().find(({ id }) => tokens.matchesSignature(id, link, now));
    return { id: found?.id ?? "", port: ENVD_PORT, own: true };
  }

  return (app, gate) => {
    app.use(async (c, next) => {
      const { headers } = c.req.raw;
      const target = targetOf(headers, config.server.preview_domain) ?? signedFor(c.req.raw);
      if (target !== undefined) {
        c.set("route", `e2b port ${target.own ? target.port : "other"}`);
        const { id, port } = target;
        try {
          if (sandboxes.get(id).state !== "running" && sandboxes.get(id).record.resumeOnUse !== true) {
            return gone(id, "The sandbox is not running");
          }
        } catch {
          return gone(id);
        }
        try {
          if (port === ENVD_PORT) return await envd.handle(id, c.req.raw);
          if (port === INTERPRETER_PORT) return await interpreter.handle(id, c.req.raw);
          const { pathname, search } = new URL(c.req.url);
          const request = { id, port, path: `${pathname}${search}`, sameOrigin: true };
          const shown = headers.get("e2b-traffic-access-token");
          if (config.server.preview_public || tokens.matchesTraffic(id, shown)) {
            // Whoever has the sandbox's token acts for its owner there.
            const { owner } = sandboxes.get(id).record;
            return await proxyPreview(c, new View(sandboxes, { owner, everything: false }), request);
          }
          return await gate.admit(c, "use", (view) => proxyPreview(c, view, request));
        } catch (error) {
          if (isGone(error)) return gone(id, (error as StacyError).message);
          return errorResponse(error);
        }
      }
      if (!isControlPath(c.req.path)) return next();
      c.set("route", "e2b control");
      const scope = c.req.method === "GET" ? "read" : "use";
      try {
        return await gate.admit(c, scope, (view) => control.fetch(c.req.raw, { sandboxes: view }));
      } catch (error) {
        return errorResponse(error);
      }
    });
  };
}

interface Target {
  id: string;
  port: number;
  /** One of E2B's own ports, which no program of the guest answers. */
  own: boolean;
}

function targetOf(headers: Headers, domain: string): Target | undefined {
  const id = headers.get("e2b-sandbox-id");
  if (id !== null) {
    const port = Number(headers.get("e2b-sandbox-port") ?? ENVD_PORT);
    return { id, port, own: isOwn(port) };
  }
  const named = previewTarget(headers.get("host") ?? undefined, domain);
  return named !== undefined && isOwn(named.port) ? { ...named, own: true } : undefined;
}

function isOwn(port: number): boolean {
  return port === ENVD_PORT || port === INTERPRETER_PORT;
}
