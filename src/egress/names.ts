/**
 * Names as addresses: one that a program of a sandbox asks for gets an address of its own there, so a connection to that address is
 * judged by the name. The addresses are of the ranges for benchmarks (RFC 2544, RFC 5180), which nobody routes. A name's address comes from its
 * hash: after a restart of the daemon, and in a fork, the same name has the same address again.
 */
import { createHash } from "node:crypto";

/** 198.18.0.0/16, without the first and the last. */
const FIRST = (198 << 24) | (18 << 16);
const SIZE = 65_536;
/** What is before the same number in IPv6. */
const SIX = "2001:2::";
/** Names of one sandbox; a program that asks for more loses those that it asked for longest ago. */
const MOST = 16_384;

export class Names {
  /** Offsets in the range, the one asked for longest ago first. */
  readonly #names = new Map<number, string>();
  readonly #offsets = new Map<string, number>();

  /** The address that stands for this name, in its normalised form, here. */
  address(name: string, family: 4 | 6 = 4): string {
    const offset = this.#offset(name);
    return family === 4 ? written(offset) : `${SIX}${offset.toString(16)}`;
  }

  /** The name that an address stands for, in its shortest form; `undefined` when it stands for none. */
  name(address: string): string | undefined {
    if (address.startsWith(SIX)) {
      const last = address.slice(SIX.length);
      return /^[0-9a-f]{1,4}$/.test(last) ? this.#names.get(Number.parseInt(last, 16)) : undefined;
    }
    const bytes = address.split(".").map(Number);
    if (bytes.length !== 4 || bytes[0] !== 198 || bytes[1] !== 18) return undefined;
    return this.#names.get(((bytes[2] ?? 0) << 8) | (bytes[3] ?? 0));
  }

  #offset(name: string): number {
    const known = this.#offsets.get(name);
    const offset = known ?? this.#place(name);
    this.#names.delete(offset);
    this.#names.set(offset, name);
    return offset;
  }

  #place(name: string): number {
    if (this.#names.size >= MOST) {
      const [oldest] = this.#names;
      if (oldest !== undefined) {
        this.#names.delete(oldest[0]);
        this.#offsets.delete(oldest[1]);
      }
    }
    let offset = createHash("sha256").update(name).digest().readUInt16BE();
    // At most a quarter of the range is taken, so a free one is near.
    while (offset === 0 || offset === SIZE - 1 || this.#names.has(offset)) offset = (offset + 1) % SIZE;
    this.#offsets.set(name, offset);
    return offset;
  }
}

function written(offset: number): string {
  const address = FIRST + offset;
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}
