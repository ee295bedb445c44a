import { z } from "@hono/zod-openapi";
import type { FileStat } from "../../guest/agent.ts";
import { GuestPath, maybe } from "./common.ts";
import { defined, iso } from "./sandbox.ts";

/** Permission bits in octal: `0644`, `755`. */
export const Mode = z
  .string()
  .regex(/^(0o?)?[0-7]{1,4}$/, "must be octal permission bits such as 0644")
  .transform((text) => Number.parseInt(text.replace(/^0o/, ""), 8))
  .openapi({ type: "string", example: "0644" });

export const WriteFileRequest = z
  .object({
    path: GuestPath,
    content: maybe(z.string()),
    mode: maybe(z.union([z.literal("").transform(() => undefined), Mode])).openapi({ type: "string", example: "0644" }),
    encoding: maybe(z.enum(["utf8", "base64"])),
    append: maybe(z.boolean()),
  })
  .openapi("WriteFileRequest");

export const MoveRequest = z.object({ old_path: GuestPath, new_path: GuestPath }).openapi("MoveRequest");
export const CopyRequest = z
  .object({ old_path: GuestPath, new_path: GuestPath, recursive: maybe(z.boolean()) })
  .openapi("CopyRequest");
export const ChmodRequest = z
  .object({ path: GuestPath, mode: Mode, recursive: maybe(z.boolean()) })
  .openapi("ChmodRequest");
export const MkdirRequest = z.object({ path: GuestPath, mode: maybe(Mode) }).openapi("MkdirRequest");

export const FileBody = z
  .object({
    path: z.string(),
    name: z.string(),
    size: z.int(),
    mode: z.string().openapi({ description: "Permission bits in octal", example: "644" }),
    is_dir: z.boolean(),
    mod_time: z.string(),
    kind: z.enum(["file", "directory", "symlink", "other"]),
    uid: z.int(),
    gid: z.int(),
    target: z.string().optional(),
  })
  .openapi("FileInfo");

export function fileBody(stat: FileStat): z.output<typeof FileBody> {
  return {
    path: stat.path,
    name: stat.path.replace(/\/+$/, "").split("/").at(-1) || "/",
    size: stat.size,
    mode: stat.mode.toString(8),
    is_dir: stat.kind === "directory",
    mod_time: iso(stat.mtimeMs),
    kind: stat.kind,
    uid: stat.uid,
    gid: stat.gid,
    ...defined({ target: stat.target }),
  };
}
