/** Who asks, and what they may do. Only hashes of keys are kept, and every key is compared in constant time. */
import { createHash, timingSafeEqual } from "node:crypto";
import { isIP } from "node:net";
import type { Config } from "../config/schema.ts";
import { StacyError } from "../host/error.ts";
import { httpError } from "./problem.ts";

export type Scope = "read" | "use" | "admin";

export interface Identity {
  /** The key's name in the configuration; `anonymous` when no key is configured. Safe to log. */
  name: string;
  scopes: ReadonlySet<Scope>;
  /** The request's header that had the key. It is between the client and us: nothing hands it on. */
  header?: string;
}

const ALL: ReadonlySet<Scope> = new Set(["read", "use", "admin"]);

interface KnownKey extends Identity {
  hash: Buffer;
}

/** Where a key may be, the strongest first, and how it is written there. */
const KEY_HEADERS: Record<string, (value: string) => string | undefined> = {
  "x-admin-api-key": (value) => value,
  "x-api-key": (value) => value,
  authorization: (value) => /^Bearer (.+)$/i.exec(value)?.[1],
  // A browser's WebSocket takes no headers, but names of protocols: `stacyvm, stacyvm.key.<the key in base64url>`.
  "sec-websocket-protocol": (value) => {
    const encoded = /(?:^|,\s*)stacyvm\.key\.([\w-]+)/.exec(value)?.[1];
    return encoded === undefined ? undefined : Buffer.from(encoded, "base64url").toString("utf8");
  },
};

export class Authenticator {
  readonly #keys: KnownKey[] = [];

  constructor(auth: Config["auth"]) {
    const add = (name: string, key: string, scopes: Iterable<Scope>): void => {
      if (key !== "") this.#keys.push({ name, hash: hashOf(key), scopes: new Set(scopes) });
    };
    add("admin_api_key", auth.admin_api_key, ALL);
    const onlyKey = auth.admin_api_key === "" && auth.admin_fallback_enabled;
    add("api_key", auth.api_key, onlyKey ? ALL : ["read", "use"]);
    for (const { name, key, scopes } of auth.keys) {
      // Each scope includes the lesser ones.
      add(name, key, scopes.includes("admin") ? ALL : scopes.includes("use") ? ["read", "use"] : ["read"]);
    }
  }

  /** No key is configured: whoever reaches the server may do everything. */
  get open(): boolean {
    return this.#keys.length === 0;
  }

  /** @throws HTTPException 401 */
  identify(headers: Headers): Identity {
    if (this.open) return { name: "anonymous", scopes: ALL };
    for (const [header, read] of Object.entries(KEY_HEADERS)) {
      const presented = read(headers.get(header) ?? "");
      if (!presented) continue;
      const hash = sha256(presented);
      // No early end: the time says nothing about which key is close.
      let found: KnownKey | undefined;
      for (const key of this.#keys) if (timingSafeEqual(key.hash, hash)) found = key;
      if (found !== undefined) return { name: found.name, scopes: found.scopes, header };
    }
    throw httpError(401, "invalid or missing API key");
  }
}

function hashOf(key: string): Buffer {
  const match = /^sha256:([0-9a-f]{64})$/i.exec(key);
  return match?.[1] === undefined ? sha256(key) : Buffer.from(match[1], "hex");
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** An open server is for this host only. @throws StacyError `invalid` with the remedy */
export function assertSafeToListen(config: Config, auth: Authenticator): void {
  if (!auth.open || isLoopback(config.server.host)) return;
  throw new StacyError("invalid", `refusing to listen on ${config.server.host} without an API key`, {
    phase: "config",
    remedy: "set auth.api_key (STACYVM_AUTH_API_KEY), or server.host to 127.0.0.1",
  });
}

export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[|\]$/g, "").toLowerCase();
  return name === "localhost" || name === "::1" || (isIP(name) === 4 && name.startsWith("127."));
}

/** A host's name. Also of `server.preview_domain`, which has a port where clients have to ask another one than ours. */
export function withoutPort(host: string): string {
  return host.replace(/:\d+$/, "").toLowerCase();
}

/**
 * Without a key, what protects the server is that only this host reaches it; a browser on this host is then the way in. So a
 * request from another web page is refused (by `Origin`), and so is one under a foreign name (DNS rebinding, by `Host`).
 * @throws HTTPException 403
 */
export function assertLocalRequest(
  request: { origin: string | undefined; host: string | undefined },
  config: Config,
): void {
  const { origin, host = "" } = request;
  const name = withoutPort(host);
  const known =
    name === "" ||
    isLoopback(name) ||
    name === config.server.host.toLowerCase() ||
    name.endsWith(`.${withoutPort(config.server.preview_domain)}`) ||
    config.server.allowed_hosts.includes(name);
  if (!known) throw httpError(403, `the host name ${JSON.stringify(name)} is not allowed; see server.allowed_hosts`);
  if (origin !== undefined && !originAllowed(origin, host, config)) {
    throw httpError(403, "requests from this origin are not allowed; see server.cors_allowed_origins");
  }
}

export function originAllowed(origin: string, host: string | undefined, config: Config): boolean {
  const allowed = config.server.cors_allowed_origins;
  if (allowed.includes("*") || allowed.includes(origin)) return true;
  return origin === `http://${host}` || origin === `https://${host}`;
}
