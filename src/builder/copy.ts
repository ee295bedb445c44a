/** One `copy`: which files of the context go where in the image, as the archive that the guest unpacks. */
import { createHash } from "node:crypto";
import { type Pack, pack } from "tar-stream";
import type { Agent } from "../guest/agent.ts";
import { StacyError } from "../host/error.ts";
import type { BuildContext, ContextEntry } from "./context.ts";
import { absolute, type Step } from "./plan.ts";

export type CopyStep = Extract<Step, { kind: "copy" }>;

/** A file of the context and its name below its source; empty for a source that is a file. */
interface Selected {
  entry: ContextEntry;
  source: string;
  below: string;
}

/** @throws StacyError `not-found` for a source that means nothing */
function select(step: CopyStep, context: BuildContext | undefined): Selected[] {
  const found: Selected[] = [];
  for (const pattern of step.sources) {
    const paths = context?.matching(pattern) ?? [];
    if (context === undefined || paths.length === 0) {
      throw new StacyError("not-found", `line ${step.line}: the build's files have no ${pattern}`, {
        remedy: context === undefined ? "give a directory to build from" : "look into .dockerignore, too",
      });
    }
    for (const source of paths) {
      const entry = context.entry(source);
      if (entry !== undefined && entry.type !== "directory") found.push({ entry, source, below: "" });
      // Of a directory what is in it is copied, not the directory itself.
      else
        for (const inner of context.below(source)) {
          found.push({ entry: inner, source, below: inner.path.slice(source === "" ? 0 : source.length + 1) });
        }
    }
  }
  return found;
}

/** What a copy depends on, as text; times do not count, as with every container tool. */
export function copyDigest(step: CopyStep, context: BuildContext | undefined): string {
  const hash = createHash("sha256");
  for (const { entry, source, below } of select(step, context)) {
    const { type, mode, target, sha256 } = entry;
    hash.update(`${JSON.stringify([source, below, type, mode, target, sha256])}\n`);
  }
  return hash.digest("hex");
}

export async function copyInto(
  agent: Agent,
  step: CopyStep,
  context: BuildContext | undefined,
  cwd: string | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const selected = select(step, context);
  const owner = await ownerOf(agent, step.owner);
  const to = absolute(cwd, step.to);
  const single = selected.length === 1 && selected[0]?.below === "" && step.sources.length === 1;
  const intoDirectory = to.endsWith("/") || !single || (await isDirectory(agent, to));
  if (step.sources.length > 1 && !to.endsWith("/")) {
    throw new StacyError("invalid", `line ${step.line}: the destination of several sources must end with a slash`);
  }
  const directory = intoDirectory ? to.replace(/\/+$/, "") : to.slice(0, to.lastIndexOf("/"));
  const archive = pack();
  const write = async (): Promise<void> => {
    for (const { entry, below } of selected) {
      const leaf =
        below === "" ? (intoDirectory ? (entry.path.split("/").at(-1) ?? "") : to.slice(directory.length + 1)) : below;
      await add(archive, context, entry, {
        name: leaf,
        mode: step.mode ?? entry.mode,
        ...owner,
        mtime: new Date(entry.mtime * 1000),
        type: entry.type,
        ...(entry.type === "file" ? { size: entry.size } : {}),
        ...(entry.type === "symlink" ? { linkname: entry.target } : {}),
      });
    }
    archive.finalize();
  };
  const writing = write().catch((error: Error) => archive.destroy(error));
  await agent.tarIn(
    directory === "" ? "/" : directory,
    archive as AsyncIterable<Uint8Array>,
    signal === undefined ? {} : { signal },
  );
  await writing;
}

async function add(
  archive: Pack,
  context: BuildContext | undefined,
  entry: ContextEntry,
  header: Parameters<Pack["entry"]>[0],
): Promise<void> {
  const written = Promise.withResolvers<void>();
  const body = archive.entry(header, (error) => (error ? written.reject(error) : written.resolve()));
  if (entry.type === "file") {
    for await (const chunk of context?.bytes(entry) ?? []) {
      if (!body.write(chunk))
        await Promise.race([new Promise<void>((go) => body.once("drain", () => go())), written.promise]);
    }
    body.end(undefined);
  }
  await written.promise;
}

async function isDirectory(agent: Agent, path: string): Promise<boolean> {
  const found = await agent.stat(path).catch((error) => {
    if (error instanceof StacyError && (error.code === "not-found" || error.code === "not-directory")) return undefined;
    throw error;
  });
  return found?.kind === "directory";
}

/** Names are looked up in the image's own tables. */
async function ownerOf(agent: Agent, spec: string | undefined): Promise<{ uid: number; gid: number }> {
  if (spec === undefined) return { uid: 0, gid: 0 };
  const [user = "", group] = spec.split(":", 2);
  const passwd = await lookUp(agent, "/etc/passwd", user);
  const uid = /^\d+$/.test(user) ? Number(user) : Number(passwd?.[2]);
  const named = group === undefined ? undefined : await lookUp(agent, "/etc/group", group);
  const gid =
    group === undefined ? Number(passwd?.[3] ?? uid) : /^\d+$/.test(group) ? Number(group) : Number(named?.[2]);
  if (Number.isInteger(uid) && Number.isInteger(gid)) return { uid, gid };
  throw new StacyError("not-found", `the image has no owner ${spec}`, {
    remedy: "write numbers, or make the user first",
  });
}

async function lookUp(agent: Agent, table: string, name: string): Promise<string[] | undefined> {
  const text = await agent.readFile(table).catch((error) => {
    if (error instanceof StacyError && error.code === "not-found") return Buffer.alloc(0);
    throw error;
  });
  return text
    .toString("utf8")
    .split("\n")
    .map((line) => line.split(":"))
    .find((fields) => fields[0] === name || fields[2] === name);
}
