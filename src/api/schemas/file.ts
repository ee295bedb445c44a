import { z } from "@hono/zod-openapi";
import type { FileStat } from "../../guest/agent.ts";
import { withoutEnd } from "../../host/trim.ts";
import { type ModeChange, parseMode } from "../file-mode.ts";
import { GuestPath, maybe } from "./common.ts";
import { defined, isoSeconds } from "./values.ts";

/** Permission bits in octal: `0644`, `755`. */
export const Mode = z
  .string()
  .transform((text, context): number => {
    const mode = parseMode(text);
    if (typeof mode === "number") return mode;
    context.addIssue({ code: "custom", message: "must be octal permission bits such as 0644" });
    return z.NEVER;
  })
  .openapi({ type: "string", example: "0644" });

/** The same, or letters that change what a file has: `+x`, `u=rw,go=`. */
const ModeOrChange = z
  .string()
  .max(64)
  .transform((text, context): number | ModeChange => {
    const mode = parseMode(text);
    if (mode !== undefined) return mode;
    context.addIssue({ code: "custom", message: "must be octal permission bits such as 0644, or a change such as +x" });
    return z.NEVER;
  })
  .openapi({ type: "string", example: "+x" });

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
  .object({ path: GuestPath, mode: ModeOrChange, recursive: maybe(z.boolean()) })
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
    mod_time_us: z.int(),
    kind: z.enum(["file", "directory", "symlink", "other"]),
    uid: z.int(),
    gid: z.int(),
    target: z.string().optional(),
  })
  .openapi("FileInfo");

export function fileBody(stat: FileStat): z.output<typeof FileBody> {
  return {
    path: stat.path,
    name: withoutEnd(stat.path, "/").split("/").at(-1) || "/",
    size: stat.size,
    mode: stat.mode.toString(8),
    is_dir: stat.kind === "directory",
    mod_time: isoSeconds(stat.mtimeMs),
    mod_time_us: Math.round(stat.mtimeMs * 1000),
    kind: stat.kind,
    uid: stat.uid,
    gid: stat.gid,
    ...defined({ target: stat.target }),
  };
}
