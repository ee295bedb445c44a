/**
 * The directories of one guest, while it runs: a helper for each (helper.ts), and the guest's requests led to it. Whatever ends, the channel, the
 * helper, the machine's pause, the guest's kernel waits, and whoever comes next is told by the guest what it must know.
 */
import type { Duplex } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { asStacyError, StacyError } from "../host/error.ts";
import { relay } from "../host/relay.ts";
import type { HostDirectory, MountedDirectory } from "./directory.ts";
import { type Helper, type HelperOptions, startHelper } from "./helper.ts";

/** Between attempts, ms. */
const PAUSE_MS = { first: 100, most: 5_000 };
/** After these no attempt will do better: the guest is gone, or has no such mount (any more). */
const FINAL = new Set<StacyError["code"]>(["not-found", "not-supported"]);

/** What it needs of a guest's agent. */
export interface DirectoryGuest {
  /** Mounts it, with nobody behind it yet. */
  share(directory: { path: string; readOnly: boolean; withinMs?: number }): Promise<{ uid: number; gid: number }>;
  /** FUSE requests to it, and the answers to them. */
  serve(path: string, options?: { signal?: AbortSignal }): Promise<Duplex>;
}

export interface ServingOptions extends HelperOptions {
  /** What a guest asks for is an error there when nothing was answered for so long, ms; 30 s if not given. */
  withinMs?: number;
  /** Is told of each start that failed; the same failure once. */
  failed?: (directory: HostDirectory, error: StacyError) => void;
}

export class ServedDirectories {
  readonly #guest: DirectoryGuest;
  readonly #options: ServingOptions;
  #list: readonly MountedDirectory[];
  #serving: AbortController | undefined;
  /** Those that run, by where their directories are in the guest. */
  readonly #running = new Map<string, Helper>();

  constructor(guest: DirectoryGuest, list: readonly MountedDirectory[], options: ServingOptions) {
    this.#guest = guest;
    this.#list = list;
    this.#options = options;
  }

  /** In a new guest, those above first. @returns what is mounted from now on, and served after `start` */
  async mount(list: readonly HostDirectory[]): Promise<readonly MountedDirectory[]> {
    const mounted: MountedDirectory[] = [];
    const { withinMs } = this.#options;
    for (const { path, readOnly, ...more } of list) {
      const limit = withinMs === undefined ? {} : { withinMs };
      mounted.push({ path, readOnly, ...more, ...(await this.#guest.share({ path, readOnly, ...limit })) });
    }
    this.#list = mounted;
    return mounted;
  }

  /** Pids of the helpers that run. */
  get helpers(): ReadonlySet<number> {
    return new Set([...this.#running.values()].map(({ pid }) => pid));
  }

  /** What the guest has open to write of the directory there: paths in it. Nothing where nobody serves it. */
  async openToWrite(path: string): Promise<Buffer[]> {
    return (await this.#running.get(path)?.openToWrite()) ?? [];
  }

  /** From now on requests are answered, also after an end of whatever is in between. */
  start(): void {
    if (this.#serving !== undefined || this.#list.length === 0) return;
    this.#serving = new AbortController();
    const { signal } = this.#serving;
    for (const directory of this.#list) void this.#keepServing(directory, signal);
  }

  /** Helpers are ended, and requests wait. It can be started again. */
  stop(): void {
    this.#serving?.abort(new StacyError("cancelled", "the directories of the host are not served any more"));
    this.#serving = undefined;
  }

  async #keepServing(directory: MountedDirectory, signal: AbortSignal): Promise<void> {
    let told = "";
    const failed = (error: StacyError): void => {
      if (told !== error.message) this.#options.failed?.(directory, error);
      told = error.message;
    };
    for (let pause = PAUSE_MS.first; ; pause = Math.min(2 * pause, PAUSE_MS.most)) {
      const begun = performance.now();
      try {
        await this.#serve(directory, signal, failed);
        // One that has served for a while begins anew.
        if (performance.now() - begun > PAUSE_MS.most) pause = PAUSE_MS.first;
      } catch (thrown) {
        const error = asStacyError(thrown);
        if (signal.aborted) return;
        failed(error);
        if (FINAL.has(error.code)) return;
      }
      await delay(pause, undefined, { ref: false, signal }).catch(() => {});
      if (signal.aborted) return;
    }
  }

  /** Until one of the two ends is gone. @param failed is told at once when it hangs: one that hangs on a disk may not even end */
  async #serve(directory: MountedDirectory, signal: AbortSignal, failed: (error: StacyError) => void): Promise<void> {
    await using helper = await startHelper(this.#options, directory);
    this.#running.set(directory.path, helper);
    try {
      signal.throwIfAborted();
      const guest = await this.#guest.serve(directory.path, { signal });
      const over = Promise.withResolvers<void>();
      const stop = (error?: Error): void => {
        if (error instanceof StacyError && error.code === "timeout") {
          failed(
            new StacyError("timeout", `the directory ${directory.source} does not answer: ${error.message}`, {
              remedy: "look at the disk that it is on",
            }),
          );
        }
        over.resolve();
      };
      const abort = (): void => stop();
      signal.addEventListener("abort", abort, { once: true });
      relay(guest, helper.requests, stop);
      relay(helper.answers, guest, stop);
      await Promise.race([over.promise, helper.ended]);
      signal.removeEventListener("abort", abort);
      guest.destroy();
    } finally {
      if (this.#running.get(directory.path) === helper) this.#running.delete(directory.path);
    }
  }
}
