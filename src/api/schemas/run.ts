import { z } from "@hono/zod-openapi";
import { GuestPath, maybe } from "./common.ts";
import { ExecBody, ExecRequest } from "./exec.ts";
import { BootBody, SpawnRequest } from "./sandbox.ts";

/** Files that one run brings along, and that it gives back. */
const MOST_FILES = 64;

/** Its sandbox is gone before anybody could call it by a name. */
export const RunRequest = SpawnRequest.omit({ name: true })
  .extend(ExecRequest.shape)
  .extend({
    files: maybe(
      z
        .array(
          z.object({
            path: GuestPath,
            content: z.string(),
            encoding: maybe(z.enum(["utf8", "base64"])),
            mode: maybe(z.int().min(0).max(0o7777)).openapi({ type: "integer", description: "Default: 0644 (420)" }),
          }),
        )
        .max(MOST_FILES),
    ).openapi({ description: "Written before the command starts; missing directories are made" }),
    collect: maybe(z.array(GuestPath).max(MOST_FILES)).openapi({
      description: "Files to give back when the command has ended, 16 MiB together",
    }),
  })
  .openapi("RunRequest");

export const RunBody = ExecBody.extend({
  sandbox_id: z.string().openapi({ description: "Of the sandbox, which is gone" }),
  boot: BootBody.pick({ path: true, total_ms: true }).optional(),
  files: z.record(z.string(), z.string()).openapi({ description: "What `collect` names, by path, in base64" }),
  missing: z.array(z.string()).openapi({ description: "What `collect` names and the sandbox has not" }),
}).openapi("RunResult");
