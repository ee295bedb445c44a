/**
 * What each Firecracker release can do, in one place. Sources: its CHANGELOG, docs/snapshotting, the issues named below, and
 * our own runs of 1.12.1 and 1.16.1.
 *
 * What newer releases offer and is not used:
 *   `huge_pages` at load (1.17)   clones share their memory by small pages of one file, and a private copy of 2 MiB for each page written is what they must not have
 *   `clock_realtime` (1.16)       the handshake sets the clock; this also moves the clock that does not count sleep, so every timer of a program that was
 *                                 saved runs out at once. Where the host's kernel is older than 5.16, or the snapshot does not have it, the load fails for good
 *   `vsock_override` (1.16)       the path in a snapshot is relative, and each process has a directory of its own
 */
import { StacyError } from "../../host/error.ts";

export interface VersionTraits {
  /** The field of `/snapshot/load` that turns on dirty tracking: renamed in 1.13 (#5274). */
  trackField: "enable_diff_snapshots" | "track_dirty_pages";
  /** Diff snapshots of machines without tracking, by mincore (1.13; 1.12 answers 400). */
  diffWithoutTracking: boolean;
  /** Diff files are right for guests above 3 GiB (before 1.15 they were corrupted, #5705). */
  diffAbove3GiB: boolean;
  /** A pause and resume with no snapshot in between leaves vsock usable (1.16.0 and 1.16.1: new connections hang for ever, #6074, until 1.16.2). */
  pauseResume: boolean;
  /** After a load or a save data waits until the guest's driver has acknowledged that its connections are gone (1.16, #5882). */
  holdsBack: boolean;
  /** `/entropy` (1.3). */
  entropy: boolean;
  /** What the user should know. */
  notes: string[];
}

const UNTRIED = "this release has not been run with StacyVM yet";

/** A release between `from` (inclusive) and the next entry behaves like this. */
const TABLE: readonly { from: string; refused?: string; traits?: Partial<VersionTraits>; note?: string }[] = [
  { from: "0.0.0", refused: "it is older than what the snapshot path was built on" },
  {
    from: "1.12.0",
    traits: {
      trackField: "enable_diff_snapshots",
      diffWithoutTracking: false,
      diffAbove3GiB: false,
      pauseResume: true,
      holdsBack: false,
      entropy: true,
    },
  },
  {
    from: "1.13.0",
    traits: { trackField: "track_dirty_pages", diffWithoutTracking: true },
    note: UNTRIED,
  },
  { from: "1.15.0", traits: { diffAbove3GiB: true }, note: UNTRIED },
  {
    from: "1.16.0",
    refused: "vsock can stay dead after a restore (firecracker#5969, fixed in 1.16.1)",
  },
  {
    from: "1.16.1",
    traits: { pauseResume: false, holdsBack: true },
    note: "pausing a sandbox without saving it is off: after it new vsock connections hang in 1.16.1 (firecracker#6074, fixed in 1.16.2)",
  },
  // Its snapshots have another format than those of 1.16.1: the key holds the version, so they never meet.
  { from: "1.16.2", traits: { pauseResume: true }, note: UNTRIED },
  { from: "1.17.0", note: UNTRIED },
];

const REMEDY =
  "install an official release, 1.16.2 or newer, and set STACYVM_FIRECRACKER; or the older 1.12.1 with `stacyvm setup`";

/** For a machine that runs already: `undefined` where nothing is known of its release. */
export function traitsOf(version: string | undefined): VersionTraits | undefined {
  if (version === undefined) return undefined;
  try {
    return versionTraits(version);
  } catch {
    return undefined;
  }
}

/**
 * @param version as `firecracker --version` prints it, for example `1.12.1`
 * @throws StacyError `not-supported` for a release that must not be used, with the reason
 */
export function versionTraits(version: string): VersionTraits {
  const wanted = parse(version);
  if (wanted === undefined) {
    throw new StacyError("not-supported", `"${version}" is not a Firecracker version`, { remedy: REMEDY });
  }
  let traits: Partial<VersionTraits> = {};
  let row = TABLE[0];
  for (const next of TABLE) {
    if (compare(parse(next.from) as number[], wanted) > 0) break;
    traits = { ...traits, ...next.traits };
    row = next;
  }
  if (row?.refused !== undefined) {
    throw new StacyError("not-supported", `Firecracker ${version} is refused: ${row.refused}`, { remedy: REMEDY });
  }
  return { ...(traits as Omit<VersionTraits, "notes">), notes: row?.note === undefined ? [] : [row.note] };
}

function parse(version: string): number[] | undefined {
  const match = /^(\d+)\.(\d+)\.(\d+)/.exec(version);
  return match?.slice(1).map(Number);
}

function compare(a: number[], b: number[]): number {
  for (let i = 0; i < 3; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
