/**
 * The list of sandboxes as JSON. It is asked for again and again (consoles, `ls`, `top`) and hardly changes, so what was written of a
 * record is kept with it, and serves as long as the record says the same. Its parts are replaced when they change, never altered.
 */
import type { SandboxRecord } from "../sandboxes/record.ts";

export class SandboxList {
  readonly #write: (record: SandboxRecord) => unknown;
  readonly #kept = new WeakMap<SandboxRecord, { of: SandboxRecord; text: string }>();

  /** @param write the body of one */
  constructor(write: (record: SandboxRecord) => unknown) {
    this.#write = write;
  }

  /** A JSON array with a newline at its end. */
  text(records: SandboxRecord[]): string {
    return `[${records.map((record) => this.#text(record)).join(",")}]\n`;
  }

  #text(record: SandboxRecord): string {
    const kept = this.#kept.get(record);
    if (kept !== undefined && same(kept.of, record)) return kept.text;
    const text = JSON.stringify(this.#write(record));
    this.#kept.set(record, { of: { ...record }, text });
    return text;
  }
}

function same(before: object, now: object): boolean {
  return isPartOf(before, now) && isPartOf(now, before);
}

function isPartOf(one: object, other: object): boolean {
  for (const key in one) if (one[key as never] !== other[key as never]) return false;
  return true;
}
