/**
 * What is to be done so that both sides agree again, from what they have and what they last agreed on. What only one side has changed goes to the other. What both
 * have changed is a conflict: the file here keeps its name, the one there gets another, and both are on both sides in the end. A change goes before a removal.
 */
import { type Agreement, type Entry, parentOf, same, sameContent, type Tree } from "./tree.ts";

export interface Plan {
  /** Paths that are gone there, and go here; what lies in a directory before it. */
  removeHere: string[];
  removeThere: string[];
  /** What goes to the other side; a directory before what lies in it. */
  toHere: string[];
  toThere: string[];
  /** What gets another name there, so that neither is lost. */
  conflicts: string[];
  /** Both have it, and it is the same: to be agreed on. */
  agreed: string[];
  /** Neither has it any more. */
  forgotten: string[];
}

export function planOf(here: Tree, there: Tree, last: Agreement): Plan {
  const plan: Plan = {
    removeHere: [],
    removeThere: [],
    toHere: [],
    toThere: [],
    conflicts: [],
    agreed: [],
    forgotten: [],
  };
  /** Directories in which something stays. */
  const needed = new Set<string>();
  const paths = [...new Set([...here.keys(), ...there.keys(), ...last.keys()])].sort(order).reverse();
  for (const path of paths) {
    const [mine, theirs, base] = [here.get(path), there.get(path), last.get(path)];
    const stays = step(plan, path, mine, theirs, base, needed.has(path));
    if (stays) for (let up = parentOf(path); up !== "" && !needed.has(up); up = parentOf(up)) needed.add(up);
  }
  for (const list of [plan.toHere, plan.toThere]) list.reverse();
  // One in another that gets a new name has one already.
  plan.conflicts = plan.conflicts.filter((path) => !plan.conflicts.some((other) => path.startsWith(`${other}/`)));
  return plan;
}

/** @returns whether something is there afterwards */
function step(
  plan: Plan,
  path: string,
  mine: Entry | undefined,
  theirs: Entry | undefined,
  base: Omit<Entry, "mtimeUs"> | undefined,
  needed: boolean,
): boolean {
  if (mine === undefined && theirs === undefined) {
    plan.forgotten.push(path);
    return false;
  }
  if (same(mine, theirs)) {
    plan.agreed.push(path);
    return true;
  }
  // Gone on one side: so it goes on the other, if it is as it was.
  if (theirs === undefined) {
    const stays = needed || !same(mine, base);
    (stays ? plan.toThere : plan.removeHere).push(path);
    return stays;
  }
  if (mine === undefined) {
    const stays = needed || !same(theirs, base);
    (stays ? plan.toHere : plan.removeThere).push(path);
    return stays;
  }
  // A directory on one side, in which something stays, and something else on the other.
  if (needed && mine.kind !== theirs.kind) {
    const [mineIs, other] = mine.kind === "directory" ? [true, theirs] : [false, mine];
    (!same(other, base) ? plan.conflicts : mineIs ? plan.toThere : plan.toHere).push(path);
  } else if (same(mine, base)) plan.toHere.push(path);
  else if (same(theirs, base)) plan.toThere.push(path);
  // The content is the same, or there is none: nothing is lost with the bits.
  else if (sameContent(mine, theirs) || (mine.kind === "directory" && theirs.kind === "directory"))
    plan.toThere.push(path);
  else plan.conflicts.push(path);
  return true;
}

/** A directory before what lies in it. */
export function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
