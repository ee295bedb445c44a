/**
 * JWTs of an OpenID Connect issuer in place of keys. Signature, issuer, audience and times are `jose`'s work; what is decided
 * here is which claim names the owner and which the scopes.
 */
import { createRemoteJWKSet, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from "jose";
import { asStacyError, StacyError } from "../host/error.ts";
import { withoutEnd } from "../host/trim.ts";
import { OWNER_NAME } from "../sandboxes/owner.ts";
import { highestOf, type Identity, SCOPES, type Scope, scopesUpTo } from "./identity.ts";

export interface TokenOptions {
  /** As in the tokens; `{issuer}/.well-known/openid-configuration` says where its keys are, unless `jwksUrl` does. */
  issuer: string;
  audience: string;
  /** Empty: by discovery. */
  jwksUrl: string;
  /** Dots lead into objects: `project.name`. */
  ownerClaim: string;
  /** A text of words, or a list: `read`, `use`, `admin`, also with `stacyvm:` before them. */
  scopeClaim: string;
  /** What a token without such a word may. Empty: nothing. */
  defaultScope: Scope | "";
}

/** Only ones with a public key: an issuer's secret is not ours to know. */
const ALGORITHMS = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
];
const DISCOVERY_MS = 5_000;
const MAX_DISCOVERY_BYTES = 1 << 18;
/** Clocks differ, s. */
const TOLERANCE_S = 30;
/** A rotated key is asked for again at most this often, and kept this long. */
const COOLDOWN_MS = 30_000;
const KEPT_MS = 10 * 60_000;

export class Tokens {
  readonly #options: TokenOptions;
  #keys: Promise<JWTVerifyGetKey> | undefined;

  constructor(options: TokenOptions) {
    this.#options = options;
  }

  static looksLikeOne(text: string): boolean {
    return /^[\w-]+\.[\w-]+\.[\w-]*$/.test(text);
  }

  /**
   * @returns `undefined` for a token that proves nothing
   * @throws StacyError `permission` for a valid one that names no owner or no scope, `unavailable` when the issuer cannot be asked
   */
  async identify(token: string): Promise<Identity | undefined> {
    const { issuer, audience } = this.#options;
    let payload: JWTPayload;
    try {
      const keys = await this.#issuerKeys();
      const verified = await jwtVerify(token, keys, {
        issuer,
        audience,
        algorithms: ALGORITHMS,
        clockTolerance: TOLERANCE_S,
        requiredClaims: ["exp", "sub"],
      });
      payload = verified.payload;
    } catch (error) {
      if (error instanceof StacyError) throw error;
      if (error instanceof errors.JWKSTimeout) throw unreachable(issuer, error);
      // A document that is no key set, or an issuer that answers with an error, says nothing about this token.
      if (error instanceof errors.JOSEError && error.code !== "ERR_JOSE_GENERIC") return undefined;
      throw unreachable(issuer, error);
    }
    return this.#identityOf(payload);
  }

