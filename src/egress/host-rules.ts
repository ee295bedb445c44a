/**
 * Which hosts a sandbox may connect to, as a list of rules. A rule is a host, and after a colon a port:
 *
 *     pkg.example              ports 80 and 443 of that name
 *     *.pkgfiles.example    of every name below it, not of itself
 *     db.example.com:5432   that port alone
 *     db.example.com:5432-5439   these ports
 *     git.example.com:*     every port
 *     ntp.example:123/udp   datagrams to that port, which nothing else permits
 *     192.0.2.7, [2001:db8::7]:8080   an address; names that resolve to it are not meant
 *     192.0.2.0/24, [2001:db8::/32]:22   the addresses of a range
 *     *                     every host, but not the next one
 *     host.stacyvm:5432     a port of the server's own host, where the operator permits it
 *     @pypi                 the rules of a group (host-groups.ts)
 *     !bad.example, !10.0.0.0/8, !@github   not that, whatever else permits it; without a port on none, without /udp neither way
 *
 * A refused address is refused to names that resolve to it, too. What else a name may resolve to is another question, which
 * addresses.ts answers.
 */
import { BlockList, isIP, isIPv4, isIPv6 } from "node:net";
import { domainToASCII } from "node:url";
import { embeddedAddress } from "../host/addresses.ts";
import { StacyError } from "../host/error.ts";
import { ownValue } from "../host/own-value.ts";
import { BUILT_IN_GROUPS, type HostGroups } from "./host-groups.ts";

/** The server's own host, as programs of guests name it. Only a rule that names it means it. */
export const OWN_HOST = "host.stacyvm";

/** How a program speaks to a host. */
export type Protocol = "tcp" | "udp";

/** From and to, both included. */
type Ports = readonly (readonly [number, number])[];

/** What a rule without a port permits: HTTP and HTTPS. */
const WEB_PORTS: Ports = [
  [80, 80],
  [443, 443],
];
const MOST_PORT = 65_535;
/** Of one list, those of its groups too. Each is kept, and a connection is held against all of them. */
const MOST_RULES = 10_000;
const NAME = /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$/;

/** Which hosts a rule means, for comparing it with others. */
type Extent =
  | { kind: "any" }
  | { kind: "below" | "exact"; name: string }
  | { kind: "range"; address: string; bits: number; list: BlockList };

interface Rule {
  /** As it was given, with the group that it is of. */
  text: string;
  denies: boolean;
  /** @param host a name in its normalised form, or an address. @param inside of an IPv6 address the IPv4 one in it, for a refusal */
  means(host: string, inside?: string): boolean;
  extent: Extent;
  /** Absent: all. */
  ports?: Ports;
  /** Absent: any, of a refusal alone. */
  protocol?: Protocol;
}

/** @param rule the one that decided; absent: none permits it */
export type Verdict = { permitted: boolean; rule?: string };

/** Rules that name the server's own host. */
export function ofOwnHost(list: readonly string[]): string[] {
  return list.filter((rule) => normaliseHost(rule.trim().replace(/:[^:]*$/, "")) === OWN_HOST);
}

/**
 * The rules with the refusals of `within` behind them: a refusal is no rule to lie within, so what is limited has it too.
 * @param within absent: no limit
 */
export function withRefusals(rules: readonly string[], within: readonly string[] = []): string[] {
  if (rules.length === 0) return [];
  return [...rules, ...within.filter((rule) => rule.trim().startsWith("!") && !rules.includes(rule))];
}

export class HostRules {
  /** As they were given. */
  readonly list: readonly string[];
  readonly #allow: readonly Rule[];
  readonly #deny: readonly Rule[];

  /** @throws StacyError `invalid` naming the rule, or for too many */
  constructor(list: readonly string[], groups: HostGroups = BUILT_IN_GROUPS) {
    this.list = [...list];
    const rules: Rule[] = [];
    for (const text of list) {
      rules.push(...expand(text, groups));
      if (rules.length > MOST_RULES) throw tooMany();
    }
    this.#allow = rules.filter(({ denies }) => !denies);
    this.#deny = rules.filter(({ denies }) => denies);
  }

  /** Nothing is permitted. */
  get empty(): boolean {
    return this.#allow.length === 0;
  }

