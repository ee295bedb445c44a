import { chmod, open } from "node:fs/promises";

/** Turns one byte of a file into another one, in place, also where the file is read-only. */
export async function flip(path: string, at = 1200): Promise<void> {
  await chmod(path, 0o644);
  const file = await open(path, "r+");
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, at);
  buffer[0] = (buffer[0] ?? 0) ^ 0xff;
  await file.write(buffer, 0, 1, at);
  await file.close();
}