  #identityOf(payload: JWTPayload): Identity {
    const { ownerClaim, scopeClaim, defaultScope } = this.#options;
    const owner = claim(payload, ownerClaim);
    if (typeof owner !== "string" || !OWNER_NAME.test(owner)) {
      throw new StacyError("permission", `the token's claim ${ownerClaim} names no owner`, {
        remedy: "set auth.oidc_owner_claim to a claim of letters, digits and . _ @ -",
      });
    }
    const given = claim(payload, scopeClaim);
    const words = typeof given === "string" ? given.split(/\s+/) : Array.isArray(given) ? given.map(String) : [];
    const named = words.map((word) => word.replace(/^stacyvm:/, ""));
    const scopes = SCOPES.filter((scope) => named.includes(scope));
    if (scopes.length === 0 && defaultScope !== "") scopes.push(defaultScope);
    if (scopes.length === 0) throw new StacyError("permission", `the token's claim ${scopeClaim} names no scope`);
    const expires = Math.floor(payload.exp ?? 0);
    const id = `jwt-${expires}-${highestOf(scopes)}-${Buffer.from(owner).toString("base64url")}`;
    return { ...ofCredential(id, expires, owner, scopes), name: `oidc:${payload.sub}`.slice(0, 128) };
  }

  /** Who a credential of such a token was for, if that has not expired. It is believed as it stands: who asks has seen it bound to something. */
  behind(id: string): Identity | undefined {
    const [, expires = "", scope = "", encoded = ""] = /^jwt-(\d+)-(read|use|admin)-([\w-]+)$/.exec(id) ?? [];
    if (encoded === "") return undefined;
    const owner = Buffer.from(encoded, "base64url").toString();
    const identity = ofCredential(id, Number(expires), owner, [scope as Scope]);
    return identity.holds?.() === true ? identity : undefined;
  }

  /** Fetched once, and again after a failure. */
  #issuerKeys(): Promise<JWTVerifyGetKey> {
    this.#keys ??= this.#discover();
    this.#keys.catch(() => {
      this.#keys = undefined;
    });
    return this.#keys;
  }

  async #discover(): Promise<JWTVerifyGetKey> {
    const { issuer } = this.#options;
    const url = this.#options.jwksUrl || (await this.#jwksUrl());
    const parsed = secureUrl(url, issuer);
    return createRemoteJWKSet(parsed, {
      timeoutDuration: DISCOVERY_MS,
      cooldownDuration: COOLDOWN_MS,
      cacheMaxAge: KEPT_MS,
    });
  }

  async #jwksUrl(): Promise<string> {
    const { issuer } = this.#options;
    const url = secureUrl(`${withoutEnd(issuer, "/")}/.well-known/openid-configuration`, issuer);
    try {
      const response = await fetch(url, { redirect: "error", signal: AbortSignal.timeout(DISCOVERY_MS) });
      if (!response.ok) throw new Error(`it answered with ${response.status}`);
      const document = JSON.parse(await limitedText(response)) as { issuer?: unknown; jwks_uri?: unknown };
      if (document.issuer !== issuer) throw new Error(`it says that it is ${JSON.stringify(document.issuer)}`);
      if (typeof document.jwks_uri !== "string") throw new Error("it names no jwks_uri");
      return document.jwks_uri;
    } catch (error) {
      throw unreachable(issuer, error);
    }
  }
}

/** @param expires s since 1970 */
function ofCredential(id: string, expires: number, owner: string, scopes: readonly Scope[]): Identity {
  const until = (expires + TOLERANCE_S) * 1000;
  const holds = (): boolean => Date.now() < until;
  return { name: "oidc", owner, scopes: scopesUpTo(scopes), credential: { id, bound: id }, holds };
}

async function limitedText(response: Response): Promise<string> {
  let size = 0;
  const parts: Uint8Array[] = [];
  for await (const part of response.body ?? []) {
    size += part.length;
    if (size > MAX_DISCOVERY_BYTES) throw new Error("its document is too long");
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

/** Keys that came in clear text could be anybody's; only this host's own may. */
function secureUrl(text: string, issuer: string): URL {
  const url = URL.parse(text);
  const own = url !== null && /^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname);
  if (url !== null && (url.protocol === "https:" || (url.protocol === "http:" && own))) return url;
  throw new StacyError("unavailable", `the keys of ${issuer} are not at an https address`, {
    phase: "oidc",
    remedy: "correct auth.oidc_issuer or auth.oidc_jwks_url",
  });
}

function unreachable(issuer: string, error: unknown): StacyError {
  return new StacyError("unavailable", `the issuer ${issuer} cannot be asked: ${asStacyError(error).message}`, {
    phase: "oidc",
    cause: error,
    remedy: "see that this host reaches it, or use a key",
  });
}

function claim(payload: JWTPayload, path: string): unknown {
  // A claim's own name may have dots: https://example.com/owner.
  if (path in payload) return payload[path];
  let value: unknown = payload;
  for (const part of path.split(".")) {
    value = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[part] : undefined;
  }
  return value;
}
