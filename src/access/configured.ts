/** The keys of the configuration, and whether a server with them (or without any) may listen where it is told to. */
import type { Config } from "../config/schema.ts";
import { StacyError } from "../host/error.ts";
import { isLoopback } from "../host/loopback.ts";
import type { ConfiguredKey } from "./access.ts";
import type { Keys } from "./keys.ts";
import { isWeak } from "./secret.ts";
import type { TokenOptions } from "./tokens.ts";

export function configuredKeys(auth: Config["auth"]): ConfiguredKey[] {
  const onlyKey = auth.admin_api_key === "" && auth.admin_fallback_enabled;
  const named: ConfiguredKey[] = [
    { name: "admin_api_key", key: auth.admin_api_key, scopes: ["admin"] },
    { name: "api_key", key: auth.api_key, scopes: onlyKey ? ["admin"] : ["use"] },
    ...auth.keys,
  ];
  return named.filter(({ key }) => key !== "");
}

/** @throws StacyError `invalid` naming the key that is missing */
export function tokenOptions(auth: Config["auth"]): TokenOptions | undefined {
  if (auth.oidc_issuer === "") return undefined;
  if (auth.oidc_audience === "") {
    throw new StacyError("invalid", "auth.oidc_audience: is needed with auth.oidc_issuer", {
      phase: "config",
      remedy: "set what the issuer's tokens must be made for: without it those for others would be taken too",
    });
  }
  return {
    issuer: auth.oidc_issuer,
    audience: auth.oidc_audience,
    jwksUrl: auth.oidc_jwks_url,
    ownerClaim: auth.oidc_owner_claim,
    scopeClaim: auth.oidc_scope_claim,
    defaultScope: auth.oidc_default_scope,
  };
}

/** Whether programs of the server's own user need no key: where none is configured, and only this host reaches it. */
export function answersOwnUser({ auth, server }: Config): boolean {
  return isLoopback(server.host) && auth.oidc_issuer === "" && configuredKeys(auth).length === 0;
}

/**
 * What others reach needs keys that nobody can guess.
 * @returns what to warn of
 * @throws StacyError `invalid` with the remedy
 */
export function assertSafeToListen(config: Config, keys: Keys): string[] {
  const { host } = config.server;
  const configured = configuredKeys(config.auth);
  const local = isLoopback(host);
  if (!local && configured.length === 0 && config.auth.oidc_issuer === "" && !keys.any) {
    throw new StacyError("invalid", `refusing to listen on ${host} without an API key`, {
      phase: "config",
      remedy: "make one (`stacyvm key create`), set auth.api_key (STACYVM_AUTH_API_KEY), or server.host to 127.0.0.1",
    });
  }
  const weak = configured.filter(({ key }) => isWeak(key)).map(({ name }) => name);
  if (!local && weak.length > 0) {
    throw new StacyError(
      "invalid",
      `refusing to listen on ${host} with a key that can be guessed: ${weak.join(", ")}`,
      {
        phase: "config",
        remedy: "use keys of at least 128 bits: `stacyvm key create`, or `openssl rand -hex 32`",
      },
    );
  }
  return weak.map(
    (name) => `the key ${name} has less than 128 bits; \`stacyvm key create\` makes one that nobody guesses`,
  );
}