  /** @param host a name or an address, in any case */
  judge(host: string, port: number, protocol: Protocol = "tcp"): Verdict {
    const name = normaliseHost(host);
    const denied = find(this.#deny, name, port, protocol, embedded(name));
    if (denied !== undefined) return { permitted: false, rule: denied.text };
    const allowed = find(this.#allow, name, port, protocol);
    return allowed === undefined ? { permitted: false } : { permitted: true, rule: allowed.text };
  }

  permit(host: string, port: number, protocol: Protocol = "tcp"): boolean {
    return this.judge(host, port, protocol).permitted;
  }

  /** As `judge`, but of the host: some port of it may be reached, one way or the other. */
  judgeHost(host: string): Verdict {
    const name = normaliseHost(host);
    const inside = embedded(name);
    const denied = this.#deny.find((rule) => refusesAll(rule) && rule.means(name, inside));
    if (denied !== undefined) return { permitted: false, rule: denied.text };
    const allowed = this.#allow.find((rule) => rule.means(name));
    return allowed === undefined ? { permitted: false } : { permitted: true, rule: allowed.text };
  }

  /**
   * The first rule that permits more than `within` does. A rule must lie within a single one of those. Refusals there are no
   * rules to lie within: `withRefusals`.
   */
  beyond(within: HostRules): string | undefined {
    const covers = (outer: Rule, inner: Rule, ports: Ports): boolean =>
      outer.protocol === inner.protocol &&
      contains(outer.extent, inner.extent) &&
      (outer.ports === undefined || ports.every(([from, to]) => outer.ports?.some(([a, b]) => a <= from && to <= b)));
    const all: Ports = [[1, MOST_PORT]];
    return this.#allow.find((rule) =>
      (rule.ports ?? all).some((range) => !within.#allow.some((outer) => covers(outer, rule, [range]))),
    )?.text;
  }

  /** The rule that refuses an address which some name resolves to. @param port absent: whatever the port */
  refusal(address: string, port?: number, protocol: Protocol = "tcp"): string | undefined {
    const refuses = (rule: Rule): boolean => (port === undefined ? refusesAll(rule) : applies(rule, port, protocol));
    const inside = embedded(address);
    return this.#deny.find((rule) => rule.extent.kind === "range" && refuses(rule) && rule.means(address, inside))
      ?.text;
  }
}

function find(
  rules: readonly Rule[],
  name: string,
  port: number,
  protocol: Protocol,
  inside?: string,
): Rule | undefined {
  return rules.find((rule) => applies(rule, port, protocol) && rule.means(name, inside));
}

function embedded(host: string): string | undefined {
  return isIPv6(host) ? embeddedAddress(host) : undefined;
}

function applies({ ports, protocol: of }: Rule, port: number, protocol: Protocol): boolean {
  if (of !== undefined && of !== protocol) return false;
  return ports?.some(([from, to]) => port >= from && port <= to) ?? true;
}

function refusesAll({ ports, protocol }: Rule): boolean {
  return ports === undefined && protocol === undefined;
}

/** Lower case, ASCII form of a name, no final dot; an address in its shortest form. Nonsense stays what it is. */
export function normaliseHost(host: string): string {
  const bare = host.replace(/^\[(.*)\]$/, "$1");
  if (isIPv6(bare)) return new URL(`http://[${bare.split("%")[0]}]`).hostname.slice(1, -1);
  const name = bare.replace(/\.$/, "").toLowerCase();
  // The conversion is the URL parser's, which would cut off what looks like a path or a port.
  return isIP(name) || /[\0-,/:-@[-`{-\x7f]/.test(name) ? name : domainToASCII(name) || name;
}

/** A group's rules, or the one that is written. */
function expand(text: string, groups: HostGroups): Rule[] {
  const trimmed = text.trim();
  const denies = trimmed.startsWith("!");
  const rest = denies ? trimmed.slice(1) : trimmed;
  if (!rest.startsWith("@")) return [parse(rest, denies, trimmed)];
  const name = rest.slice(1);
  const group = ownValue(groups, name);
  if (group === undefined) {
    throw wrong(text, "there is no such group", `the groups are ${names(groups)}; more in \`network.groups\``);
  }
  return group.map((entry) => parse(entry, denies, `${trimmed} (${entry})`));
}

function names(groups: HostGroups): string {
  return Object.keys(groups)
    .map((name) => `@${name}`)
    .join(", ");
}

function parse(text: string, denies: boolean, label: string): Rule {
  const { host, port: written } = split(text);
  const datagrams = written?.endsWith("/udp") === true;
  const port = datagrams ? written?.slice(0, -"/udp".length) : written;
  const ports = port === undefined ? (denies ? undefined : WEB_PORTS) : parsePorts(text, port);
  const rest = {
    ...{ text: label, denies },
    ...(ports === undefined ? {} : { ports }),
    ...(datagrams ? { protocol: "udp" as const } : denies ? {} : { protocol: "tcp" as const }),
  };
  if (host === "*") return { ...rest, extent: { kind: "any" }, means: (each) => denies || each !== OWN_HOST };
  const range = addressRange(host);
  if (range !== undefined) {
    return {
      ...rest,
      extent: { kind: "range", ...range },
      means: (name, inside) =>
        (isIP(name) !== 0 && inRange(range.list, name)) || (inside !== undefined && inRange(range.list, inside)),
    };
  }
  const below = host.startsWith("*.");
  const name = normaliseHost(below ? host.slice(2) : host);
  if (!NAME.test(name) || isIP(name) !== 0) throw wrong(text, "it is neither a name nor an address");
  const isBelow = (each: string): boolean => each.endsWith(`.${name}`) && (denies || each !== OWN_HOST);
  const means = below ? isBelow : (each: string) => each === name;
  return { ...rest, extent: { kind: below ? "below" : "exact", name }, means };
}

function inRange(list: BlockList, address: string): boolean {
  return list.check(address, isIPv4(address) ? "ipv4" : "ipv6");
}

function contains(outer: Extent, inner: Extent): boolean {
  if (outer.kind === "any") return !(inner.kind === "exact" && inner.name === OWN_HOST);
  if (outer.kind === "range") {
    // Of an address in IPv6 clothes the bits are others.
    const comparable = inner.kind === "range" && isIPv4(inner.address) === isIPv4(outer.address);
    return comparable && outer.bits <= inner.bits && inRange(outer.list, inner.address);
  }
  if (inner.kind !== "below" && inner.kind !== "exact") return false;
  if (outer.kind === "exact") return inner.kind === "exact" && inner.name === outer.name;
  return inner.name.endsWith(`.${outer.name}`) || (inner.kind === "below" && inner.name === outer.name);
}

function parsePorts(text: string, port: string): Ports | undefined {
  if (port === "*") return undefined;
  const [, from, to = from] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(port) ?? [];
  const range = [Number(from), Number(to)] as const;
  if (!(range[0] >= 1 && range[0] <= range[1] && range[1] <= MOST_PORT)) throw wrong(text, `${port} is no port`);
  return [range];
}

/** An address is a range of one. IPv4 ranges mean such addresses in IPv6 clothes, too. */
function addressRange(host: string): { address: string; bits: number; list: BlockList } | undefined {
  const [address = "", bits, ...more] = host.split("/");
  const family = isIP(address);
  if (family === 0 || more.length > 0) return undefined;
  const most = family === 4 ? 32 : 128;
  const length = bits === undefined ? most : /^\d{1,3}$/.test(bits) ? Number(bits) : -1;
  if (length < 0 || length > most) return undefined;
  const list = new BlockList();
  list.addSubnet(address, length, family === 4 ? "ipv4" : "ipv6");
  return { address, bits: length, list };
}

/** An IPv6 address has colons of its own, so with a port it stands in brackets. */
function split(text: string): { host: string; port: string | undefined } {
  const [, inside, after] = /^\[([^\]]*)\](?::(.*))?$/.exec(text) ?? [];
  if (inside !== undefined) return { host: inside, port: after };
  const at = text.lastIndexOf(":");
  if (at < 0 || isIPv6(text.split("/")[0] ?? "")) return { host: text, port: undefined };
  return { host: text.slice(0, at), port: text.slice(at + 1) };
}

function tooMany(): StacyError {
  return new StacyError("invalid", `a list of more than ${MOST_RULES} hosts, those of its groups among them`, {
    remedy: "name ranges, or names with a wildcard, in place of single hosts",
  });
}

function wrong(text: string, why: string, remedy?: string): StacyError {
  return new StacyError("invalid", `${JSON.stringify(text.slice(0, 300))} names no host to allow: ${why}`, {
    remedy:
      remedy ??
      "write a host such as example.com, *.example.com, example.com:8080, ntp.example:123/udp, 10.1.0.0/16:5432, @pypi or *",
  });
}
