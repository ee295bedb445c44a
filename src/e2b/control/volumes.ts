/**
 * E2B's volumes: named volumes of the caller's owner (volumes/volumes.ts), by their ids. Their files are those of the sandboxes that have them:
 * a volume is a disk that only a guest's kernel reads, so the routes to files of one that no sandbox has are refused by name.
 */
import { z } from "zod";
import { StacyError } from "../../host/error.ts";
import type { VolumeInfo } from "../../volumes/volumes.ts";
import { errorResponse, notThere } from "../error.ts";
import type { SandboxTokens } from "../sandbox-tokens.ts";
import type { ControlContext } from "./env.ts";
import type { ControlRoutes } from "./routes.ts";

/** Clients name none. It occupies what is written to it. */
const SIZE_MIB = 10 * 1024;
/** The user of E2B's templates, whose programs write to it. */
const USER_ID = 1000;

const NewVolume = z.object({ name: z.string().max(128) });

export interface VolumeRoutesParts {
  tokens: SandboxTokens;
  read<S extends z.ZodType>(c: ControlContext, schema: S): Promise<z.output<S>>;
  domainOf(c: ControlContext): string | undefined;
}

export function volumeRoutes(routes: ControlRoutes, { tokens, read, domainOf }: VolumeRoutesParts): void {
  /** Of the caller's own: other owners' names are not the administrator's. */
  const own = async ({ var: { sandboxes } }: ControlContext): Promise<VolumeInfo[]> =>
    (await sandboxes.volumes.list()).filter(({ owner }) => owner === sandboxes.owner);
  const find = async (c: ControlContext): Promise<VolumeInfo> => {
    const wanted = c.req.param("id") ?? "";
    const found = (await own(c)).find(({ id }) => id === wanted);
    if (found === undefined)
      throw new StacyError("not-found", `there is no volume ${JSON.stringify(wanted.slice(0, 80))}`);
    return found;
  };
  const shown = ({ id, name }: VolumeInfo): Record<string, unknown> => ({ volumeID: id, name });
  const opened = (c: ControlContext, volume: VolumeInfo): Record<string, unknown> => {
    const { credential } = c.var;
    const token = credential === undefined ? "" : tokens.ofVolume(volume.id, credential);
    return { ...shown(volume), token, domain: domainOf(c) ?? null };
  };

  routes.on("GET", "/volumes", "read", async (c) => Response.json((await own(c)).map(shown)));
  routes.on("POST", "/volumes", "use", async (c) => {
    const { name } = await read(c, NewVolume);
    const made = await c.var.sandboxes.volumes.create({ name, sizeMiB: SIZE_MIB, rootOwner: USER_ID });
    return Response.json(opened(c, made), { status: 201 });
  });
  routes.on("GET", "/volumes/:id", "read", async (c) => Response.json(opened(c, await find(c))));
  routes.on("DELETE", "/volumes/:id", "use", async (c) => {
    await c.var.sandboxes.volumes.remove((await find(c)).name);
    return new Response(null, { status: 204 });
  });
  for (const path of ["/volumecontent", "/volumecontent/*"]) {
    const what = "files of a volume outside of a sandbox (they are there for sandboxes that have it: volumeMounts)";
    routes.on("ALL", path, "read", () => errorResponse(notThere(what)), { link: true });
  }
}

/** @returns the id of the volume whose files are asked for, and the token that is shown for it */
export function volumeShown({ url, headers }: Request): { id: string; token: string } | undefined {
  const [, id] = /^\/volumecontent\/([^/]+)(?:\/|$)/.exec(new URL(url).pathname) ?? [];
  const [, token] = /^bearer\s+(\S+)$/i.exec(headers.get("authorization") ?? "") ?? [];
  return id === undefined || token === undefined ? undefined : { id, token };
}
