/** What we were started with: Node damages arguments that are not UTF-8, and the kernel keeps them. */
import { readFile } from "node:fs/promises";
import { nameText } from "../host/byte-name.ts";

/** As `process.argv`; names of any bytes as byte-name.ts has them. */
export async function ownArguments(): Promise<string[]> {
  if (!process.argv.some((argument) => argument.includes("\ufffd"))) return process.argv;
  const line = await readFile("/proc/self/cmdline").catch(() => undefined);
  if (line === undefined) return process.argv;
  const all: string[] = [];
  for (let at = 0; at < line.length; ) {
    const end = line.indexOf(0, at);
    all.push(nameText(line.subarray(at, end < 0 ? line.length : end)));
    at = end < 0 ? line.length : end + 1;
  }
  // Node's own options stand before ours.
  const given = process.argv.length - 2;
  return [...process.argv.slice(0, 2), ...all.slice(all.length - given)];
}
