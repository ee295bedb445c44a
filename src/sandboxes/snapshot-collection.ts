/**
 * Saved machines under a disk limit, over all providers: what was not used for long goes, then what was used longest ago,
 * until the rest fits. Never one that a machine runs from, and a checkpoint only when that is asked for, since only its user can
 * make it again.
 */
import { asStacyError } from "../host/error.ts";
import type { SnapshotInfo } from "../providers/provider.ts";

export interface CollectSnapshotsOptions {
  /** What may stay, bytes; 0: nothing, not even what was used last. Absent: only `maxUnusedMs` counts. */
  maxBytes?: number;
  /** One that was not used for so long goes, whether there is room or not. */
  maxUnusedMs?: number;
  /** Checkpoints may go too. */
  checkpoints?: boolean;
  /** Only say what would go. */
  dryRun?: boolean;
  signal?: AbortSignal;
}

export interface JudgedSnapshot {
  key: string;
  image: string;
  bytes: number;
  /** For people. */
  reason: string;
}

export interface CollectedSnapshots {
  removed: JudgedSnapshot[];
  /** With why they stayed. */
  kept: JudgedSnapshot[];
}

/** Whoever has saved machines. */
export interface SnapshotOwner {
  snapshots(): Promise<SnapshotInfo[]>;
  /** With what is known of it elsewhere. */
  removeSnapshot(key: string): Promise<void>;
}

export async function collectSnapshots(
  owners: readonly SnapshotOwner[],
  now: number,
  options: CollectSnapshotsOptions,
): Promise<CollectedSnapshots> {
  const lists = await Promise.all(
    owners.map(async (owner) => (await owner.snapshots()).map((info) => ({ info, owner }))),
  );
  const all = lists.flat().sort((a, b) => a.info.lastUsedAt - b.info.lastUsedAt);
  const done: CollectedSnapshots = { removed: [], kept: [] };
  let total = all.reduce((sum, { info }) => sum + info.bytes, 0);
  for (const [at, { info, owner }] of all.entries()) {
    options.signal?.throwIfAborted();
    const { key, image, bytes } = info;
    const judged = (reason: string): JudgedSnapshot => ({ key, image, bytes, reason });
    const against = whyGo(info, total, now, options);
    if (against === undefined) {
      done.kept.push(judged("there is room for it"));
      continue;
    }
    const stays = whyStay(info, at === all.length - 1, options);
    if (stays !== undefined) {
      done.kept.push(judged(stays));
      continue;
    }
    if (options.dryRun !== true) {
      try {
        await owner.removeSnapshot(key);
      } catch (thrown) {
        // Somebody started from it, or removed it, in between.
        done.kept.push(judged(asStacyError(thrown).message));
        continue;
      }
    }
    done.removed.push(judged(against));
    total -= bytes;
  }
  return done;
}

function whyGo(info: SnapshotInfo, total: number, now: number, options: CollectSnapshotsOptions): string | undefined {
  const since = `last used ${new Date(info.lastUsedAt).toISOString()}`;
  const { maxBytes, maxUnusedMs } = options;
  if (maxUnusedMs !== undefined && now - info.lastUsedAt > maxUnusedMs) {
    return `${since}, longer ago than ${Math.round(maxUnusedMs / 3_600_000)} h`;
  }
  if (maxBytes !== undefined && total > maxBytes)
    return `${since}; ${size(total)} in all, the limit is ${size(maxBytes)}`;
  return undefined;
}

function size(bytes: number): string {
  return bytes < 2 ** 20 ? `${bytes} B` : `${Math.round(bytes / 2 ** 20)} MiB`;
}

function whyStay({ inUse, kind }: SnapshotInfo, last: boolean, options: CollectSnapshotsOptions): string | undefined {
  // A limit that is too small for one would have every spawn build it anew.
  if (last && options.maxBytes !== 0) return "it was used last of all";
  if (inUse > 0) return `${inUse} ${inUse === 1 ? "machine runs" : "machines run"} from it`;
  return kind === "checkpoint" && options.checkpoints !== true ? "a checkpoint goes only when asked for" : undefined;
}
