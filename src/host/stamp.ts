/** Files by what the kernel says of them: whether they are still those that were read. */
import { type BigIntStats, statSync } from "node:fs";

/** Inode, size and modification time of files in one line. Not the change time: a jail's hard links touch that. */
export async function stampOf(paths: readonly string[]): Promise<string> {
  return textOf(look(paths));
}

/** What was read of files, read anew when one of them is another one. */
export class Stamped<T> {
  readonly #read: () => Promise<{ value: T; paths: readonly string[]; keep?: boolean }>;
  #known: Promise<{ value: T; paths: readonly string[]; stamp: string | undefined }> | undefined;

  /** @param read also says from which files the value comes, which need not be there, and with `keep: false` that it is for this once */
  constructor(read: () => Promise<{ value: T; paths: readonly string[]; keep?: boolean }>) {
    this.#read = read;
  }

  async get(): Promise<T> {
    const before = this.#known;
    const known = await before?.catch(() => undefined);
    if (known?.stamp !== undefined && textOf(lookWhereThere(known.paths)) === known.stamp) return known.value;
    // Whoever else has found out the same meanwhile reads already.
    if (this.#known === before) this.#known = this.#again();
    return (await (this.#known as NonNullable<typeof before>)).value;
  }

  async #again(): Promise<{ value: T; paths: readonly string[]; stamp: string | undefined }> {
    const began = BigInt(Date.now()) * 1_000_000n;
    const { value, paths, keep = true } = await this.#read();
    const stats = lookWhereThere(paths);
    // One that was replaced while it was read may be another one than its stamp says.
    const settled = stats.every((s) => s === undefined || s.ctimeNs < began);
    return { value, paths, stamp: keep && settled ? textOf(stats) : undefined };
  }
}

/** A spawn waits for this: the kernel answers in microseconds, where a thread's turn takes a tenth of a millisecond and more. */
function look(paths: readonly string[]): BigIntStats[] {
  return paths.map((path) => statSync(path, { bigint: true }));
}

function lookWhereThere(paths: readonly string[]): (BigIntStats | undefined)[] {
  return paths.map((path) => {
    try {
      return statSync(path, { bigint: true });
    } catch {
      return undefined;
    }
  });
}

function textOf(stats: readonly (BigIntStats | undefined)[]): string {
  return stats.map((s) => (s === undefined ? "none" : `${s.dev}:${s.ino}:${s.size}:${s.mtimeNs}`)).join(" ");
}
