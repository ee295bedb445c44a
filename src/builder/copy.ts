/** One `copy`: which files go where in the image, as the archive that the guest unpacks. */
import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Agent } from "../guest/agent.ts";
import { statOf } from "../guest/exists.ts";
import { BUILD_BOUNDS } from "../host/bounds.ts";
import { nameBytes } from "../host/byte-name.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import { withoutEnd } from "../host/trim.ts";
import { Pace } from "../host/turns.ts";
import { decompressed } from "../images/layer.ts";
import { isTarHeader } from "../images/tar.ts";
import { type TarMember, writeTar } from "../images/tar-writer.ts";
import { absolute } from "./configuration.ts";
import { BuildContext } from "./context.ts";
import { destinationOf } from "./destination.ts";
import { fileMode } from "./file-mode.ts";
import { assertFew, type BuildFile, type BuildFiles, below, follow, matching, relativePath } from "./files.ts";
import { makeDirectory } from "./make-directory.ts";
import { isPattern } from "./match.ts";
import { isOwn } from "./own-paths.ts";
import { ownerOf } from "./owner.ts";
import type { Step } from "./plan.ts";

export type CopyStep = Extract<Step, { kind: "copy" }>;

/** A file and its name below its source; empty for a source that is a file. */
interface Selected {
  file: BuildFile;
  /** What it was asked for by: of a link that leads to it, the link's. */
  path: string;
  source: string;
  below: string;
}

export interface CopyPlace {
  agent: Agent;
  /** Where the source of the step's files is; `undefined`: there are none. */
  files: BuildFiles | undefined;
  /** Of the image, so far. */
  cwd: string | undefined;
  /** A directory of ours for what has to be a file on the way. */
  scratch: string;
  signal: AbortSignal | undefined;
}

/** @throws StacyError `not-found` for a source that means nothing; a pattern may, as long as another source does not */
async function select(step: CopyStep, files: BuildFiles | undefined, most?: number): Promise<Selected[]> {
  const pace = new Pace();
  const found: Selected[] = [];
  const nothing = async (source: string): Promise<StacyError> => {
    const named = isPattern(source) ? undefined : source;
    const link = named && files && (await inLine(step, () => pace.through(linkAt(files, named))));
    const whose = files?.name ?? "the build's files";
    return new StacyError(
      "not-found",
      link
        ? `line ${step.line}: ${source} is a link to ${link.target}, and ${whose} have nothing there`
        : `line ${step.line}: ${whose} have no ${source}`,
      {
        remedy: link
          ? "a link is copied as what it leads to, which has to be among them"
          : files === undefined
            ? "give a directory to build from"
            : step.from === undefined
              ? "look into .dockerignore, too"
              : "a stage or image is copied from as it is at its end",
      },
    );
  };
  for (const source of step.sources) {
    if (typeof source !== "string") {
      found.push({ file: inline(source), path: source.name, source: source.name, below: "" });
      continue;
    }
    const paths = files === undefined ? [] : await inLine(step, () => matching(files, source, most));
    if (files === undefined || (paths.length === 0 && !isPattern(source))) throw await nothing(source);
    for (const path of paths) {
      if (pace.over) await pace.rest();
      assertFew(found.length, most);
      const link = step.links === true ? await pace.through(linkAt(files, path)) : undefined;
      if (link !== undefined) {
        found.push({ file: link, path, source: path, below: "" });
        continue;
      }
      // A source that is a link stands for what it leads to; a link below a source is copied as one.
      const target = await pace.through(follow(files, path));
      const file = target === undefined ? undefined : files.get(target);
      if (file !== undefined && file.type !== "directory") found.push({ file, path, source: path, below: "" });
      else if (target === "" || file?.type === "directory") {
        // Of a directory what is in it is copied, not the directory itself.
        const cut = target === "" || target === undefined ? 0 : target.length + 1;
        for await (const inner of below(files, target ?? "")) {
          if (pace.over) await pace.rest();
          assertFew(found.length, most);
          found.push({ file: inner, path: inner.path, source: path, below: inner.path.slice(cut) });
        }
      } else if (!isPattern(source)) throw await nothing(source);
    }
  }
  const patterns = step.sources.filter((source): source is string => typeof source === "string" && isPattern(source));
  if (found.length === 0 && patterns.length === step.sources.length) throw await nothing(patterns.join(" and no "));
  return found;
}

