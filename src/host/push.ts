import type { Writable } from "node:stream";

/** Writes, and waits until the stream takes more. Resolves `false` when it is closed, before or meanwhile. */
export async function push(stream: Writable, data: Uint8Array): Promise<boolean> {
  if (stream.destroyed || stream.writableEnded) return false;
  if (stream.write(data)) return true;
  await new Promise<void>((resolve) => {
    const done = (): void => {
      stream.off("drain", done);
      stream.off("close", done);
      resolve();
    };
    stream.on("drain", done);
    stream.on("close", done);
  });
  return !stream.destroyed;
}
