import { createReadStream } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

/** Files of machines and snapshots below `root` that have one of these texts in them. */
export async function lookFor(root: string, texts: string[]): Promise<{ path: string; text: string }[]> {
  const found: { path: string; text: string }[] = [];
  const all = await readdir(root, { recursive: true, withFileTypes: true });
  const files = all.filter((entry) => entry.isFile() && !/images|assets|kernel/.test(entry.parentPath));
  const most = Math.max(...texts.map((text) => text.length));
  for (const entry of files) {
    const path = join(entry.parentPath, entry.name);
    let rest = Buffer.alloc(0);
    for await (const part of createReadStream(path, { highWaterMark: 1 << 22 })) {
      const piece = Buffer.concat([rest, part as Buffer]);
      for (const text of texts) {
        if (piece.includes(text) && !found.some((each) => each.path === path && each.text === text))
          found.push({ path, text });
      }
      rest = piece.subarray(-most);
    }
  }
  return found;
}