/** The link that a path itself is; links on the way are followed. In steps. */
function* linkAt(files: BuildFiles, path: string): Generator<undefined, BuildFile | undefined> {
  const place = relativePath(path);
  const name = place.split("/").at(-1) ?? "";
  const above = yield* follow(files, place.slice(0, -name.length));
  const file = above === undefined ? undefined : files.get(above === "" ? name : `${above}/${name}`);
  return file?.type === "symlink" ? file : undefined;
}

function inline({ name, content }: { name: string; content: string }): BuildFile {
  const bytes = nameBytes(content);
  const common = {
    path: name,
    mode: 0o644,
    uid: 0,
    gid: 0,
    // Of now, as BuildKit has it: archives of Python's and others take no time before 1980.
    mtime: Math.floor(Date.now() / 1_000),
    target: "",
    major: 0,
    minor: 0,
    xattrs: new Map(),
  };
  return { ...common, type: "file", size: bytes.length, bytes: () => Readable.from([bytes]) };
}

/**
 * What a copy out of the build's own files depends on, as text; times do not count, as with every container tool.
 * @param most files that it may mean
 */
export async function copyDigest(
  step: CopyStep,
  context: BuildContext | undefined,
  most: number = BUILD_BOUNDS.copied,
): Promise<string> {
  const pace = new Pace();
  const hash = createHash("sha256");
  for (const { file, source, below } of await select(step, context, most)) {
    if (pace.over) await pace.rest();
    const { type, mode, target, major, minor } = file;
    const device = type === "character" || type === "block" ? [major, minor] : [];
    // What is written in the step itself is part of its key already.
    const content = "sha256" in file ? file.sha256 : "";
    hash.update(`${JSON.stringify([source, below, type, mode, target, content, ...device])}\n`);
  }
  return hash.digest("hex");
}

export async function copyInto(step: CopyStep, { agent, files, cwd, scratch, signal }: CopyPlace): Promise<void> {
  const selected = await select(step, files);
  const own = files === undefined || files instanceof BuildContext;
  const owner = step.owner === undefined ? undefined : await ownerOf(agent, step.owner, step.line);
  const to = await inLine(step, () => destinationOf(agent, absolute(cwd, step.to)));
  const single = selected.length === 1 && selected[0]?.below === "" && step.sources.length === 1;
  if (step.sources.length > 1 && !to.endsWith("/")) {
    throw new StacyError("invalid", `line ${step.line}: the destination of several sources must end with a slash`);
  }
  /** What is made on the way is the step's owner's, too (BuildKit's copy); without one the guest makes it, of root. */
  const make = async (directory: string): Promise<void> => {
    if (owner !== undefined) await makeDirectory(agent, directory === "" ? "/" : directory, async () => owner);
  };
  const plain: Selected[] = [];
  for (const one of selected) {
    const unpacked =
      step.unpack === true && one.below === "" && (await unpack(step, one, to, { agent, scratch, signal, make }));
    if (!unpacked) plain.push(one);
  }
  if (plain.length === 0 && selected.length > 0) return;
  const intoDirectory = to.endsWith("/") || !single || (await isDirectory(agent, to));
  const directory = intoDirectory ? withoutEnd(to, "/") : to.slice(0, to.lastIndexOf("/"));
  await make(directory);
  const members = function* (): Generator<TarMember> {
    for (const { file, path, below } of plain) {
      const base = path.split("/").at(-1) ?? "";
      const name = below === "" ? (intoDirectory ? base : to.slice(directory.length + 1)) : below;
      if (/(^|\/)\.wh\./.test(name)) {
        throw new StacyError(
          "not-supported",
          `${file.path} cannot be copied: in an image's layers a name with .wh. deletes`,
          {
            remedy: "give it another name, or pack it into an archive",
          },
        );
      }
      // Nor would it reach the image: in the sandbox of the build something else is there.
      if (isOwn(`${directory}/${name}`.slice(1))) continue;
      const { type, mtime, size, major, minor, xattrs, target } = file;
      yield {
        ...{ path: latin1(name), type, mtime, size, major, minor, xattrs, link: latin1(target) },
        // A link has no permissions of its own.
        mode: type === "symlink" ? 0o777 : modeOf(step, file),
        // Files of an image keep their owners; the build's own belong to root.
        ...(owner ?? (own ? { uid: 0, gid: 0 } : { uid: file.uid, gid: file.gid })),
        bytes: () => file.bytes(),
      };
    }
  };
  await inLine(step, () =>
    agent.tarIn(directory === "" ? "/" : directory, writeTar(members()), {
      // Over `/etc/hosts` and its like the sandbox has a file of its own.
      beneath: true,
      // Extended attributes are set in that form only.
      layer: plain.some(({ file }) => file.xattrs.size > 0),
      ...(signal === undefined ? {} : { signal }),
    }),
  );
}

