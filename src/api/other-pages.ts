/**
 * What a page makes the browser of the server's user ask for, without a word of the page: a picture, a script, a frame. Such a request has
 * no `Origin`; browsers say by `Sec-Fetch-Site` (W3C, "Fetch Metadata Request Headers") that it is another page's, where the server's address
 * is loopback or https.
 */
import type { Config } from "../config/schema.ts";
import { isLoopback } from "../host/loopback.ts";
import { originAllowed } from "./auth.ts";
import { API_BASE } from "./endpoint.ts";
import { previewTarget } from "./preview.ts";
import { httpError } from "./problem.ts";

/** Previews below our own host name: their page has no origin (CSP `sandbox`), so that what it loads of itself looks like this, too. */
const BELOW_PORTS = new RegExp(`^${API_BASE}/sandboxes/[^/]+/ports/`);

/**
 * For a request without a key. Where people go by themselves, to a page of its own, is their matter; and pages of this host that are no
 * guest's, such as somebody's program that shows previews in frames, may do it.
 * @throws HTTPException 403
 */
export function assertOwnPage(headers: Headers, path: string, config: Config): void {
  const site = headers.get("sec-fetch-site");
  if (site !== "cross-site" && site !== "same-site") return;
  if (headers.get("sec-fetch-dest") === "document") return;
  const host = headers.get("host") ?? "";
  if (BELOW_PORTS.test(path) && previewTarget(host, config.server.preview_domain) === undefined) return;
  const page = headers.get("referer") ?? "";
  if (URL.canParse(page)) {
    const { origin, hostname } = new URL(page);
    if (isLoopback(hostname) || originAllowed(origin, undefined, config)) return;
  }
  throw httpError(403, "what pages of other origins ask for needs a key; see server.cors_allowed_origins");
}
