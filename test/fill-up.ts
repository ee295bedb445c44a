/** Makes a disk full for real. */
import { open } from "node:fs/promises";

/** Makes a file of all the room that there is. @param but so many bytes, which stay free */
export async function fillUp(filler: string, but = 0): Promise<void> {
  await using file = await open(filler, "a");
  for (const size of [1 << 20, 4096]) {
    for (;;) {
      const failed = await file.write(Buffer.alloc(size)).then(
        ({ bytesWritten }) => bytesWritten < size,
        () => true,
      );
      if (failed) break;
    }
  }
  if (but > 0) await file.truncate((await file.stat()).size - but);
}
