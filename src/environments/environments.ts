/**
 * The published server's environments: packages on a base image, built to an image of this host by the builder. One build is done at
 * a time, an owner's in the order in which they were asked for, and owners take turns; a build that the server did not finish before it
 * ended has failed.
 *
 * A spec and its builds belong to an owner; for any other they are not there.
 */
import { randomUUID } from "node:crypto";
import { z } from "zod";
import { type BuildOptions, buildImage } from "../builder/build.ts";
import { readPlan } from "../builder/read-plan.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import { FairQueue } from "../host/fair-queue.ts";
import { SerialQueue } from "../host/serial-queue.ts";
import type { ImageLibrary } from "../images/image.ts";
import { parseReference } from "../images/reference.ts";
import { dockerfileOf, imageOf, packageList, SPEC, type Spec } from "./spec.ts";

const BUILD = z.object({
  id: z.string(),
  specId: z.string(),
  status: z.enum(["queued", "building", "ready", "failed", "canceled"]),
  step: z.string(),
  log: z.string(),
  /** Name of the image. */
  image: z.string(),
  digest: z.string().exactOptional(),
  sizeBytes: z.number(),
  error: z.string().exactOptional(),
  createdAt: z.number(),
  updatedAt: z.number(),
  finishedAt: z.number().exactOptional(),
});
/** Times are ms since 1970. */
export type Build = z.infer<typeof BUILD>;

export interface EnvironmentStore {
  documents<T>(kind: string, schema: z.ZodType<T>): T[];
  putDocument(kind: string, record: { id: string }): Promise<void>;
  deleteDocument(kind: string, id: string): Promise<void>;
}

export interface EnvironmentsOptions {
  store: EnvironmentStore;
  images: ImageLibrary;
  /** Is told of a state that could not be kept. */
  report: (error: unknown) => void;
  now?: () => number;
}

export type SpecInput = Pick<Spec, "owner" | "user" | "name" | "baseImage" | "pythonPackages" | "aptPackages"> & {
  pythonVersion?: string;
};

const SPECS = "environment";
const BUILDS = "environment-build";
/** Of an owner each: nobody's are refused or forgotten for another owner's. */
const MAX_SPECS = 500;
const MAX_WAITING = 128;
/** The image of one that is forgotten stays until images are collected. */
const KEEP_BUILDS = 200;
const LOG_LENGTH = 32_768;
/** One that hangs must not keep the others waiting for ever. */
const MAX_BUILD_MS = 3_600_000;
/** Of the sandbox of a build. */
export const BUILD_DISK_MIB = 8_192;

export class Environments implements AsyncDisposable {
  readonly #store: EnvironmentStore;
  readonly #images: ImageLibrary;
  readonly #report: (error: unknown) => void;
  readonly #now: () => number;
  readonly #specs: Map<string, Spec>;
  readonly #builds: Map<string, Build>;
  /** Of builds that wait or are done now. */
  readonly #running = new Map<string, AbortController>();
  /** What makes and removes looks first, and what it saw has to hold until it is written. */
  readonly #changes = new SerialQueue();
  readonly #queue = new FairQueue();
  #closing = false;

  constructor({ store, images, report, now = Date.now }: EnvironmentsOptions) {
    this.#store = store;
    this.#images = images;
    this.#report = report;
    this.#now = now;
    this.#specs = new Map(store.documents(SPECS, SPEC).map((spec) => [spec.id, spec]));
    this.#builds = new Map(store.documents(BUILDS, BUILD).map((build) => [build.id, build]));
    for (const build of this.#builds.values()) {
      if (isFinal(build)) continue;
      void this.#end(build, "failed", "the server ended before the build did").catch(report);
    }
  }

