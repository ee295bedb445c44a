/** A directory of the host in a sandbox. */
export interface HostDirectory {
  /** Absolute, without links in it. */
  source: string;
  /** In the guest. */
  path: string;
  readOnly: boolean;
  /** Of a copy of a machine: what it writes lies in a layer of its own (layer.ts), of so many bytes at most. */
  layer?: { name: string; bytes: number };
}

/** One that is mounted in a guest. */
export interface MountedDirectory extends HostDirectory {
  /** Whom the host's files belong to there. */
  uid: number;
  gid: number;
}

/** What becomes of them in copies of a machine. */
export const COPIED_DIRECTORIES = ["read_only", "copy_on_write", "none"] as const;
export type CopiedDirectories = (typeof COPIED_DIRECTORIES)[number];

/** What a copy of a machine has of them. @param bytes that each layer of its own may take */
export function copied<T extends HostDirectory>(
  list: readonly T[] | undefined,
  how: CopiedDirectories,
  bytes: number,
): T[] | undefined {
  if (how === "none") return undefined;
  return list?.map((each, at) =>
    how === "read_only" || each.readOnly
      ? { ...each, readOnly: true }
      : { ...each, layer: each.layer ?? { name: String(at), bytes } },
  );
}
