/**
 * Builds an image from another one and a list of steps, in a sandbox: commands run there, and what they changed (the upper
 * directory of its overlay) becomes a layer above the base image. Which sandbox, and where it comes from, is the caller's.
 *
 * The cache. Each step has a key made of the base image's digest, all steps before it and, for a copy, the content of what is
 * copied. The finished image is remembered under the last key; a step on the way is, where a copy follows a command, because
 * what is copied changes most often. A build that finds one begins with a fresh sandbox of the base and that layer.
 */
import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { constants, createZstdCompress } from "node:zlib";
import type { Agent } from "../guest/agent.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import type { Image, ImageConfig, ImageLibrary, Progress } from "../images/image.ts";
import { decompressed } from "../images/layer.ts";
import type { BuildContext } from "./context.ts";
import { copyDigest, copyInto } from "./copy.ts";
import { absolute, configAfter, type Plan, type Step } from "./plan.ts";

/** A running sandbox of an image; disposing of it ends it. */
export interface BuildMachine extends AsyncDisposable {
  readonly agent: Agent;
}

export interface BuildOptions {
  images: ImageLibrary;
  /** Starts a sandbox of an image that is here. */
  start(image: string, signal: AbortSignal | undefined): Promise<BuildMachine>;
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

export interface BuildResult {
  image: Image;
  /** Steps that were not done again. */
  cached: number;
  steps: number;
}

/** Raised when the same steps would make something else. */
const VERSION = 1;
/** For the message of a command that failed. */
const LAST_WORDS = 2000;
/** The agent's own, and what every sandbox gets anew. */
const OWN_FILES = new Set(["etc/hostname", "etc/machine-id", "etc/resolv.conf"]);
const OWN_TREES = /^(dev|proc|sys|run)\/./;

/** @throws StacyError `invalid` (a step failed, with its output's end), and what images and sandboxes throw */
export async function buildImage(plan: Plan, reference: string, options: BuildOptions): Promise<BuildResult> {
  try {
    return await new Build(plan, reference, options).run();
  } catch (error) {
    if (options.signal?.aborted)
      throw new StacyError("cancelled", "the build was cancelled", { phase: "build", cause: error });
    throw asStacyError(error).inPhase("build");
  }
}

interface Begin {
  /** Steps that are done. */
  at: number;
  /** The layer that has their result. */
  layer: string | undefined;
}

class Build {
  readonly #plan: Plan;
  readonly #reference: string;
  readonly #options: BuildOptions;

  constructor(plan: Plan, reference: string, options: BuildOptions) {
    this.#plan = plan;
    this.#reference = reference;
    this.#options = options;
  }

