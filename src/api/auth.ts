/** A request's credentials, and what a request without any must be like to be taken for one of the server's own user. */
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import type { Access } from "../access/access.ts";
import type { Config } from "../config/schema.ts";
import type { StacyError } from "../host/error.ts";
import { isLoopback } from "../host/loopback.ts";
import { httpError } from "./problem.ts";
import { type Caller, vouchedOf } from "./vouched.ts";

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
/** Set by whoever passes requests of others on. */
const FORWARDED = ["forwarded", "x-forwarded-for", "x-real-ip"];

/** The same for all of them: whoever tries keys does not learn that one was good. */
const INVALID_KEY_REMEDY =
  "it is wrong, has expired or was revoked: an administrator sees which are good (`stacyvm key ls --all`) and makes another (`stacyvm key create`)";

/**
 * @param preview what answers is a guest, to which alone the names below `server.preview_domain` belong
 * @throws HTTPException 401, 403; StacyError `limit` after too many wrong keys, `permission`, `unavailable`
 */
export async function identify(
  headers: Headers,
  incoming: IncomingMessage | undefined,
  access: Access,
  config: Config,
  { preview = false } = {},
): Promise<Caller> {
  const known = vouchedOf(incoming);
  if (known !== undefined) {
    if (known.caller !== undefined) return known.caller;
    throw known.refused ?? httpError(401, "missing API key: send it as X-API-Key");
  }
  const presented = presentedKeys(headers);
  // A client may send one of ours and, in another place, one that is for somebody else, such as a proxy before us.
  let refused: unknown;
  for (const { header, secret } of presented) {
    try {
      const identity = await access.identify(secret, addressOf(incoming));
      if (identity !== undefined) return { ...identity, header };
    } catch (error) {
      refused ??= error;
    }
  }
  if (refused !== undefined) throw refused;
  if (presented.length > 0) throw httpError(401, "invalid API key", INVALID_KEY_REMEDY);
  if (!access.ownUser) throw httpError(401, "missing API key: send it as X-API-Key");
  assertLocalRequest(headers, config, { preview });
  return access.identifyUser(incoming?.socket).catch((error: StacyError) => {
    throw httpError(401, `${error.message}: ${error.remedy}`);
  });
}

export function presentedKeys(headers: Headers): { header: string; secret: string }[] {
  return Object.entries(KEY_HEADERS).flatMap(([header, read]) => {
    const secret = read(headers.get(header) ?? "");
    return secret ? [{ header, secret }] : [];
  });
}

/** Of limits by address: what one customer of a provider has is one address. */
export function addressOf(incoming: IncomingMessage | undefined): string {
  const passedOn = vouchedOf(incoming)?.address;
  if (passedOn !== undefined) return passedOn;
  const address = incoming?.socket?.remoteAddress ?? "local";
  return isIP(address) === 6 && !address.startsWith("::ffff:") ? network(address) : address;
}

/** The first 64 bits, wherever its zeros are left out. */
function network(address: string): string {
  const [before = "", after] = address.split("::");
  const groups = before === "" ? [] : before.split(":");
  const rest = after ? after.split(":") : [];
  const zeros = after === undefined ? 0 : Math.max(0, 8 - groups.length - rest.length);
  return [...groups, ...Array<string>(zeros).fill("0"), ...rest].slice(0, 4).join(":");
}

/** A host's name. Also of `server.preview_domain`, which has a port where clients have to ask another one than ours. */
export function withoutPort(host: string): string {
  return host.replace(/:\d+$/, "").toLowerCase();
}

/**
 * Without a key, the user at the other end of the connection is what counts; a browser of that user is then a way in for every
 * page in it. So a request from another web page is refused (by `Origin`), so is one under a foreign name (DNS rebinding, by
 * `Host`), and so is one that a proxy of that user passes on for somebody else. A proxy that serves this host only, as the published
 * server's `web-ui` does, says so by the addresses that it names; that is heard where the configuration says that there is one.
 * @param preview whether a name below `server.preview_domain` will do: a page of such a name is a guest's, and has no other way in
 * @throws HTTPException 403
 */
export function assertLocalRequest(headers: Headers, config: Config, { preview = false } = {}): void {
  const origin = headers.get("origin") ?? undefined;
  const host = headers.get("host") ?? "";
  const name = withoutPort(host);
  const known =
    name === "" ||
    isLoopback(name) ||
    name === config.server.host.toLowerCase() ||
    (preview && name.endsWith(`.${withoutPort(config.server.preview_domain)}`)) ||
    config.server.allowed_hosts.includes(name);
  if (!known) throw httpError(403, `the host name ${JSON.stringify(name)} is not allowed; see server.allowed_hosts`);
  if (origin !== undefined && !originAllowed(origin, host, config)) {
    throw httpError(403, "requests from this origin are not allowed; see server.cors_allowed_origins");
  }
  const forwarded = FORWARDED.find(
    (each) => headers.has(each) && !(config.server.local_proxies && isForThisHost(headers)),
  );
  if (forwarded !== undefined) {
    throw httpError(
      401,
      `a request that a proxy passes on (${forwarded}) needs a key: \`stacyvm key create\`; or server.local_proxies, for one that serves this host only`,
    );
  }
}

/** Whether every address that was passed through is this host's own. */
function isForThisHost(headers: Headers): boolean {
  if (headers.has("forwarded")) return false;
  const addresses = ["x-forwarded-for", "x-real-ip"].flatMap((name) => headers.get(name)?.split(",") ?? []);
  return addresses.every((address) => isIP(address.trim()) !== 0 && isLoopback(address.trim()));
}

export function originAllowed(origin: string, host: string | undefined, config: Config): boolean {
  const allowed = config.server.cors_allowed_origins;
  if (allowed.includes("*") || allowed.includes(origin)) return true;
  return origin === `http://${host}` || origin === `https://${host}`;
}
