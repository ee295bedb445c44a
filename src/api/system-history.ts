/** The host's load over the last hour, for whoever looks later. */
import { SystemSampler, type SystemStats } from "./system-stats.ts";

const EVERY_MS = 10_000;
const KEPT = 360;

export class SystemHistory {
  /** Oldest first; `at` in ms since 1970. */
  readonly samples: (SystemStats & { at: number })[] = [];

  /** @param dir whose filesystem `disk_pct` is about @param stop ends it */
  constructor(dir: string, stop: AbortSignal) {
    const sampler = new SystemSampler(dir);
    const timer = setInterval(() => {
      sampler.read().then(
        (stats) => {
          this.samples.push({ at: Date.now(), ...stats });
          if (this.samples.length > KEPT) this.samples.shift();
        },
        () => {}, // a gap in a chart
      );
    }, EVERY_MS);
    timer.unref();
    stop.addEventListener("abort", () => clearInterval(timer), { once: true });
  }
}
