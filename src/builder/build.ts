/**
 * Builds an image from a plan: stages, each an image and a list of steps, done in a sandbox (stage.ts). Which sandbox, and where
 * it comes from, is the caller's.
 *
 * The cache. Each step has a key made of whose build it is, what its stage begins with, all steps before it and, for a copy, the
 * content of what is copied; for a copy from another stage the key of that stage's last step. So the keys of all stages are known
 * before anything is done, and stages that nothing new depends on are not even looked at. The owner is part of it because the
 * sandbox of a build is its owner's, who may put into it what no step says.
 */
import { createHash } from "node:crypto";
import { asStacyError, StacyError } from "../host/error.ts";
import { Periodic } from "../host/periodic.ts";
import { plainConfig } from "../images/content.ts";
import type { Image, ImageConfig } from "../images/image.ts";
import { configAfter } from "./configuration.ts";
import { copyDigest } from "./copy.ts";
import type { BuildFiles } from "./files.ts";
import { ImageFiles } from "./image-files.ts";
import type { Origin, Plan, Step } from "./plan.ts";
import { type BuildOptions, runStage, type StageWork } from "./stage.ts";

export type { BuildMachine, BuildOptions } from "./stage.ts";

export interface BuildResult {
  image: Image;
  /** Steps that were not done again. */
  cached: number;
  /** Steps of all stages that the result needs. */
  steps: number;
}

/** Raised when the same steps would make something else. */
const VERSION = 5;
/** Images without a name are kept while they are used; half of the time that collection leaves them. */
const TOUCH_MS = 30_000;

/** @throws StacyError `invalid` (a step failed, with its output's end), and what images and sandboxes throw */
export async function buildImage(plan: Plan, reference: string, options: BuildOptions): Promise<BuildResult> {
  try {
    await using build = new Build(plan, options);
    return await build.run(reference);
  } catch (error) {
    if (options.signal?.aborted)
      throw new StacyError("cancelled", "the build was cancelled", { phase: "build", cause: error });
    throw asStacyError(error).inPhase("build");
  }
}

/** What is known of a stage before anything is done. */
interface Outline {
  /** Configuration at its end. */
  config: ImageConfig;
  steps: Step[];
  /** The key before the first step, and after each one. */
  keys: string[];
}

class Build implements AsyncDisposable {
  readonly #plan: Plan;
  readonly #options: BuildOptions;
  readonly #outlines = new Map<number, Outline>();
  readonly #pulled = new Map<string, Promise<Image>>();
  /** Finished stages, and those whose files are read. */
  readonly #images = new Map<number, Image>();
  readonly #open = new AsyncDisposableStack();
  readonly #files = new Map<string, Promise<ImageFiles>>();
  readonly #used = new Set<string>();
  #cached = 0;

