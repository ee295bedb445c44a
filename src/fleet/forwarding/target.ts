/**
 * Which sandbox a request names, told from its first line and headers alone, in the order in which the application looks at them. What is
 * found here decides only which node is asked: that node's application looks for itself.
 */
import type { IncomingMessage } from "node:http";
import { API_BASE } from "../../api/endpoint.ts";
import { previewTarget } from "../../api/preview.ts";
import { isControlPath } from "../../e2b/control/control.ts";
import { targetOf } from "../../e2b/mount.ts";

export type Target =
  /** Below `/api/v1/sandboxes/`. */
  | { kind: "rest"; sandbox: string }
  /** What a program in the guest serves, by host name. */
  | { kind: "preview"; sandbox: string; port: number }
  /** E2B's protocol to a sandbox, by header or host name. */
  | { kind: "e2b"; sandbox: string; port: number }
  /** E2B's control plane. */
  | { kind: "control"; sandbox: string }
  /** A new one. */
  | { kind: "create"; e2b: boolean }
  /** What there is. */
  | { kind: "list"; of: Listed; e2b: boolean };

/** Of which a node says what it has. */
export type Listed = "sandboxes" | "stats" | "checkpoints";

const REST = `${API_BASE}/sandboxes`;
const CHECKPOINTS = `${API_BASE}/checkpoints`;
/** Words in the place of an id. */
const NO_IDS: ReadonlySet<string> = new Set(["", "stats", "admission"]);
const CONTROL = /^\/(?:v\d+\/)?sandboxes(?:\/([^/]+))?(?:\/|$)/;

export function targetIn({ method, url = "/", headers }: IncomingMessage, previewDomain: string): Target | undefined {
  const host = previewTarget(headers.host, previewDomain);
  const named = targetOf({ get: (name) => single(headers[name]), has: (name) => headers[name] !== undefined }, host);
  if (named !== undefined) return { kind: "e2b", sandbox: named.id, port: named.port };
  if (host !== undefined) return { kind: "preview", sandbox: host.id, port: host.port };
  const path = pathOf(url);
  const reads = method === "GET" || method === "HEAD";
  if (reads && path === CHECKPOINTS) return { kind: "list", of: "checkpoints", e2b: false };
  if (path.startsWith(REST)) {
    const rest = path.slice(REST.length);
    if (rest === "" || rest === "/") return collection(method, false);
    if (!rest.startsWith("/")) return undefined;
    const end = rest.indexOf("/", 1);
    const sandbox = decoded(end < 0 ? rest.slice(1) : rest.slice(1, end));
    if (reads && rest === "/stats") return { kind: "list", of: "stats", e2b: false };
    return NO_IDS.has(sandbox) ? undefined : { kind: "rest", sandbox };
  }
  if (!isControlPath(path)) return undefined;
  const [whole, id] = CONTROL.exec(path) ?? [];
  if (whole === undefined) return undefined;
  if (id === undefined) return collection(method, true);
  return id === "metrics" ? undefined : { kind: "control", sandbox: decoded(id) };
}

function collection(method: string | undefined, e2b: boolean): Target | undefined {
  if (method === "POST") return { kind: "create", e2b };
  return method === "GET" || method === "HEAD" ? { kind: "list", of: "sandboxes", e2b } : undefined;
}

function single(value: string | string[] | undefined): string | null {
  return (Array.isArray(value) ? value[0] : value) ?? null;
}

/** As the application has it, of a whole URL too. */
function pathOf(url: string): string {
  const at = url.search(/[?#]/);
  const path = at < 0 ? url : url.slice(0, at);
  if (path.startsWith("/") && !path.includes("/.") && !path.includes("%2")) return path;
  return URL.canParse(path, "http://localhost") ? new URL(path, "http://localhost").pathname : path;
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
