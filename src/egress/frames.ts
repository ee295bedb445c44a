/** Pieces of a byte stream that each begin with a header which tells the length of what follows it. */
export async function* frames(
  channel: AsyncIterable<Buffer>,
  headerBytes: number,
  lengthOf: (header: Buffer) => number,
): AsyncGenerator<Buffer> {
  let held: Buffer = Buffer.alloc(0);
  for await (const part of channel) {
    held = held.length === 0 ? part : Buffer.concat([held, part]);
    while (held.length >= headerBytes) {
      const end = headerBytes + lengthOf(held);
      if (held.length < end) break;
      yield held.subarray(0, end);
      held = held.subarray(end);
    }
  }
}