  async run(): Promise<BuildResult> {
    const { images, pull, progress, signal, noCache } = this.#options;
    const base = await images.resolve(this.#plan.from, {
      ...(pull === true ? { pull: "always" as const } : {}),
      ...(progress === undefined ? {} : { progress }),
      ...(signal === undefined ? {} : { signal }),
    });
    const steps = this.#plan.steps(base.config);
    const keys = this.#keys(base.digest, steps);
    const last = keys.at(-1) ?? "";
    // Who waits for the same build finds its result.
    await using _held = await images.builds.only(last, signal);
    const made = noCache === true ? undefined : await images.builds.get(last);
    if (made?.image !== undefined) {
      const image = await images.tag(made.image, this.#reference).catch((error) => {
        if (error instanceof StacyError && error.code === "not-found") return undefined;
        throw error;
      });
      if (image !== undefined) return { image, cached: steps.length, steps: steps.length };
    }
    await using work = await images.scratch();
    const begin = noCache === true ? { at: 0, layer: undefined } : await this.#begin(base.digest, keys, work.path);
    for (const [i, step] of steps.slice(0, begin.at).entries()) this.#say(i, steps, step, " (cached)");
    const layer = await this.#changes(base, steps, keys, begin, work.path);
    const image = await images.derive(base.digest, this.#reference, {
      config: configAfter(base.config, steps),
      ...(layer === undefined ? {} : { layer, leaveOut: isOwn }),
      ...(progress === undefined ? {} : { progress }),
      ...(signal === undefined ? {} : { signal }),
    });
    await images.builds.put(last, { base: base.digest, image: image.digest }, layer);
    return { image, cached: begin.at, steps: steps.length };
  }

  /** The key before the first step, and after each one. */
  #keys(base: string, steps: readonly Step[]): string[] {
    const digest = (value: unknown): string => createHash("sha256").update(JSON.stringify(value)).digest("hex");
    const keys = [digest([VERSION, base])];
    for (const step of steps) {
      const { text: _text, line: _line, ...what } = step;
      const copied = step.kind === "copy" ? copyDigest(step, this.#options.context) : "";
      keys.push(digest([keys.at(-1), what, copied]));
    }
    return keys;
  }

  /** The latest point that an earlier build has left. */
  async #begin(base: string, keys: readonly string[], dir: string): Promise<Begin> {
    const { builds } = this.#options.images;
    for (let at = keys.length - 1; at > 0; at--) {
      const key = keys[at] ?? "";
      const built = await builds.get(key);
      if (built === undefined || built.base !== base) continue;
      const layer = join(dir, "begin.layer");
      if (built.layer === undefined) return { at, layer: undefined };
      if (await builds.take(key, layer)) return { at, layer };
    }
    return { at: 0, layer: undefined };
  }

  /** Does what is left to do. @returns the file of the layer with all changes; `undefined`: there are none */
  async #changes(
    base: Image,
    steps: readonly Step[],
    keys: readonly string[],
    begin: Begin,
    dir: string,
  ): Promise<string | undefined> {
    const { images, signal, start } = this.#options;
    if (!steps.slice(begin.at).some(needsMachine)) return begin.layer;
    this.#options.progress?.({ step: `starting a sandbox of ${base.reference}` });
    await using machine = await start(base.reference, signal);
    const { agent } = machine;
    if (begin.layer !== undefined) {
      await agent.tarIn("/", decompressed(begin.layer, signal), { layer: true, ...maybe(signal) });
    }
    let unsaved = false;
    let saved = 0;
    for (const [i, step] of steps.entries()) {
      if (i < begin.at) continue;
      signal?.throwIfAborted();
      if (step.kind === "copy" && unsaved) {
        const layer = await this.#layer(agent, join(dir, `step-${saved++}.layer`));
        await images.builds.put(keys[i] ?? "", { base: base.digest }, layer);
        unsaved = false;
      }
      this.#say(i, steps, step);
      const before = configAfter(base.config, steps.slice(0, i));
      await this.#do(agent, step, before);
      unsaved ||= step.kind === "run";
    }
    return await this.#layer(agent, join(dir, "last.layer"));
  }

  async #do(agent: Agent, step: Step, before: ImageConfig): Promise<void> {
    const { context, signal } = this.#options;
    switch (step.kind) {
      case "run":
        await this.#command(agent, step, before);
        break;
      case "copy":
        await copyInto(agent, step, context, before.cwd, signal);
        break;
      case "workdir":
        await makeDirectory(agent, absolute(before.cwd, step.path).replace(/(.)\/$/, "$1"));
        break;
    }
  }

  async #command(agent: Agent, step: Extract<Step, { kind: "run" }>, config: ImageConfig): Promise<void> {
    const { output, signal } = this.#options;
    const env = Object.fromEntries(
      config.env.map((entry) => [entry.split("=", 1)[0] ?? "", entry.replace(/^[^=]*=/, "")]),
    );
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
    });
  }

  /** What the sandbox differs from its image in, as a file. Nothing moves meanwhile. */
  async #layer(agent: Agent, path: string): Promise<string> {
    const { progress, signal } = this.#options;
    await agent.freeze();
    try {
      let done = 0;
      const changes = await agent.changes(maybe(signal));
      changes.on("data", (chunk: Buffer) => {
        done += chunk.length;
        progress?.({ step: "saving what was changed", done, unit: "bytes" });
      });
      const compress = createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: 1 } });
      await pipeline(changes, compress, createWriteStream(path, { flags: "wx", mode: 0o600 }), maybe(signal));
    } finally {
      await agent.thaw();
    }
    return path;
  }

  #say(i: number, steps: readonly Step[], step: Step, note = ""): void {
    const [first = ""] = step.text.split("\n");
    this.#options.progress?.({ step: `${i + 1}/${steps.length} ${first}${note}` });
  }
}

function needsMachine({ kind }: Step): boolean {
  return kind === "run" || kind === "copy" || kind === "workdir";
}

/** Of root, as builders do it, whatever the user is; one that is there already stays as it is. */
async function makeDirectory(agent: Agent, path: string): Promise<void> {
  const missing = await agent.stat(path).then(
    () => false,
    (error) => {
      if (error instanceof StacyError && error.code === "not-found") return true;
      throw error;
    },
  );
  // An empty archive: its target is made, with those above it.
  if (missing) await agent.tarIn(path, once(Buffer.alloc(1024)));
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

/** Paths that belong to a sandbox and not to an image. */
function isOwn(path: string): boolean {
  return OWN_FILES.has(path) || OWN_TREES.test(path);
}

function maybe(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
