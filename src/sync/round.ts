/** One round of a sync: both sides are looked at, and what differs is brought to the other (plan.ts). */
import { errno, StacyError } from "../host/error.ts";
import type { KeptAgreement } from "./agreement.ts";
import { Changed, putHere, removeHere, scanHere } from "./here.ts";
import { Ignored } from "./ignored.ts";
import { planOf } from "./plan.ts";
import { inTurns, type Sent, type There } from "./there.ts";
import { type Agreed, type Agreement, type Entry, same, type Tree } from "./tree.ts";

/** What was done: `sent` to the sandbox, `fetched` from it, `removed` on either side, or a conflict that was kept as `as`. */
export interface Step {
  what: "sent" | "fetched" | "removed-here" | "removed-there" | "conflict" | "left-out";
  path: string;
  as?: string;
  why?: string;
}

export interface SyncOptions {
  /** Absolute. */
  here: string;
  there: There;
  agreement: KeptAgreement;
  /** What names of conflicts end with. */
  sandbox: string;
  /** With `.git`. */
  git?: boolean;
  step?: (step: Step) => void;
}

export interface RoundResult {
  /** Something was changed while it was looked at, or was given another name: another round is due. */
  again: boolean;
  /** Directories here that are synced, "" the top. */
  directories: string[];
}

/** So many in a row settle whatever settles at all. */
const MOST_ROUNDS = 20;

/** Until both sides agree. @throws StacyError `conflict` when they are changed faster than that */
export async function syncOnce(options: SyncOptions): Promise<RoundResult> {
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const result = await syncRound(options);
    if (!result.again) return result;
  }
  throw new StacyError("conflict", "files are changed faster than they can be synced", {
    remedy: "name what is written all the time in .gitignore",
  });
}

export async function syncRound(options: SyncOptions): Promise<RoundResult> {
  try {
    return await round(options);
  } finally {
    // What was done before an error was done.
    await options.agreement.save();
  }
}

async function round({
  here,
  there,
  agreement,
  sandbox,
  git = false,
  step = () => {},
}: SyncOptions): Promise<RoundResult> {
  const last = agreement.entries;
  const ignored = new Ignored(git);
  const mine = await scanHere(here, last, ignored);
  const theirs = await there.scan(last, ignored);
  // Rules that only the sandbox has, of a directory that is here as well.
  for (const [path, entry] of mine.tree) if (isIgnored(ignored, path, entry)) mine.tree.delete(path);
  for (const side of [mine, theirs]) for (const [path, why] of side.left) step({ what: "left-out", path, why });
  assertNotEmptied(mine.tree, theirs.tree, last);
  // What is not looked at any more is not gone.
  for (const [path, entry] of last) if (isIgnored(ignored, path, entry)) last.delete(path);
  let again = false;
  const changed = (): void => {
    again = true;
  };
  const tried = async (work: () => Promise<void>): Promise<void> => {
    await work().catch((error: unknown) => {
      if (!(error instanceof Changed)) throw error;
      changed();
    });
  };
  const busy = await learnContents(mine.tree, theirs.tree, last, there);
  if (busy.size > 0) changed();
  const plan = planOf(mine.tree, theirs.tree, last);
  for (const path of plan.forgotten) last.delete(path);
  for (const [path, agreed] of busy) if (agreed !== undefined) last.set(path, agreed);
  for (const path of plan.agreed) agree(path, mine.tree.get(path), theirs.tree.get(path));
  for (const path of plan.conflicts) {
    const as = freeName(path, sandbox, mine.tree, theirs.tree);
    await there.move(path, as);
    step({ what: "conflict", path, as });
  }
  if (plan.conflicts.length > 0) return { again: true, directories: directoriesOf(mine.tree) };
  for (const path of plan.removeHere) {
    const seen = mine.tree.get(path) as Entry;
    await tried(async () => {
      if (!(await removeHere(here, path, seen))) return;
      last.delete(path);
      mine.tree.delete(path);
      step({ what: "removed-here", path });
    });
  }
  for (const path of plan.removeThere) {
    const seen = theirs.tree.get(path) as Entry;
    await tried(async () => {
      if (!(await there.remove(path, seen))) return;
      last.delete(path);
      theirs.tree.delete(path);
      step({ what: "removed-there", path });
    });
  }
  await send();
  const fetch = async (path: string): Promise<void> => {
    const entry = theirs.tree.get(path) as Entry;
    const seen = mine.tree.get(path);
    await tried(async () => {
      if (seen?.kind === "directory" && entry.kind === "directory") {
        await putHere(here, path, seen, entry);
        agree(path, entry, entry);
      } else {
        const content = entry.kind === "file" ? there.content(path, entry) : undefined;
        const written = await putHere(here, path, seen, entry, content).catch(blocked);
        agree(path, { ...entry, ...written }, { ...entry, ...written, mtimeUs: entry.mtimeUs });
      }
      step({ what: "fetched", path });
    });
  };
  const isDirectory = (path: string): boolean => theirs.tree.get(path)?.kind === "directory";
  for (const path of plan.toHere.filter(isDirectory)) await fetch(path);
  await inTurns(
    plan.toHere.filter((path) => !isDirectory(path)),
    fetch,
  );
  return { again, directories: directoriesOf(mine.tree) };

  async function send(): Promise<void> {
    const whole: Sent[] = [];
    for (const path of plan.toThere) {
      const [entry, seen] = [mine.tree.get(path) as Entry, theirs.tree.get(path)];
      const onlyBits = seen !== undefined && entry.kind !== "link" && same({ ...entry, mode: 0 }, { ...seen, mode: 0 });
      if (onlyBits && seen !== undefined) {
        await there.chmod(path, entry.mode);
        agree(path, entry, { ...seen, mode: entry.mode });
        step({ what: "sent", path });
      } else whole.push({ path, entry, seen });
    }
    const done = (path: string, sent: { hash?: string; mtimeUs: number }): void => {
      const entry = { ...(mine.tree.get(path) as Entry), ...sent };
      // Changed here since it was looked at: the next round sees it.
      if (entry.hash !== mine.tree.get(path)?.hash) changed();
      agree(path, entry, entry);
      step({ what: "sent", path });
    };
    await there.put(here, whole, done, changed);
  }

  function agree(path: string, a: Entry | undefined, b: Entry | undefined): void {
    if (a === undefined || b === undefined) return;
    const { mtimeUs: hereUs, owner: _, ...entry } = a;
    last.set(path, { ...entry, hereUs, thereUs: b.mtimeUs });
  }
}

