/**
 * Secrets that programs of a sandbox use and never have. A program finds a placeholder in its environment; where a request to one of
 * the secret's hosts has a place for it, the host puts the value in. Nothing here knows where values come from.
 */
import type { IncomingHttpHeaders } from "node:http";
import { StacyError } from "../../host/error.ts";
import { HostRules } from "../host-rules.ts";
import { type Hidden, masker } from "./mask.ts";

/** Where in a request the value goes. */
export type Placement =
  /** `Authorization: Bearer VALUE` */
  | { kind: "bearer" }
  /** A header; `{}` in the template is the value. */
  | { kind: "header"; name: string; template: string }
  /** `Authorization: Basic`, the value as password. */
  | { kind: "basic"; username: string }
  /** A parameter of the URL. */
  | { kind: "query"; name: string };

export interface SecretPlan {
  name: string;
  /** What programs see in its place. */
  placeholder: string;
  hosts: SecretHosts;
  placement: Placement;
}

/** With its value, or why it has none. */
export type Secret = SecretPlan & { value?: string; missing?: string };

/** One whose value is asked for when a request needs it, so that another one counts from the next request on. */
export interface KeptSecret extends SecretPlan {
  read(): Promise<{ value: string } | { missing: string }>;
}

/** Who has the secrets of sandboxes. */
export interface Vault {
  /** `undefined`: the sandbox is not known yet. */
  of(sandboxId: string): readonly KeptSecret[] | undefined;
}

/** What a secret's host is reached by. */
export type Scheme = "https" | "http";

const DEFAULT_PORT: Record<Scheme, number> = { https: 443, http: 80 };
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/;
/** These say what a request is and whom it is for, or belong to one connection. */
const NOT_FOR_SECRETS =
  /^(host|connection|content-.*|transfer-encoding|te|trailer|upgrade|expect|keep-alive|proxy-.*|sec-websocket-.*)$/i;

/**
 * `api.example.com`, `api.example.com:8443`, `*.example.com`, or an address; with `http://` in front: without TLS, for servers of an own
 * network. Nothing wider: what a host of the list gets, it has.
 */
export class SecretHosts {
  readonly list: readonly string[];
  readonly #rules: Record<Scheme, HostRules>;
  /** As rules of a sandbox, which must permit them. */
  readonly allowed: readonly string[];

  /** @throws StacyError `invalid` naming the host */
  constructor(list: readonly string[]) {
    this.list = [...list];
    const rules: Record<Scheme, string[]> = { https: [], http: [] };
    for (const text of list) {
      const [, plain, host = ""] = /^(http:\/\/)?(.*)$/.exec(text.trim()) ?? [];
      const scheme = plain === undefined ? "https" : "http";
      if (/^[!@]|^\*$|^\*:|:\*$|:\d+-\d+$|\/|^$/.test(host)) throw noHost(text);
      rules[scheme].push(hasPort(host) ? host : `${bracketed(host)}:${DEFAULT_PORT[scheme]}`);
    }
    if (list.length === 0) throw new StacyError("invalid", "a secret needs at least one host");
    try {
      this.#rules = { https: new HostRules(rules.https, {}), http: new HostRules(rules.http, {}) };
    } catch (cause) {
      throw noHost(list.join(", "), cause);
    }
    this.allowed = [...rules.https, ...rules.http];
  }