  constructor(plan: Plan, options: BuildOptions) {
    this.#plan = plan;
    this.#options = options;
    this.#open.use(
      new Periodic({
        everyMs: TOUCH_MS,
        work: async () => {
          for (const digest of this.#used) await options.images.resolve(digest, { pull: "never" });
        },
        report: () => {}, // one that is gone shows where it is used
      }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#open.disposeAsync();
  }

  async run(reference: string): Promise<BuildResult> {
    const { target } = this.#plan;
    await this.#outline(target);
    const image = await this.#stage(target, reference);
    const steps = [...this.#outlines.values()].reduce((sum, outline) => sum + outline.steps.length, 0);
    const untouched = [...this.#outlines].filter(([stage]) => !this.#images.has(stage));
    return { image, cached: this.#cached + untouched.reduce((sum, [, one]) => sum + one.steps.length, 0), steps };
  }

  /** Of a stage and, within, of all that it needs. */
  async #outline(index: number): Promise<Outline> {
    const known = this.#outlines.get(index);
    if (known !== undefined) return known;
    const stage = this.#plan.stages[index];
    if (stage === undefined) throw new StacyError("internal", `the plan has no stage ${index}`);
    const { from } = stage;
    const below = from.kind === "stage" ? await this.#outline(from.stage) : undefined;
    const config = below?.config ?? (await this.#pull(from)).config;
    const steps = stage.steps(await this.#rootConfig(from));
    const keys = [
      below === undefined
        ? digest([VERSION, this.#options.images.owner ?? null, await this.#keyOf(from)])
        : digest([VERSION, below.keys.at(-1)]),
    ];
    for (const step of steps) {
      const { text: _text, line: _line, ...what } = step;
      keys.push(digest([keys.at(-1), what, step.kind === "copy" ? await this.#copied(step) : ""]));
    }
    const outline = { config: configAfter(config, steps), steps, keys };
    this.#outlines.set(index, outline);
    return outline;
  }

  /** What a copy's result depends on. */
  async #copied(step: Extract<Step, { kind: "copy" }>): Promise<string> {
    const { from, line } = step;
    if (from === undefined) return await copyDigest(step, this.#options.context);
    try {
      return await this.#keyOf(from);
    } catch (thrown) {
      if (from.kind !== "image") throw thrown;
      const { code, message, remedy } = asStacyError(thrown);
      throw new StacyError(
        code,
        `line ${line}: no stage above is called ${from.reference}, and as an image: ${message}`,
        {
          cause: thrown,
          ...(remedy === undefined ? {} : { remedy }),
        },
      );
    }
  }

  async #keyOf(from: Origin): Promise<string> {
    if (from.kind === "stage") return (await this.#outline(from.stage)).keys.at(-1) ?? "";
    return from.kind === "nothing" ? "" : (await this.#pull(from)).digest;
  }

  async #rootConfig(from: Origin): Promise<ImageConfig> {
    const below = from.kind === "stage" ? this.#plan.stages[from.stage] : undefined;
    return below === undefined ? (await this.#pull(from)).config : await this.#rootConfig(below.from);
  }

  /** An image that is no stage. */
  async #pull(from: Origin): Promise<Image> {
    const name = from.kind === "image" ? from.reference : "";
    const known = this.#pulled.get(name);
    if (known !== undefined) return await known;
    const { images, pull, progress, signal } = this.#options;
    const options = {
      ...(progress === undefined ? {} : { progress }),
      ...(signal === undefined ? {} : { signal }),
    };
    const image =
      from.kind === "image"
        ? images.resolve(name, {
            ...(pull === true ? { pull: "always" as const } : {}),
            ...(from.credentials === undefined ? {} : { credentials: from.credentials }),
            ...options,
          })
        : this.#nothing();
    this.#pulled.set(name, image);
    this.#used.add((await image).digest);
    return await image;
  }

  /** `FROM scratch`: an image without files. */
  async #nothing(): Promise<Image> {
    const { images } = this.#options;
    const image = await images.derive(undefined, undefined, { config: { ...plainConfig(), cmd: [] } });
    await images.builds.put(digest([VERSION, "nothing"]), { image: image.digest, stage: true });
    return image;
  }

  /** The image of a stage, made when it is not here. @param reference its name; one that is used on the way only has none */
  async #stage(index: number, reference?: string): Promise<Image> {
    const known = this.#images.get(index);
    if (known !== undefined) return known;
    const { images, signal, noCache } = this.#options;
    const { steps, keys, config } = await this.#outline(index);
    const last = keys.at(-1) ?? "";
    // Who waits for the same build finds its result.
    await using _held = await images.builds.only(last, signal);
    const made = noCache === true ? undefined : await images.builds.get(last);
    const present = made?.image === undefined ? undefined : await this.#present(made.image, reference);
    if (present !== undefined) {
      this.#cached += steps.length;
      return this.#finished(index, present);
    }
    const stage = this.#plan.stages[index];
    const base =
      stage?.from.kind === "stage"
        ? await this.#stage(stage.from.stage)
        : await this.#pull(stage?.from ?? { kind: "nothing" });
    const work: StageWork = {
      name: stage?.name ?? "",
      ...{ base, steps, keys, config },
      filesOf: (from) => (from === undefined ? Promise.resolve(this.#options.context) : this.#filesOf(from)),
    };
    const { image, cached } = await runStage(work, reference, this.#options);
    this.#cached += cached;
    return this.#finished(index, image);
  }

  #finished(index: number, image: Image): Image {
    this.#images.set(index, image);
    this.#used.add(image.digest);
    return image;
  }

  /** An earlier result, unless it has been collected, or has a name only that a policy does not let through. */
  async #present(result: string, reference: string | undefined): Promise<Image | undefined> {
    const { images } = this.#options;
    const found = reference === undefined ? images.resolve(result, { pull: "never" }) : images.tag(result, reference);
    return await found.catch((error) => {
      if (error instanceof StacyError && ["not-found", "permission"].includes(error.code)) return undefined;
      throw error;
    });
  }

  async #filesOf(from: Origin): Promise<BuildFiles> {
    const image = from.kind === "stage" ? await this.#stage(from.stage) : await this.#pull(from);
    const known = this.#files.get(image.digest);
    if (known !== undefined) return await known;
    const stage = from.kind === "stage" ? this.#plan.stages[from.stage] : undefined;
    const name = stage === undefined ? `the files of ${image.reference}` : `the files of the stage ${stage.name}`;
    const files = ImageFiles.open(image, name, this.#options.images.owner).then((opened) => this.#open.use(opened));
    this.#files.set(image.digest, files);
    return await files;
  }
}

function digest(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex");
}