  /** Ends the build that is done now. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing = true;
    for (const controller of this.#running.values()) controller.abort(new Error("the server is stopping"));
    await this.#queue.idle();
  }

  /** Of a user, newest first. @param owner absent: of all */
  specs(user: string, owner: string | undefined): Spec[] {
    return [...this.#specs.values()]
      .filter((spec) => spec.user === user && (owner === undefined || spec.owner === owner))
      .sort((a, b) => b.createdAt - a.createdAt);
  }

  /** @throws StacyError `not-found` */
  spec(id: string, owner: string | undefined): Spec {
    const found = this.#specs.get(id);
    if (found !== undefined && (owner === undefined || found.owner === owner)) return found;
    throw new StacyError("not-found", `there is no environment ${JSON.stringify(id.slice(0, 64))}`);
  }

  /** @throws StacyError `invalid`, `limit`, `conflict` when the user has one of that name */
  create(input: SpecInput): Promise<Spec> {
    return this.#changes.run(() => this.#create(input));
  }

  async #create(input: SpecInput): Promise<Spec> {
    const mine = [...this.#specs.values()].filter(({ owner }) => owner === input.owner);
    if (mine.length >= MAX_SPECS) {
      throw new StacyError("limit", `there are ${MAX_SPECS} environments already`, { remedy: "delete some" });
    }
    if (mine.some(({ user, name }) => user === input.user && name === input.name)) {
      throw new StacyError("conflict", `there is an environment ${JSON.stringify(input.name)} already`);
    }
    const spec: Spec = {
      ...input,
      id: randomUUID(),
      pythonPackages: packageList(input.pythonPackages),
      aptPackages: packageList(input.aptPackages),
      createdAt: this.#now(),
    };
    parseReference(spec.baseImage); // what cannot be one is said now, and never becomes a line of a Dockerfile
    await this.#store.putDocument(SPECS, spec);
    this.#specs.set(spec.id, spec);
    return spec;
  }

  /** Its builds are forgotten with it; their images stay until images are collected. @throws StacyError `not-found`, `conflict` */
  remove(id: string, owner: string | undefined): Promise<void> {
    return this.#changes.run(async () => {
      this.spec(id, owner);
      const builds = this.builds(id);
      if (builds.some((build) => !isFinal(build))) {
        throw new StacyError("conflict", "it is being built", { remedy: "cancel the build first" });
      }
      for (const build of builds) await this.#drop(build.id);
      await this.#store.deleteDocument(SPECS, id);
      this.#specs.delete(id);
    });
  }

  /** Newest first. */
  builds(specId: string): Build[] {
    return [...this.#builds.values()]
      .filter((build) => build.specId === specId)
      .sort((a, b) => b.createdAt - a.createdAt);
  }

  /** @throws StacyError `not-found` */
  build(id: string, owner: string | undefined): { build: Build; spec: Spec } {
    const build = this.#builds.get(id);
    const spec = build === undefined ? undefined : this.#specs.get(build.specId);
    if (build !== undefined && spec !== undefined && (owner === undefined || spec.owner === owner))
      return { build, spec };
    throw new StacyError("not-found", `there is no build ${JSON.stringify(id.slice(0, 64))}`);
  }

  /** The build is queued. @param start gives the sandbox that it is done in. @throws StacyError `not-found`, `limit`, `unavailable` */
  start(spec: Spec, start: BuildOptions["start"]): Promise<Build> {
    return this.#changes.run(() => this.#start(spec, start));
  }

  async #start(spec: Spec, start: BuildOptions["start"]): Promise<Build> {
    this.spec(spec.id, spec.owner); // it may have been removed meanwhile
    if (this.#closing) throw new StacyError("unavailable", "the server is stopping");
    if (this.#queue.waiting(spec.owner) >= MAX_WAITING)
      throw new StacyError("limit", `${MAX_WAITING} builds are waiting already`);
    const id = randomUUID();
    const now = this.#now();
    const build: Build = {
      ...{ id, specId: spec.id, status: "queued", step: "queued", log: "build queued", image: imageOf(spec, id) },
      ...{ sizeBytes: 0, createdAt: now, updatedAt: now },
    };
    const controller = new AbortController();
    this.#running.set(id, controller);
    try {
      await this.#save(build);
    } catch (error) {
      this.#running.delete(id);
      throw error;
    }
    this.#queue.add(spec.owner, async () => {
      await this.#run(build, spec, start, controller.signal).catch(this.#report);
      this.#running.delete(id);
      await this.#forget(spec.owner).catch(this.#report);
    });
    return build;
  }

  /** @throws StacyError `not-found`, `conflict` when it has ended */
  async cancel(id: string, owner: string | undefined): Promise<Build> {
    const { build } = this.build(id, owner);
    if (isFinal(build)) throw new StacyError("conflict", "the build has ended already");
    const canceled = this.#end(build, "canceled", "the build was cancelled");
    // Not after the database has it: its turn may come meanwhile.
    this.#running.get(id)?.abort(new Error("the build was cancelled"));
    return await canceled;
  }

  async #run(queued: Build, spec: Spec, start: BuildOptions["start"], signal: AbortSignal): Promise<void> {
    const { id } = queued;
    if (signal.aborted) return await this.#finish(id, "failed", "the server is stopping");
    let log = `${queued.log}\nbuild started`;
    const add = (text: string): void => {
      log = `${log}${text}`.slice(-LOG_LENGTH);
      const build = this.#builds.get(id);
      // In memory only: the end is written with all of it.
      if (build !== undefined && !isFinal(build)) this.#builds.set(id, { ...build, log, updatedAt: this.#now() });
    };
    let shown = "";
    await this.#save({ ...queued, status: "building", step: "docker_build", log, updatedAt: this.#now() });
    try {
      const { image } = await buildImage(readPlan(dockerfileOf(spec)), queued.image, {
        images: this.#images.of({ name: spec.owner }),
        start,
        diskMiB: BUILD_DISK_MIB,
        signal: AbortSignal.any([signal, AbortSignal.timeout(MAX_BUILD_MS)]),
        progress: ({ step }) => {
          if (step !== shown) add(`\n${step}`);
          shown = step;
        },
        output: (text) => add(`\n${text.toString("utf8").trimEnd()}`),
      });
      await this.#finish(id, "ready", undefined, { digest: image.digest, sizeBytes: image.sizeBytes });
    } catch (error) {
      const { message, remedy } = asStacyError(error);
      await this.#finish(id, "failed", remedy === undefined ? message : `${message} (${remedy})`);
    }
  }

  /** Unless it was cancelled meanwhile. */
  async #finish(id: string, status: Build["status"], error?: string, more: Partial<Build> = {}): Promise<void> {
    const build = this.#builds.get(id);
    if (build !== undefined && !isFinal(build)) await this.#end({ ...build, ...more }, status, error);
  }

  async #end(build: Build, status: Build["status"], error?: string): Promise<Build> {
    const now = this.#now();
    return await this.#save({
      ...build,
      ...{ status, step: status === "canceled" ? "canceled" : "finalize", updatedAt: now, finishedAt: now },
      log: `${build.log}\n${error ?? "build completed"}`.slice(-LOG_LENGTH),
      ...(error === undefined ? {} : { error: error.slice(0, 4_096) }),
    });
  }

  async #save(build: Build): Promise<Build> {
    this.#builds.set(build.id, build);
    await this.#store.putDocument(BUILDS, build);
    return build;
  }

  async #forget(owner: string): Promise<void> {
    const ended = [...this.#builds.values()]
      .filter((build) => isFinal(build) && this.#specs.get(build.specId)?.owner === owner)
      .sort((a, b) => b.createdAt - a.createdAt);
    for (const { id } of ended.slice(KEEP_BUILDS)) await this.#drop(id);
  }

  async #drop(buildId: string): Promise<void> {
    await this.#store.deleteDocument(BUILDS, buildId);
    this.#builds.delete(buildId);
  }
}

function isFinal({ status }: Build): boolean {
  return status === "ready" || status === "failed" || status === "canceled";
}
