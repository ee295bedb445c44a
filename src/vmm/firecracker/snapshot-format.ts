/** Which release's snapshots another one can read: its `--snapshot-version` says so, docs/snapshotting/versioning.md how. */
import { StacyError } from "../../host/error.ts";

export interface SavedFormat {
  /** Of Firecracker. */
  version: string;
  /** Of its snapshots, for example `6.0.0`. */
  snapshotFormat: string;
}

/** @throws StacyError `not-supported` */
export function checkFormat(saved: Partial<SavedFormat>, own: SavedFormat): void {
  const [theirs, ours] = [numbers(saved.snapshotFormat), numbers(own.snapshotFormat)];
  // What does not say it is judged by the load.
  if (theirs === undefined || ours === undefined) return;
  if (theirs.major === ours.major && theirs.minor <= ours.minor) return;
  const version = saved.version ?? "another version";
  throw new StacyError(
    "not-supported",
    `it was saved by Firecracker ${version}, whose snapshots ${own.version} cannot load`,
    {
      phase: "load",
      remedy: `run Firecracker ${version} to use it: set STACYVM_FIRECRACKER to its path and start the server with it`,
    },
  );
}

function numbers(format = ""): { major: number; minor: number } | undefined {
  const match = /^(\d+)\.(\d+)/.exec(format);
  return match === null ? undefined : { major: Number(match[1]), minor: Number(match[2]) };
}
