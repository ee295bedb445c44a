/** Sorting what came from outside: in steps, because very many texts at once take as long as a hundred requests. */
import { Pace } from "./turns.ts";

const STEP = 1024;
/** Texts that are merged between two looks at the time. */
const LOOK = 512;

/** By UTF-16 units, as `sort()` does. */
export async function sortedInTurns(texts: readonly string[], pace = new Pace()): Promise<string[]> {
  let runs: string[][] = [];
  for (let at = 0; at < texts.length; at += STEP) {
    runs.push(texts.slice(at, at + STEP).sort());
    if (pace.over) await pace.rest();
  }
  while (runs.length > 1) {
    const merged: string[][] = [];
    for (let i = 0; i < runs.length; i += 2) merged.push(await merge(runs[i] ?? [], runs[i + 1] ?? [], pace));
    runs = merged;
  }
  return runs[0] ?? [];
}

async function merge(a: string[], b: string[], pace: Pace): Promise<string[]> {
  const out: string[] = [];
  for (let i = 0, j = 0; i < a.length || j < b.length; ) {
    const [left, right] = [a[i], b[j]];
    if (right === undefined || (left !== undefined && left <= right)) {
      out.push(left as string);
      i++;
    } else {
      out.push(right);
      j++;
    }
    if (out.length % LOOK === 0 && pace.over) await pace.rest();
  }
  return out;
}