/**
 * Of files there whose content is needed to know whether they were changed: those of the same size as one that they would be the same as.
 * @returns those that were being written, with what was agreed on: this round leaves them alone
 */
async function learnContents(
  mine: Tree,
  theirs: Tree,
  last: Agreement,
  there: There,
): Promise<Map<string, Agreed | undefined>> {
  const busy = new Map<string, Agreed | undefined>();
  const unknown = [...theirs].filter(([path, entry]) => {
    if (entry.kind !== "file" || entry.hash !== undefined) return false;
    return [mine.get(path), last.get(path)].some((other) => other?.kind === "file" && other.size === entry.size);
  });
  await inTurns(unknown, async ([path, entry]) => {
    try {
      entry.hash = await there.hash(path, entry);
    } catch (error) {
      if (!(error instanceof Changed)) throw error;
      busy.set(path, last.get(path));
    }
  });
  for (const path of busy.keys()) for (const each of [mine, theirs, last]) each.delete(path);
  return busy;
}

/** A disk that is not mounted must not empty the other side. */
function assertNotEmptied(mine: Tree, theirs: Tree, last: Agreement): void {
  if (last.size < 2 || (mine.size === 0) === (theirs.size === 0)) return;
  const [empty, other] =
    mine.size === 0 ? ["the directory here", "the sandbox's"] : ["the sandbox's directory", "here"];
  throw new StacyError("conflict", `${empty} is empty, and ${last.size} files and directories were in it`, {
    remedy: `if that is meant, empty the other side as well (${other}); with --reset what is there is copied back`,
  });
}

function isIgnored(ignored: Ignored, path: string, entry: { kind: string }): boolean {
  const names = path.split("/");
  return names.some((_, at) => {
    const whole = at === names.length - 1;
    return ignored.test(names.slice(0, at + 1).join("/"), !whole || entry.kind === "directory");
  });
}

/** `report.sb-1a2b3c4d.txt` */
function freeName(path: string, sandbox: string, mine: Tree, theirs: Tree): string {
  const slash = path.lastIndexOf("/");
  const [directory, name] = [path.slice(0, slash + 1), path.slice(slash + 1)];
  const dot = name.lastIndexOf(".");
  const [stem, end] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
  for (let number = 1; ; number++) {
    const as = `${directory}${stem}.${sandbox}${number === 1 ? "" : `-${number}`}${end}`;
    if (!mine.has(as) && !theirs.has(as)) return as;
  }
}

function directoriesOf(tree: Tree): string[] {
  return ["", ...[...tree].filter(([, entry]) => entry.kind === "directory").map(([path]) => path)];
}

/** In a directory that is to become a file there is something that is not synced. */
function blocked(error: unknown): never {
  if (errno(error) !== "ENOTEMPTY") throw error;
  throw new StacyError(
    "conflict",
    `${(error as NodeJS.ErrnoException).path} is to become a file, and ignored files are in it`,
    {
      remedy: "remove them",
      cause: error as Error,
    },
  );
}
