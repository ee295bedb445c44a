import { z } from "@hono/zod-openapi";
import type { Identity } from "../../access/identity.ts";
import type { HostDirectory } from "../../directories/directory.ts";
import type { DirectoryCaller, DirectoryInput } from "../../sandboxes/directories.ts";
import { GuestText, maybe } from "./common.ts";

/** With a spawn: a directory of the host, and where it is in the sandbox. */
export const DirectoryRequest = z
  .object({
    source: GuestText.max(4_096).openapi({ example: "/srv/project", description: "Absolute, on the server's host" }),
    target: GuestText.max(1_024).openapi({ example: "/work", description: "Where it is; made where it is not there" }),
    read_only: maybe(z.boolean()).openapi({ type: "boolean", description: "The sandbox cannot change it" }),
  })
  .openapi("DirectoryRequest");

export const DirectoryBody = z
  .object({
    ...{ source: z.string(), target: z.string(), read_only: z.boolean() },
    copy_on_write: z.literal(true).optional().openapi({ description: "What the sandbox writes stays in it" }),
  })
  .openapi("Directory");

/** Who asks, as far as directories are concerned. */
export function directoryCaller({ scopes, local }: Identity): DirectoryCaller {
  return { administrator: scopes.has("admin"), ownUser: local === true };
}

export function directoryInput(mounts: z.output<typeof DirectoryRequest>[] | undefined): DirectoryInput[] | undefined {
  return mounts?.map(({ source, target, read_only }) => ({ source, target, readOnly: read_only === true }));
}

export function directoryBody({ source, path, readOnly, layer }: HostDirectory): z.output<typeof DirectoryBody> {
  const own = layer === undefined || readOnly ? {} : { copy_on_write: true as const };
  return { source, target: path, read_only: readOnly, ...own };
}
