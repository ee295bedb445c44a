/**
 * `./stacyvm.yaml`, which nobody has named: people start programs in directories that others wrote (a cloned repository, an unpacked
 * archive, `/tmp`). One that somebody else could have put there is not heard at all, and what it says of this host only where
 * a server is started, which is what such a file is for.
 */
import type { Stats } from "node:fs";
import { StacyError } from "../host/error.ts";
import { FILE_KEYS } from "./named-files.ts";

/** Programs of this host, directories with programs or data, files that are read, and what guests may reach of this host. */
const OF_THIS_HOST = [
  "data_dir",
  "database.path",
  "network.private",
  "network.host_ports",
  "mounts.allow",
  ...FILE_KEYS,
];

/** @returns why the file is not heard: it is, or may be, another user's */
export function whyForeign({ uid, mode }: Pick<Stats, "uid" | "mode">, own = process.getuid?.()): string | undefined {
  if (uid !== own && uid !== 0) return `it belongs to another user (uid ${uid})`;
  return (mode & 0o002) === 0 ? undefined : "everybody may write it";
}

/** @throws StacyError `permission` for a key that only a file may have that somebody has named */
export function assertHarmless(raw: Record<string, unknown>, path: string): void {
  const named = OF_THIS_HOST.filter((key) => isSet(key.split(".").reduce<unknown>(member, raw)));
  if (named.length === 0) return;
  throw new StacyError(
    "permission",
    `${path} sets ${named.join(", ")}, and lies in this directory without being named`,
    {
      phase: "config",
      remedy: `if it is yours, say so: \`export STACYVM_CONFIG=${path}\`; or go to another directory`,
    },
  );
}

function member(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null && Object.hasOwn(value, key)
    ? (value as Record<string, unknown>)[key]
    : undefined;
}

function isSet(value: unknown): boolean {
  return value !== undefined && value !== null && value !== "" && !(Array.isArray(value) && value.length === 0);
}
