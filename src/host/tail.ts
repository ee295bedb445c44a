import { open } from "node:fs/promises";

/** The last `lines` lines of a text file, reading at most 64 KiB of it; empty when there is no such file, or it cannot be read. Never rejects. */
export async function tailLines(path: string, lines: number): Promise<string[]> {
  const file = await open(path, "r").catch(() => undefined);
  if (file === undefined) return [];
  try {
    const { size } = await file.stat();
    const length = Math.min(size, 65_536);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, size - length);
    const text = buffer.toString("utf8", 0, bytesRead).replaceAll("\r", "");
    return text
      .split("\n")
      .filter((line) => line !== "")
      .slice(-lines);
  } catch {
    return []; // its disk is broken: what it would have said is lost, and nothing else may be
  } finally {
    await file.close().catch(() => {});
  }
}
