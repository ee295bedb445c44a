import { chmod, open, rm, stat, truncate } from "node:fs/promises";
import { join } from "node:path";

/** Turns one byte of a file into another one, in place, also where the file is read-only. */
export async function flip(path: string, at = 1200): Promise<void> {
  await chmod(path, 0o644);
  const file = await open(path, "r+");
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, at);
  buffer[0] = (buffer[0] ?? 0) ^ 0xff;
  await file.write(buffer, 0, 1, at);
  await file.close();
}

const [STATE, MEMORY] = ["vmstate.bin", "memory.bin"];
const cut = async (path: string, to: number | "one byte"): Promise<void> => {
  await chmod(path, 0o644);
  await truncate(path, to === "one byte" ? (await stat(path)).size - 1 : to);
};

/** How the files of a snapshot can be damaged so that Firecracker's load finds it: what was done to a directory, and what the error says. */
export const DAMAGES: readonly { name: string; damage(dir: string): Promise<void>; words: RegExp }[] = [
  { name: "state missing", damage: (dir) => rm(join(dir, STATE)), words: /vmstate\.bin is missing or empty/ },
  { name: "state empty", damage: (dir) => cut(join(dir, STATE), 0), words: /vmstate\.bin is missing or empty/ },
  { name: "state cut", damage: (dir) => cut(join(dir, STATE), 5_000), words: /vmstate\.bin is damaged/ },
  { name: "state flipped", damage: (dir) => flip(join(dir, STATE), 6_000), words: /vmstate\.bin is damaged/ },
  { name: "state of another version", damage: (dir) => flip(join(dir, STATE), 8), words: /vmstate\.bin/ },
  { name: "memory missing", damage: (dir) => rm(join(dir, MEMORY)), words: /memory\.bin cannot be opened/ },
  { name: "memory short", damage: (dir) => cut(join(dir, MEMORY), "one byte"), words: /memory\.bin is shorter/ },
  { name: "memory empty", damage: (dir) => cut(join(dir, MEMORY), 0), words: /memory\.bin is shorter/ },
];
