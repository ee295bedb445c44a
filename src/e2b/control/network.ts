/** What a sandbox may reach, as E2B's clients say it: names, addresses and ranges; ours are rules (egress/host-rules.ts). */
import { isIP, isIPv6 } from "node:net";
import { notThere } from "../error.ts";
import type { NetworkWish } from "./bodies.ts";

/**
 * @param byDefault what a sandbox may reach of which nothing is said
 * @returns rules; absent: nothing is said
 * @throws E2bError for what is not there
 */
export function hostsOf(network: NetworkWish, byDefault: readonly string[]): string[] | undefined {
  if (network.egressProxy != null) throw notThere("a proxy of one's own for what goes out");
  if (network.rules != null && Object.keys(network.rules).length > 0) throw notThere("rules that change requests");
  if (network.allow_internet_access === false) return [];
  const { allowOut = [], denyOut = [] } = network;
  const refused = denyOut.filter((host) => !isEverything(host)).map((host) => `!${withoutPorts(host)}`);
  if (allowOut.length > 0) {
    // What is named is permitted, also inside of what is refused; beside everything a refusal is one.
    return [...allowOut.map(permission), ...(allowOut.some(isEverything) ? refused : [])];
  }
  if (denyOut.length === 0) return undefined;
  if (denyOut.some(isEverything) || byDefault.length === 0) return [];
  return [...byDefault, ...refused];
}

/** The rules as they are said there: what no rule permits is refused, which has a word of its own. */
export function networkOf(rules: readonly string[]): { allowOut: string[]; denyOut: string[] } {
  const bare = (rule: string): string => {
    if (rule === "*") return EVERYTHING;
    const host = rule.endsWith(":*") ? rule.slice(0, -":*".length).replace(/^\[(.*)\]$/, "$1") : rule;
    return isAddresses(host) ? host : rule;
  };
  return {
    allowOut: rules.filter((rule) => !rule.startsWith("!")).map(bare),
    denyOut: [
      ...rules.filter((rule) => rule.startsWith("!")).map((rule) => bare(rule.slice(1)).replace(/^\[(.*)\]$/, "$1")),
      ...(rules.includes("*") ? [] : [EVERYTHING]),
    ],
  };
}

const EVERYTHING = "0.0.0.0/0";

function isEverything(host: string): boolean {
  return host === EVERYTHING || host === "::/0";
}

function isAddresses(host: string): boolean {
  return isIP(host.split("/")[0] ?? "") !== 0;
}

/** A name means the web there as here; an address all of its ports. */
function permission(host: string): string {
  if (isEverything(host)) return "*";
  return isAddresses(host) ? `${withoutPorts(host)}:*` : host;
}

function withoutPorts(host: string): string {
  return isIPv6(host.split("/")[0] ?? "") ? `[${host}]` : host;
}
