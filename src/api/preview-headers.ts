/**
 * What headers of a preview are passed on. The guest is hostile to whoever looks at it, and below our own host name (`/ports/`) its answers
 * come from the same origin as the console and as whatever else that host name serves.
 */
import type { IncomingHttpHeaders } from "node:http";
import { endToEnd } from "../host/hop-by-hop.ts";

/** What is said to us rather than to the guest; the header that had the key goes the same way. */
const OURS = ["host", "expect", "x-api-key", "x-admin-api-key", "x-user-id"];

/** Orders to a web server that stands before us, which would fetch something else in our answer's place, and what nodes of a fleet say to each other. */
const FOR_FRONT_SERVERS =
  /^(?:x-stacyvm-(?:node|refused)|x-accel-.*|x-sendfile.*|x-lighttpd-.*|x-reproxy-.*|x-litespeed-.*)$/;

/** What rules an origin or asks its user for something, and not this one answer. */
const ORIGIN_WIDE =
  /^(?:set-cookie2?|clear-site-data|strict-transport-security|public-key-pins.*|expect-ct|alt-svc|nel|report-to|reporting-endpoints|service-worker-allowed|access-control-.*|origin-agent-cluster|accept-ch|critical-ch|www-authenticate|authentication-info|set-login|observe-browsing-topics|activate-storage-access|document-policy.*|permissions-policy.*|content-security-policy.*|timing-allow-origin|cross-origin-.*|x-permitted-cross-domain-policies)$/;

export interface Passing {
  /** Below our own host name. */
  sameOrigin: boolean;
  /** Header that the caller's key was in; none for a public preview or a server without keys. */
  keyHeader: string | undefined;
  /** Host name that the guest is told; without: the one that was asked for. */
  named?: string | undefined;
}

/** Of a request, to the guest. */
export function toGuest(headers: IncomingHttpHeaders, { sameOrigin, keyHeader }: Passing): IncomingHttpHeaders {
  const passed = endToEnd(headers);
  for (const name of [...OURS, keyHeader]) if (name !== undefined) delete passed[name];
  if (sameOrigin) {
    // A browser sends them by itself, to whatever is below this host name. A program that names its key to us can mean both.
    delete passed.cookie;
    if (keyHeader !== "x-api-key") delete passed.authorization;
  }
  return passed;
}

/** Of the guest's answer, as name and value each. */
export function fromGuest(headers: IncomingHttpHeaders, sameOrigin: boolean): [string, string][] {
  const passed: [string, string][] = [];
  for (const [name, value] of Object.entries(endToEnd(headers))) {
    if (value === undefined || FOR_FRONT_SERVERS.test(name) || (sameOrigin && ORIGIN_WIDE.test(name))) continue;
    for (const each of Array.isArray(value) ? value : [value]) {
      // Set for a whole domain it would reach the previews of other sandboxes.
      if (name === "set-cookie" && /;\s*domain\s*=/i.test(each)) continue;
      passed.push([name, each]);
    }
  }
  if (sameOrigin) passed.push(["content-security-policy", "sandbox allow-scripts allow-forms allow-popups"]);
  return passed;
}
