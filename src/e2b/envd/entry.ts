/** A file of the guest as E2B's clients see it. */
import { posix } from "node:path";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Agent, FileStat } from "../../guest/agent.ts";
import { type EntryInfo, EntryInfoSchema, FileType } from "./gen/filesystem/filesystem_pb.ts";
import { metadataOf } from "./metadata.ts";
import type { Users } from "./users.ts";

/** @param stat with the attributes `METADATA` */
export async function entryOf(agent: Agent, stat: FileStat, users: Users): Promise<EntryInfo> {
  return create(EntryInfoSchema, {
    name: posix.basename(stat.path) || "/",
    type: await typeOf(agent, stat),
    path: stat.path,
    size: BigInt(stat.size),
    mode: stat.mode & 0o777,
    permissions: permissions(stat),
    owner: users.userName(stat.uid),
    group: users.groupName(stat.gid),
    modifiedTime: timestampFromMs(Math.floor(stat.mtimeMs)),
    metadata: metadataOf(stat),
    ...(stat.target === undefined ? {} : { symlinkTarget: posix.resolve(posix.dirname(stat.path), stat.target) }),
  });
}

/** A link is what it leads to, with the target beside it. */
async function typeOf(agent: Agent, stat: FileStat): Promise<FileType> {
  const { kind } = stat.kind === "symlink" ? await agent.stat(stat.path).catch(() => stat) : stat;
  switch (kind) {
    case "file":
      return FileType.FILE;
    case "directory":
      return FileType.DIRECTORY;
    case "symlink":
      return FileType.SYMLINK;
    default:
      return FileType.UNSPECIFIED;
  }
}

/** As Go writes a mode: `drwxr-xr-x`, `Lrwxrwxrwx`. */
function permissions({ kind, mode }: FileStat): string {
  const type = kind === "directory" ? "d" : kind === "symlink" ? "L" : "-";
  const bits = [...(mode & 0o777).toString(2).padStart(9, "0")];
  return type + bits.map((bit, i) => (bit === "1" ? "rwx".charAt(i % 3) : "-")).join("");
}
