/** What both sides last agreed on, kept in a file of this user's, one for each pair of a directory and a place in a sandbox. */
import { createHash, randomBytes } from "node:crypto";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as z from "zod";
import { errno, StacyError } from "../host/error.ts";
import { type Lock, tryLock } from "../host/lock.ts";
import type { Agreement } from "./tree.ts";

const Kept = z.object({
  version: z.literal(1),
  /** For whoever looks into it. */
  pair: z.tuple([z.string(), z.string(), z.string()]),
  entries: z.record(
    z.string(),
    z.object({
      kind: z.enum(["file", "directory", "link"]),
      mode: z.int(),
      size: z.int(),
      target: z.string().optional(),
      hash: z.string().optional(),
      hereUs: z.number(),
      thereUs: z.number(),
    }),
  ),
});

export interface KeptAgreement extends AsyncDisposable {
  entries: Agreement;
  /** Nobody else's, on no other host either: letters, digits and dashes. */
  readonly mark: string;
  save(): Promise<void>;
}

/**
 * @param root this user's data directory
 * @param pair the directory here, the sandbox, and the path there
 * @param options.reset begin anew: nothing is taken for removed, and what differs for changed on both sides
 * @throws StacyError `conflict` while another sync has it
 */
export async function openAgreement(
  root: string,
  pair: [string, string, string],
  { reset = false }: { reset?: boolean } = {},
): Promise<KeptAgreement> {
  const name = createHash("sha256").update(JSON.stringify(pair)).digest("hex").slice(0, 24);
  const path = join(root, "sync", `${name}.json`);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const lock: Lock | undefined = await tryLock(path, "sync");
  if (lock === undefined) {
    throw new StacyError("conflict", `${pair[0]} is being synced with ${pair[1]}:${pair[2]} already`, {
      remedy: "end the other `stacyvm sync` first",
    });
  }
  try {
    let saved = "";
    const entries: Agreement = new Map(reset ? [] : await read(path));
    const mark = `${await ownId(dirname(path))}-${name}`;
    return {
      entries,
      mark,
      async save() {
        const text = JSON.stringify({ version: 1, pair, entries: Object.fromEntries(entries) });
        if (text === saved) return;
        await writeFile(`${path}.new`, text, { mode: 0o600, flush: true });
        await rename(`${path}.new`, path);
        saved = text;
      },
      async [Symbol.asyncDispose]() {
        await rm(`${path}.new`, { force: true });
        await lock.release();
      },
    };
  } catch (error) {
    await lock.release();
    throw error;
  }
}

/** Of this data directory, made once: names and paths may be the same on another host. */
async function ownId(directory: string): Promise<string> {
  const path = join(directory, "id");
  await writeFile(path, randomBytes(8).toString("hex"), { mode: 0o600, flag: "wx" }).catch((error: unknown) => {
    if (errno(error) !== "EEXIST") throw error;
  });
  const id = await readFile(path, "utf8");
  // Another one is writing it, or was killed before it had.
  return /^[0-9a-f]{16}$/.test(id) ? id : randomBytes(8).toString("hex");
}

async function read(path: string): Promise<Agreement> {
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    if (errno(error) === "ENOENT") return undefined;
    throw error;
  });
  if (text === undefined) return new Map();
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    parsed = undefined;
  }
  const { success, data } = Kept.safeParse(parsed);
  if (success) {
    return new Map(
      Object.entries(data.entries).map(([name, { target, hash, ...entry }]) => [
        name,
        { ...entry, ...(target === undefined ? {} : { target }), ...(hash === undefined ? {} : { hash }) },
      ]),
    );
  }
  throw new StacyError("corrupt", `${path}, what was synced last, is damaged`, {
    remedy: "run it with --reset: nothing is removed then, and what differs is kept twice",
  });
}