function modeOf({ mode }: CopyStep, file: BuildFile): number {
  return typeof mode === "string" ? fileMode(mode, file.mode, file.type === "directory") : (mode ?? file.mode);
}

/** One character per byte, as archives have names. */
function latin1(name: string): string {
  return nameBytes(name).toString("latin1");
}

/** Unpacks a file that is an archive into the destination, which is a directory then. @returns false: it is none */
async function unpack(
  step: CopyStep,
  { file }: Selected,
  to: string,
  {
    agent,
    scratch,
    signal,
    make,
  }: Pick<CopyPlace, "agent" | "scratch" | "signal"> & { make: (directory: string) => Promise<void> },
): Promise<boolean> {
  if (file.type !== "file" || file.size === 0) return false;
  const path = join(scratch, "add");
  const abort = signal === undefined ? {} : { signal };
  try {
    await pipeline(file.bytes(), createWriteStream(path, { mode: 0o600 }), abort);
    if (!(await isArchive(path))) return false;
    const directory = withoutEnd(to, "/") || "/";
    await make(directory);
    await agent.tarIn(directory, decompressed(path, signal), { beneath: true, ...abort });
    return true;
  } catch (error) {
    throw asStacyError(error).code === "not-supported"
      ? new StacyError("not-supported", `line ${step.line}: ${file.path}: ${asStacyError(error).message}`, {
          cause: error,
          remedy: "compress it with gzip or zstd, or COPY it and unpack it with RUN",
        })
      : error;
  } finally {
    await rm(path, { force: true });
  }
}

/** Whether a tar begins in the file, compressed or not. @throws StacyError `not-supported` for a compression we have not */
async function isArchive(path: string): Promise<boolean> {
  let head = Buffer.alloc(0);
  try {
    for await (const chunk of decompressed(path)) {
      head = Buffer.concat([head, chunk.subarray(0, 512)]);
      if (head.length >= 512) break;
    }
  } catch (error) {
    if (error instanceof StacyError && error.code === "corrupt") return false;
    throw error;
  }
  return isTarHeader(head);
}

async function isDirectory(agent: Agent, path: string): Promise<boolean> {
  return (await statOf(agent, path))?.kind === "directory";
}

/** Errors about what is copied name its line. */
async function inLine<T>(step: CopyStep, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof StacyError)) throw error;
    const { remedy, data, phase, final } = error;
    throw new StacyError(error.code, `line ${step.line}: ${error.message}`, {
      cause: error,
      ...(remedy === undefined ? {} : { remedy }),
      ...(data === undefined ? {} : { data }),
      ...(phase === undefined ? {} : { phase }),
      ...(final ? { final } : {}),
    });
  }
}
