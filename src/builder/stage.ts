/**
 * One stage of a build: its steps run in a sandbox of the image that it begins with, and what they changed (the upper directory of
 * its overlay) becomes a layer above that image. The finished image is remembered under the key of the last step; a step on the
 * way is, where a copy follows a command, because what is copied changes most often. A stage that finds one begins with a fresh
 * sandbox of the base and that layer.
 */
import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { constants, createZstdCompress } from "node:zlib";
import type { Agent } from "../guest/agent.ts";
import { GUEST_BOUNDS } from "../host/bounds.ts";
import { nameBytes } from "../host/byte-name.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import type { Image, ImageConfig, ImageLibrary, Progress } from "../images/image.ts";
import { decompressed } from "../images/layer.ts";
import { absolute, Configuration } from "./configuration.ts";
import type { BuildContext } from "./context.ts";
import { type CopyStep, copyInto } from "./copy.ts";
import type { BuildFiles } from "./files.ts";
import { makeDirectory } from "./make-directory.ts";
import { isOwn } from "./own-paths.ts";
import { ownerForUser, ownerOf } from "./owner.ts";
import { SCRIPT, type Step } from "./plan.ts";

/** A running sandbox of an image; disposing of it ends it. */
export interface BuildMachine extends AsyncDisposable {
  readonly agent: Agent;
}

export interface BuildOptions {
  images: ImageLibrary;
  /** Starts a sandbox of an image that is here. */
  start(image: string, signal: AbortSignal | undefined): Promise<BuildMachine>;
  /** Of that sandbox: what it says has been changed is no more. */
  diskMiB: number;
  context?: BuildContext;
  /** Ask the registry again what the base's name means. */
  pull?: boolean;
  /** Do everything again. */
  noCache?: boolean;
  progress?: (progress: Progress) => void;
  /** Output of the commands, as it comes. */
  output?: (text: Buffer) => void;
  signal?: AbortSignal;
}

export interface StageWork {
  /** For progress; empty where there is one stage only. */
  name: string;
  base: Image;
  steps: readonly Step[];
  /** Of the base, and after each step. */
  keys: readonly string[];
  /** At the end. */
  config: ImageConfig;
  /** What a copy takes its files from. */
  filesOf(from: CopyStep["from"]): Promise<BuildFiles | undefined>;
}

