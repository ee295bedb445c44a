/** Collects images from time to time, so that what a moved tag left behind goes without anybody asking. */
import { type CaredFor, collectImages, type ImageUsers } from "./care.ts";
import type { ImageLibrary } from "./image.ts";

export interface KeeperOptions {
  library: ImageLibrary;
  users: () => readonly ImageUsers[];
  /** ms between collections; 0: none. */
  everyMs: number;
  /** 0: no limit. */
  maxBytes: number;
  /** What went, or why it could not. */
  report(done: CaredFor | { error: unknown }): void;
}

/** Runs until disposed of; a collection under way is waited for. */
export class ImageKeeper implements AsyncDisposable {
  readonly #options: KeeperOptions;
  readonly #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(options: KeeperOptions) {
    this.#options = options;
    if (options.everyMs > 0) this.#timer = setInterval(() => void this.collect(), options.everyMs).unref();
  }

  /** One collection, after those that are under way. Never rejects. */
  collect(): Promise<void> {
    const { library, users, maxBytes, report } = this.#options;
    this.#running = this.#running
      .then(() => collectImages(library, users(), maxBytes > 0 ? { maxBytes } : {}))
      .then(report, (error: unknown) => report({ error }));
    return this.#running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#running;
  }
}
