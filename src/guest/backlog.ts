/**
 * Bytes of several channels that wait for their consumer, in order. Credit bounds their number, not that of the frames they come in, and
 * a frame of one byte would cost hundreds in objects. So what waits is copied together, and each run of one channel is one number.
 */

const SLAB_BYTES = 64 * 1024;
/** A larger piece is kept as it is: it is most of the buffer that it came in. */
const KEPT_BYTES = SLAB_BYTES / 2;
const CHANNELS = 4;

export class Backlog {
  /** Bytes in order. */
  #slabs: Buffer[] = [];
  /** Used bytes of the last slab; the others are full. */
  #used = 0;
  /** Of the first slab, taken already. */
  #taken = 0;
  /** `length * CHANNELS + channel` each. */
  #runs: number[] = [];
  #first = 0;
  #bytes = 0;

  /** Bytes that wait. */
  get length(): number {
    return this.#bytes;
  }

  push(channel: number, data: Buffer): void {
    if (data.length === 0) return;
    const last = this.#runs.length - 1;
    if (last >= this.#first && (this.#runs[last] as number) % CHANNELS === channel) {
      (this.#runs[last] as number) += data.length * CHANNELS;
    } else this.#runs.push(data.length * CHANNELS + channel);
    this.#append(data);
    this.#bytes += data.length;
  }

  #append(data: Buffer): void {
    const last = this.#slabs.at(-1);
    if (last === undefined || data.length > KEPT_BYTES) {
      if (last !== undefined) this.#slabs[this.#slabs.length - 1] = last.subarray(0, this.#used);
      // Mostly nothing waits, and the copy is exact.
      this.#slabs.push(data.length > KEPT_BYTES ? data : Buffer.from(data));
      this.#used = data.length;
      return;
    }
    const copied = data.copy(last, this.#used);
    this.#used += copied;
    if (copied === data.length) return;
    const slab = Buffer.allocUnsafe(SLAB_BYTES);
    this.#slabs.push(slab);
    this.#used = data.copy(slab, 0, copied);
  }

  /** The next piece of one channel. */
  shift(): { channel: number; data: Buffer } | undefined {
    const run = this.#runs[this.#first];
    const slab = this.#slabs[0];
    if (run === undefined || slab === undefined) return undefined;
    const channel = run % CHANNELS;
    const alone = this.#slabs.length === 1;
    const end = alone ? this.#used : slab.length;
    const size = Math.min((run - channel) / CHANNELS, end - this.#taken);
    const data = slab.subarray(this.#taken, this.#taken + size);
    this.#taken += size;
    if (this.#taken === end) {
      this.#slabs.shift();
      this.#taken = 0;
    }
    if (run - channel === size * CHANNELS) this.#first += 1;
    else this.#runs[this.#first] = run - size * CHANNELS;
    if (this.#first > 1024 && this.#first * 2 > this.#runs.length) {
      this.#runs = this.#runs.slice(this.#first);
      this.#first = 0;
    }
    if (this.#first === this.#runs.length) {
      this.#runs = [];
      this.#first = 0;
    }
    this.#bytes -= size;
    return { channel, data };
  }

  /** Everything that waits, of whichever channel, as one piece. */
  join(): Buffer {
    const last = this.#slabs.length - 1;
    const all = Buffer.concat(this.#slabs.map((slab, at) => (at === last ? slab.subarray(0, this.#used) : slab)));
    const joined = all.subarray(this.#taken);
    this.clear();
    return joined;
  }

  /** Drops everything. @returns how many bytes that were */
  clear(): number {
    const bytes = this.#bytes;
    this.#slabs = [];
    this.#runs = [];
    this.#used = this.#taken = this.#first = this.#bytes = 0;
    return bytes;
  }
}
