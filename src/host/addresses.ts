/**
 * Which addresses may be connected to, whatever name led there. A name is under the control of whoever owns it, so one that is allowed
 * may resolve to a machine that only the host can reach. Everything that is not a public address is refused, and so is
 * the host itself, unless the operator has opened it.
 */
import { BlockList, isIP, isIPv4 } from "node:net";
import { networkInterfaces } from "node:os";
import { StacyError } from "./error.ts";

/**
 * Private, shared, loopback, link-local, multicast and reserved addresses (IANA's special-purpose registries). The ranges
 * for documentation are not among them: nobody's machine has such an address unless somebody gave it that on purpose.
 */
const SPECIAL = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "168.63.129.16/32", // Azure's own services, its metadata among them
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.88.99.0/24", // 6to4 relays, withdrawn
  "192.168.0.0/16",
  "198.18.0.0/15",
  "224.0.0.0/4",
  "240.0.0.0/4",
  "::/128",
  "::1/128",
  "64:ff9b:1::/48",
  "100::/64",
  "100:0:0:1::/64",
  "2001:2::/48",
  "5f00::/16", // segment routing
  "fc00::/7",
  "fe80::/10",
  "fec0::/10",
  "ff00::/8",
];

/** IPv4 addresses in IPv6 clothes: what counts is the address inside, the last 32 bits. */
const WRAPPED = blockList(["::ffff:0:0/96", "::ffff:0:0:0/96", "::/96", "64:ff9b::/96"]);
/** 6to4 and Teredo have it elsewhere, and nobody needs them. */
const TUNNELLED = blockList(["2002::/16", "2001::/32"]);
/** ISATAP has it behind this, in any prefix (RFC 5214, 6.1). */
const ISATAP = /^(?:0|200):5efe$/;
const special = blockList(SPECIAL);

export class Addresses {
  readonly #opened: BlockList;
  readonly #own: () => ReadonlySet<string>;

  /**
   * @param opened addresses and ranges (`10.1.0.0/16`) that may be connected to although they are not public
   * @param own the host's own addresses
   * @throws StacyError `invalid` naming the entry
   */
  constructor(opened: readonly string[] = [], own: () => ReadonlySet<string> = hostAddresses) {
    this.#opened = blockList(opened);
    this.#own = own;
  }

  permit(address: string): boolean {
    const inside = embeddedAddress(address);
    // Behind a prefix it is an address of its own too.
    if (inside !== undefined && !has(WRAPPED, address) && has(special, address)) return has(this.#opened, address);
    if (has(this.#opened, address) || (inside !== undefined && has(this.#opened, inside))) return true;
    if (inside !== undefined) return !has(special, inside) && !this.#own().has(inside);
    return !has(special, address) && !has(TUNNELLED, address) && !this.#own().has(address);
  }
}

/** The IPv4 address inside an IPv6 one, which a translator on the way (NAT64, say) may connect to. */
export function embeddedAddress(address: string): string | undefined {
  if (isIPv4(address)) return undefined;
  // The URL parser writes every form in hex groups, dotted ones too.
  const groups = new URL(`http://[${address.split("%")[0]}]`).hostname.slice(1, -1).split(":");
  const isatap = ISATAP.test(
    groups
      .slice(-4, -2)
      .map((group) => group || "0")
      .join(":"),
  );
  if (!isatap && !has(WRAPPED, address)) return undefined;
  const [high = 0, low = 0] = groups.slice(-2).map((group) => Number.parseInt(group || "0", 16));
  return [high >> 8, high & 255, low >> 8, low & 255].join(".");
}

function has(list: BlockList, address: string): boolean {
  return list.check(address, isIPv4(address) ? "ipv4" : "ipv6");
}

/** @throws StacyError `invalid` */
function blockList(entries: readonly string[]): BlockList {
  const list = new BlockList();
  for (const entry of entries) {
    const [address = "", bits] = entry.split("/");
    const family = isIP(address);
    const most = family === 4 ? 32 : 128;
    const length = bits === undefined ? most : /^\d{1,3}$/.test(bits) ? Number(bits) : -1;
    if (family === 0 || length < 0 || length > most) {
      throw new StacyError("invalid", `${JSON.stringify(entry)} is not an address or a range of addresses`, {
        remedy: "write it as 10.1.2.3 or 10.1.0.0/16",
      });
    }
    list.addSubnet(address, length, family === 4 ? "ipv4" : "ipv6");
  }
  return list;
}

function hostAddresses(): ReadonlySet<string> {
  return new Set(
    Object.values(networkInterfaces()).flatMap((list) =>
      (list ?? []).map(({ address }) => address.split("%")[0] ?? ""),
    ),
  );
}
