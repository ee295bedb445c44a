/** Where the filesystem has given a file room, by `filefrag` (of e2fsprogs, which makes our disks); Node cannot ask it. */
import { type ChildProcess, spawn } from "node:child_process";
import { DISK_BOUNDS } from "./bounds.ts";
import { append, BLOCK, type Extent } from "./extents.ts";

const LIMIT_MS = 600_000;

/**
 * Ranges outside of which the file has no data, ascending, and found no faster than they are taken: a guest may have made any number of
 * them. Small holes are in them too, and all of which the filesystem does not tell (tmpfs tells nothing).
 * @param size the file's, bytes
 */
export async function* allocatedRanges(path: string, size: number): AsyncGenerator<Extent> {
  const child = start(path);
  const ended = new Promise<boolean>((resolve) => {
    child?.once("error", () => resolve(false));
    child?.once("close", (code) => resolve(code === 0));
    if (child === undefined) resolve(false);
  });
  const ranges: Extent[] = [];
  let unit = 0;
  let told = 0;
  let rest = "";
  try {
    for await (const chunk of child?.stdout?.setEncoding("latin1") ?? []) {
      const lines: string[] = (rest + chunk).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (unit === 0) unit = Number(/blocks? of (\d+) bytes/.exec(line)?.[1] ?? 0);
        const [, first, last] = /^\s*\d+:\s*(\d+)\.\.\s*(\d+):/.exec(line) ?? [];
        if (unit === 0 || unit % BLOCK !== 0 || first === undefined) continue;
        const start = Number(first) * unit;
        told = Math.min(size, (Number(last) + 1) * unit);
        if (told > start) append(ranges, start, told - start, DISK_BOUNDS.holeBytes);
        if (ranges.length > 1) yield ranges.shift() as Extent;
      }
    }
    const all = (await ended) && unit !== 0 && unit % BLOCK === 0;
    if (!all && told < size) append(ranges, told, size - told, DISK_BOUNDS.holeBytes);
    yield* ranges;
  } finally {
    child?.kill("SIGKILL");
  }
}

/** @returns without an output, or nothing at all, where there is no room for one more process */
function start(path: string): ChildProcess | undefined {
  try {
    // -s writes delayed data out first: until then it has no place.
    return spawn("filefrag", ["-s", "-v", path], {
      stdio: ["ignore", "pipe", "ignore"],
      timeout: LIMIT_MS,
      killSignal: "SIGKILL",
    });
  } catch {
    return undefined;
  }
}
