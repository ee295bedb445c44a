/**
 * Names to addresses, by /etc/hosts and the host's DNS servers. Not by the C library's resolver: that takes one of our few
 * threads for as long as a server takes to answer, and which server that is, whoever owns the name decides; file
 * operations of every other sandbox would wait for it.
 */
import { Resolver } from "node:dns/promises";
import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import { StacyError } from "../host/error.ts";
import { normaliseHost } from "./host-rules.ts";

const TIMEOUT_MS = 5_000;
const TRIES = 2;

/** At least one address of a name, in its normalised form. @throws StacyError `not-found` */
export type Resolve = (name: string) => Promise<string[]>;

/**
 * Names of the operator first, then the host's.
 * @param fixed addresses by name
 * @throws StacyError `invalid` naming the entry
 */
export function resolverOf(fixed: Readonly<Record<string, string>>): Resolve {
  const known = new Map<string, string>();
  for (const [name, address] of Object.entries(fixed)) {
    if (isIP(address) === 0) {
      throw new StacyError("invalid", `network.names: ${JSON.stringify(address)}, for ${name}, is not an address`, {
        remedy: "write it as db.lan: 10.1.2.3",
      });
    }
    known.set(normaliseHost(name), address);
  }
  return async (name) => {
    const address = known.get(name);
    return address === undefined ? resolveHost(name) : [address];
  };
}

/** At least one address; IPv4 first. @throws StacyError `not-found` */
export async function resolveHost(name: string, hostsFile = "/etc/hosts"): Promise<string[]> {
  if (isIP(name) !== 0) return [name];
  const local = fromHosts(await readFile(hostsFile, "utf8").catch(() => ""), name);
  if (local.length > 0) return local;
  // Made anew each time: it reads which servers there are, and that changes while we run.
  const resolver = new Resolver({ timeout: TIMEOUT_MS, tries: TRIES });
  const answers = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
  const found = answers.flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
  if (found.length > 0) return found;
  const [first] = answers;
  const cause = first.status === "rejected" ? (first.reason as Error) : undefined;
  throw new StacyError("not-found", `the host's DNS servers do not know ${name}`, { cause });
}

/** `address name alias ...`, a line each; `#` begins a comment. */
function fromHosts(text: string, name: string): string[] {
  const found: string[] = [];
  for (const line of text.split("\n")) {
    const [address = "", ...names] = (line.split("#")[0] ?? "").trim().split(/\s+/);
    if (isIP(address) !== 0 && names.some((each) => normaliseHost(each) === name)) found.push(address);
  }
  return found;
}
