/**
 * Which hosts a sandbox may connect to, as a list of rules. A rule is a host, and after a colon a port:
 *
 *     pkg.example              ports 80 and 443 of that name
 *     *.pkgfiles.example    of every name below it, not of itself
 *     db.example.com:5432   that port alone
 *     git.example.com:*     every port
 *     192.0.2.7, [2001:db8::7]:8080   an address; names that resolve to it are not meant
 *     *                     every host
 *
 * What a name resolves to is another question, which addresses.ts answers.
 */
import { isIP, isIPv6 } from "node:net";
import { domainToASCII } from "node:url";
import { StacyError } from "../host/error.ts";

/** What a rule without a port means: HTTP and HTTPS. */
const WEB_PORTS = [80, 443];
const NAME = /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$/;

interface Rule {
  /** Compared after the same normalisation as hosts are. */
  host: string;
  /** `below`: names that end in `.host`. */
  kind: "exact" | "below" | "any";
  /** Absent: all. */
  ports?: readonly number[];
}

export class HostRules {
  /** As they were given. */
  readonly list: readonly string[];
  readonly #rules: readonly Rule[];

  /** @throws StacyError `invalid` naming the rule */
  constructor(list: readonly string[]) {
    this.list = [...list];
    this.#rules = list.map(parse);
  }

  get empty(): boolean {
    return this.#rules.length === 0;
  }

  /** @param host a name or an address, in any case */
  permit(host: string, port: number): boolean {
    const name = normaliseHost(host);
    return this.#rules.some((rule) => (rule.ports?.includes(port) ?? true) && means(rule, name));
  }

  /** Some port of it may be connected to. */
  permitHost(host: string): boolean {
    const name = normaliseHost(host);
    return this.#rules.some((rule) => means(rule, name));
  }
}

function means(rule: Rule, name: string): boolean {
  if (rule.kind === "any") return true;
  return rule.kind === "exact" ? name === rule.host : name.endsWith(`.${rule.host}`);
}

/** Lower case, ASCII form of a name, no final dot; an address in its shortest form. Nonsense stays what it is. */
export function normaliseHost(host: string): string {
  const bare = host.replace(/^\[(.*)\]$/, "$1");
  if (isIPv6(bare)) return new URL(`http://[${bare}]`).hostname.slice(1, -1);
  const name = bare.replace(/\.$/, "").toLowerCase();
  // The conversion is the URL parser's, which would cut off what looks like a path or a port.
  return isIP(name) || /[\0-,/:-@[-`{-\x7f]/.test(name) ? name : domainToASCII(name) || name;
}

function parse(text: string): Rule {
  const wrong = (why: string): StacyError =>
    new StacyError("invalid", `${JSON.stringify(text.slice(0, 300))} names no host to allow: ${why}`, {
      remedy: "write a host such as example.com, *.example.com, example.com:8080 or *",
    });
  const { host, port } = split(text.trim());
  const ports = port === undefined ? WEB_PORTS : port === "*" ? undefined : [Number(port)];
  if (ports?.some((each) => !Number.isInteger(each) || each < 1 || each > 65_535)) {
    throw wrong(`${port} is no port`);
  }
  const rest = ports === undefined ? {} : { ports };
  if (host === "*") return { host, kind: "any", ...rest };
  const below = host.startsWith("*.");
  const name = normaliseHost(below ? host.slice(2) : host);
  if (below ? isIP(name) !== 0 || !NAME.test(name) : isIP(name) === 0 && !NAME.test(name)) {
    throw wrong("it is neither a name nor an address");
  }
  return { host: name, kind: below ? "below" : "exact", ...rest };
}

/** An IPv6 address has colons of its own, so with a port it stands in brackets. */
function split(text: string): { host: string; port: string | undefined } {
  if (isIPv6(text)) return { host: text, port: undefined };
  const at = text.lastIndexOf(":");
  if (at < 0 || text.endsWith("]")) return { host: text, port: undefined };
  return { host: text.slice(0, at), port: text.slice(at + 1) };
}