/** For the message of a command that failed. */
const LAST_WORDS = 2000;
/** How package managers and others say that a host is out of reach. */
const NO_WAY =
  /Temporary failure (in name resolution|resolving)|Could not resolve (host|')|Name or service not known|EAI_AGAIN|ENOTFOUND|ENETUNREACH|bad address '|no such host|Network is unreachable|tunnel failed|Tunnel connection failed/;
const NO_WAY_REMEDY =
  "commands of a build reach no host but those that are allowed: `defaults.allowed_hosts` in the configuration, `--allow` of `stacyvm image build`";
/** What an archive has beside the content of its files, as a share of the disk and in bytes. */
const PACKED_SHARE = 0.25;
const PACKED_BYTES = 16 << 20;
/** After an operation's time, what was changed in a sandbox comes at least so fast on the average, or not at all. */
const LEAST_BYTES_PER_SECOND = 4 << 10;
const LOOK_MS = 10_000;

/** @param reference the image's name; without one it is known by its digest, as a stage on the way */
export async function runStage(
  work: StageWork,
  reference: string | undefined,
  options: BuildOptions,
): Promise<{ image: Image; cached: number }> {
  await using scratch = await options.images.scratch();
  return await new StageRun(work, options, scratch.path).run(reference);
}

interface Begin {
  /** Steps that are done. */
  at: number;
  /** The layer that has their result. */
  layer: string | undefined;
}

class StageRun {
  readonly #work: StageWork;
  readonly #options: BuildOptions;
  readonly #dir: string;

  constructor(work: StageWork, options: BuildOptions, dir: string) {
    this.#work = work;
    this.#options = options;
    this.#dir = dir;
  }

  async run(reference: string | undefined): Promise<{ image: Image; cached: number }> {
    const { images, progress, signal, noCache } = this.#options;
    const { base, steps, keys, config } = this.#work;
    const begin = noCache === true ? { at: 0, layer: undefined } : await this.#begin();
    for (const [i, step] of steps.slice(0, begin.at).entries()) this.#say(i, step, " (cached)");
    const layer = await this.#changes(begin);
    const image = await images.derive(base.digest, reference, {
      config,
      ...(layer === undefined ? {} : { layer, leaveOut: isOwn }),
      ...(progress === undefined ? {} : { progress }),
      ...(signal === undefined ? {} : { signal }),
    });
    const result = { base: base.digest, image: image.digest, ...(reference === undefined ? { stage: true } : {}) };
    await images.builds.put(keys.at(-1) ?? "", result, layer);
    return { image, cached: begin.at };
  }

  /** The latest point that an earlier build has left. */
  async #begin(): Promise<Begin> {
    const { builds } = this.#options.images;
    const { base, keys } = this.#work;
    for (let at = keys.length - 1; at > 0; at--) {
      const key = keys[at] ?? "";
      const built = await builds.get(key);
      if (built === undefined || built.base !== base.digest) continue;
      const layer = join(this.#dir, "begin.layer");
      if (built.layer === undefined) return { at, layer: undefined };
      if (await builds.take(key, layer)) return { at, layer };
    }
    return { at: 0, layer: undefined };
  }

  /** Does what is left to do. @returns the file of the layer with all changes; `undefined`: there are none */
  async #changes(begin: Begin): Promise<string | undefined> {
    const { images, signal, start } = this.#options;
    const { base, steps, keys } = this.#work;
    if (!steps.slice(begin.at).some(needsMachine)) return begin.layer;
    // Other stages first, so that two sandboxes never wait for each other.
    for (const step of steps.slice(begin.at)) if (step.kind === "copy") await this.#work.filesOf(step.from);
    this.#options.progress?.({ step: `starting a sandbox of ${base.reference}` });
    await using machine = await start(base.reference, signal);
    const { agent } = machine;
    if (begin.layer !== undefined) {
      await agent.tarIn("/", decompressed(begin.layer, signal), { layer: true, beneath: true, ...maybe(signal) });
    }
    let unsaved = false;
    let saved = 0;
    const before = new Configuration(base.config);
    for (const step of steps.slice(0, begin.at)) before.apply(step);
    for (const [i, step] of steps.entries()) {
      if (i < begin.at) continue;
      signal?.throwIfAborted();
      if (step.kind === "copy" && unsaved) {
        const layer = await this.#layer(agent, join(this.#dir, `step-${saved++}.layer`));
        await images.builds.put(keys[i] ?? "", { base: base.digest }, layer);
        unsaved = false;
      }
      this.#say(i, step);
      try {
        await this.#do(agent, step, before);
      } catch (error) {
        signal?.throwIfAborted();
        throw ofStep(error, step);
      }
      before.apply(step);
      unsaved ||= step.kind === "run";
    }
    return await this.#layer(agent, join(this.#dir, "last.layer"));
  }

  async #do(agent: Agent, step: Step, before: Configuration): Promise<void> {
    const { signal } = this.#options;
    switch (step.kind) {
      case "run":
        await this.#command(agent, step, before);
        break;
      case "copy": {
        const files = await this.#work.filesOf(step.from);
        await copyInto(step, { agent, files, cwd: before.cwd, scratch: this.#dir, signal });
        break;
      }
      case "workdir":
        await makeDirectory(agent, absolute(before.cwd, step.path), async () =>
          step.owner === undefined
            ? await ownerForUser(agent, before.user, step.line)
            : await ownerOf(agent, step.owner, step.line),
        );
        break;
    }
  }

  async #command(agent: Agent, step: Extract<Step, { kind: "run" }>, config: Configuration): Promise<void> {
    const { output, signal } = this.#options;
    const env = Object.fromEntries(
      config.env.map((entry) => [entry.split("=", 1)[0] ?? "", entry.replace(/^[^=]*=/, "")]),
    );
    if (step.script !== undefined) await agent.writeFile(SCRIPT, nameBytes(step.script), { mode: 0o755 });
    const command = await agent.start({
      argv: step.argv,
      env: { ...step.env, ...env },
      cwd: config.cwd ?? "/",
      user: config.user ?? "root",
      ...maybe(signal),
    });
    let words = "";
    for await (const event of command.output()) {
      if (event.type === "lost") continue;
      output?.(event.data);
      words = (words + event.data.toString("utf8")).slice(-LAST_WORDS);
    }
    const { exitCode, reason } = await command.exited;
    if (reason === "exited" && exitCode === 0) return;
    signal?.throwIfAborted();
    throw new StacyError("invalid", `line ${step.line}: \`${step.text}\` ended with ${exitCode}\n${words.trimEnd()}`, {
      data: { line: step.line, exitCode },
      ...(NO_WAY.test(words) ? { remedy: NO_WAY_REMEDY } : {}),
    });
  }

  /** What the sandbox differs from its image in, as a file. Nothing moves meanwhile. */
  async #layer(agent: Agent, path: string): Promise<string> {
    const { progress, signal } = this.#options;
    await agent.freeze();
    let done = 0;
    const slow = new AbortController();
    let waited = 0;
    const looks = setInterval(() => {
      waited += LOOK_MS;
      if (waited < GUEST_BOUNDS.treeMs || done >= (waited / 1_000) * LEAST_BYTES_PER_SECOND) return;
      slow.abort(new StacyError("timeout", "the sandbox of the build does not say what was changed in it"));
    }, LOOK_MS);
    try {
      const changes = await agent.changes(maybe(signal));
      changes.on("data", (chunk: Buffer) => {
        done += chunk.length;
        progress?.({ step: "saving what was changed", done, unit: "bytes" });
      });
      const compress = createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: 1 } });
      const file = createWriteStream(path, { flags: "wx", mode: 0o600 });
      const either = signal === undefined ? slow.signal : AbortSignal.any([signal, slow.signal]);
      await pipeline(changes, compress, (packed) => this.#atMost(packed), file, { signal: either });
    } catch (error) {
      slow.signal.throwIfAborted();
      throw error;
    } finally {
      clearInterval(looks);
      await agent.thaw();
    }
    return path;
  }

  /** Packed, since the holes of files come as zeros. @throws StacyError `limit` for more than the sandbox's disk could hold */
  async *#atMost(packed: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    const most = this.#options.diskMiB * 2 ** 20 * (1 + PACKED_SHARE) + PACKED_BYTES;
    let bytes = 0;
    for await (const piece of packed) {
      bytes += piece.length;
      if (bytes > most) {
        throw new StacyError("limit", "the sandbox of the build says that more was changed than its disk can hold");
      }
      yield piece;
    }
  }

  #say(i: number, step: Step, note = ""): void {
    const { name, steps } = this.#work;
    const [first = ""] = step.text.split("\n");
    this.#options.progress?.({ step: `${name === "" ? "" : `${name} `}${i + 1}/${steps.length} ${first}${note}` });
  }
}

/** What says nothing of its place in the file gets it: that a program or a user is missing is no use by itself. */
function ofStep(thrown: unknown, { text, line }: Step): StacyError {
  const error = asStacyError(thrown);
  if (error.data?.line !== undefined) return error;
  const { code, message, phase, remedy, data } = error;
  const [first = ""] = text.split("\n");
  const said = message.startsWith(`line ${line}: `) ? message : `line ${line}: \`${first}\`: ${message}`;
  return new StacyError(code, said, {
    ...(phase === undefined ? {} : { phase }),
    ...(remedy === undefined ? {} : { remedy }),
    ...{ cause: error, data: { ...data, line } },
  });
}

function needsMachine({ kind }: Step): boolean {
  return kind === "run" || kind === "copy" || kind === "workdir";
}

function maybe(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