  scheme(host: string, port: number): Scheme | undefined {
    if (this.#rules.https.permit(host, port)) return "https";
    return this.#rules.http.permit(host, port) ? "http" : undefined;
  }
}

function hasPort(host: string): boolean {
  return /^(\[.*\]|[^:]*):\d+$/.test(host);
}

function bracketed(host: string): string {
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}

function noHost(text: string, cause?: unknown): StacyError {
  return new StacyError("invalid", `${JSON.stringify(text.slice(0, 300))} is no host for a secret`, {
    cause,
    remedy: "write api.example.com, api.example.com:8443 or *.example.com; http:// in front for one without TLS",
  });
}

/** @throws StacyError `invalid` */
export function checkPlacement(placement: Placement): Placement {
  const wrong = (what: string): StacyError => new StacyError("invalid", `a secret cannot go there: ${what}`);
  if (placement.kind === "header") {
    const { name, template } = placement;
    if (!TOKEN.test(name) || NOT_FOR_SECRETS.test(name)) throw wrong(`${JSON.stringify(name)} is no header for it`);
    if (!template.includes("{}")) throw wrong("the header's text needs {} where the value goes");
    if (!/^[\x20-\x7e]{1,1024}$/.test(template))
      throw wrong("the header's text has other than visible ASCII characters");
  }
  if (placement.kind === "query" && !TOKEN.test(placement.name)) throw wrong("that is no name of a parameter");
  if (placement.kind === "basic" && !/^[\x20-\x39\x3b-\x7e]{0,256}$/.test(placement.username)) {
    throw wrong("the user name has other than visible ASCII characters, or a colon");
  }
  return placement;
}

/** @throws StacyError `invalid`; the value is not in it */
export function checkValue(value: string): string {
  if (/^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(value) && value.length >= 8 && value.length <= 8_192) return value;
  throw new StacyError("invalid", "a secret's value has 8 to 8,192 visible ASCII characters", {
    remedy: "leave out line ends; a file's last one is taken off",
  });
}

export interface Placed {
  /** With the query. */
  path: string;
  headers: IncomingHttpHeaders;
  /** Text of the host's answer, without the values that go to it. */
  mask(text: string): string;
}

/**
 * Puts values in. A place that is empty gets one, and a placeholder in its place becomes the value; what a program has put there of its
 * own stays. Of several secrets with one place an empty one gets the first.
 * @throws StacyError `unavailable` when a value is needed that is not there
 */
export function place(path: string, headers: IncomingHttpHeaders, secrets: readonly Secret[]): Placed {
  const placed = { path, headers: { ...headers } };
  // Also those that this request has no place for: an earlier one had, and the host may say what was in it.
  const hidden = secrets.flatMap(({ value, placeholder }): Hidden[] =>
    value === undefined ? [] : [{ value, placeholder }],
  );
  const sent: Hidden[] = [];
  for (const [slot, candidates] of slots(secrets)) {
    const at = slot.indexOf(" ");
    const name = slot.slice(at + 1);
    const chosen = slot.startsWith("query ") ? inQuery(placed, name, candidates) : inHeader(placed, name, candidates);
    if (chosen === undefined) continue;
    const { placeholder } = chosen;
    const basic = slot.startsWith("query ") ? undefined : /^Basic (.*)$/i.exec(String(placed.headers[name]))?.[1];
    if (basic !== undefined) sent.push({ value: basic, placeholder });
  }
  return { ...placed, mask: masker(hidden, sent) };
}

function slots(secrets: readonly Secret[]): Map<string, Secret[]> {
  const found = new Map<string, Secret[]>();
  for (const secret of secrets) {
    const { placement } = secret;
    const slot =
      placement.kind === "query"
        ? `query ${placement.name}`
        : `header ${placement.kind === "header" ? placement.name.toLowerCase() : "authorization"}`;
    found.set(slot, [...(found.get(slot) ?? []), secret]);
  }
  return found;
}

function inHeader(request: Pick<Placed, "headers">, name: string, candidates: readonly Secret[]): Secret | undefined {
  const current = request.headers[name];
  if (current === undefined) {
    const [first] = candidates;
    if (first !== undefined) request.headers[name] = rendered(first);
    return first;
  }
  const text = Array.isArray(current) ? current.join(", ") : current;
  const basic = /^Basic\s+([A-Za-z0-9+/=]+)$/i.exec(text)?.[1];
  const readable = basic === undefined ? text : Buffer.from(basic, "base64").toString("latin1");
  const chosen = candidates.find(({ placeholder }) => readable.includes(placeholder));
  if (chosen === undefined) return undefined;
  const filled = readable.replaceAll(chosen.placeholder, () => present(chosen));
  request.headers[name] = basic === undefined ? filled : `Basic ${base64(filled)}`;
  return chosen;
}

function rendered(secret: Secret): string {
  const { placement } = secret;
  const value = present(secret);
  if (placement.kind === "header") return placement.template.replaceAll("{}", () => value);
  if (placement.kind === "basic") return `Basic ${base64(`${placement.username}:${value}`)}`;
  return `Bearer ${value}`;
}

/** The rest of the URL stays as it was, to the letter. */
function inQuery(request: Pick<Placed, "path">, name: string, candidates: readonly Secret[]): Secret | undefined {
  const [bare = ""] = request.path.split("#");
  const cut = bare.indexOf("?");
  const path = cut < 0 ? bare : bare.slice(0, cut);
  const parameters = cut < 0 || cut === bare.length - 1 ? [] : bare.slice(cut + 1).split("&");
  const isIt = (parameter: string): boolean => decoded(parameter.split("=")[0] ?? "") === name;
  let chosen: Secret | undefined;
  if (!parameters.some(isIt)) {
    [chosen] = candidates;
    if (chosen === undefined) return undefined;
    parameters.push(`${encodeURIComponent(name)}=${encodeURIComponent(present(chosen))}`);
  } else {
    const mentions = ({ placeholder }: Secret): boolean =>
      parameters.some((parameter) => isIt(parameter) && decoded(parameter).includes(placeholder));
    chosen = candidates.find(mentions);
    if (chosen === undefined) return undefined;
    const { placeholder } = chosen;
    const value = present(chosen);
    for (const [at, parameter] of parameters.entries()) {
      if (!isIt(parameter)) continue;
      const given = decoded(parameter.slice(parameter.indexOf("=") + 1));
      if (!given.includes(placeholder)) continue;
      parameters[at] = `${encodeURIComponent(name)}=${encodeURIComponent(given.replaceAll(placeholder, () => value))}`;
    }
  }
  request.path = `${path}?${parameters.join("&")}`;
  return chosen;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return text;
  }
}

function base64(text: string): string {
  return Buffer.from(text, "latin1").toString("base64");
}

function present({ name, value, missing }: Secret): string {
  if (value !== undefined) return value;
  throw new StacyError("unavailable", `the secret ${name} has no value: ${missing ?? "nobody has set it"}`, {
    remedy: `set it: stacyvm secret set ${name}`,
  });
}
