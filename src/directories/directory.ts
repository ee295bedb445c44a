/** A directory of the host in a sandbox. */
export interface HostDirectory {
  /** Absolute, without links in it. */
  source: string;
  /** In the guest. */
  path: string;
  readOnly: boolean;
}

/** One that is mounted in a guest. */
export interface MountedDirectory extends HostDirectory {
  /** Whom the host's files belong to there. */
  uid: number;
  gid: number;
}

/** What becomes of them in copies of a machine. */
export const COPIED_DIRECTORIES = ["read_only", "none"] as const;
export type CopiedDirectories = (typeof COPIED_DIRECTORIES)[number];
