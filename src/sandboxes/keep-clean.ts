/** What goes by itself on a server that stays: images that nobody needs, snapshots over their limits. */
import { Periodic } from "../host/periodic.ts";
import { collectImages, type ImageUsers } from "../images/care.ts";
import type { ImageLibrary } from "../images/image.ts";
import type { Provider } from "../providers/provider.ts";
import type { Log } from "./observer.ts";
import { collectSnapshots, type SnapshotOwner } from "./snapshot-collection.ts";

export interface KeepCleanOptions {
  providers: readonly Provider[];
  images: ImageLibrary;
  imageUsers: readonly ImageUsers[];
  /** `everyMs` 0: never by itself. Other limits, 0: none. */
  imageLimits: { maxBytes: number; everyMs: number };
  snapshots: readonly SnapshotOwner[];
  snapshotLimits: { maxBytes: number; maxUnusedMs: number; checkpoints: boolean; everyMs: number };
  log: Log;
}

/** Works until it is disposed, which waits for the round under way. */
export function keepClean(options: KeepCleanOptions): AsyncDisposable {
  const { providers, snapshots: owners, images, imageUsers, imageLimits, snapshotLimits, log } = options;
  const owned = new AsyncDisposableStack();
  owned.use(
    new Periodic({
      everyMs: imageLimits.everyMs,
      work: () => collectImages(images, imageUsers, some({ maxBytes: imageLimits.maxBytes })),
      report: (done) => {
        if ("error" in done) log.warn({ phase: "image-gc", err: done.error }, "could not collect images");
        else if (done.images.length + done.blobs.length > 0)
          log.info({ phase: "image-gc", ...done }, "collected images");
      },
    }),
  );
  const { maxBytes, maxUnusedMs, checkpoints, everyMs } = snapshotLimits;
  const snapshots = owned.use(
    new Periodic({
      everyMs,
      work: (signal) =>
        collectSnapshots(owners, Date.now(), { checkpoints, signal, ...some({ maxBytes, maxUnusedMs }) }),
      report: (done) => {
        if ("error" in done) log.warn({ phase: "snapshot-gc", err: done.error }, "could not collect snapshots");
        else if (done.removed.length > 0) {
          log.info({ phase: "snapshot-gc", removed: done.removed }, "collected snapshots");
        }
      },
    }),
  );
  // A new one may be what is too much.
  for (const provider of everyMs === 0 ? [] : providers) {
    owned.defer(
      provider.onEvent(({ type }) => {
        if (type === "snapshot.built") void snapshots.now();
      }),
    );
  }
  return owned;
}

/** Only the limits that are set. */
function some<K extends string>(limits: Record<K, number>): Partial<Record<K, number>> {
  return Object.fromEntries(Object.entries(limits).filter(([, limit]) => limit !== 0)) as Partial<Record<K, number>>;
}
