import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "@hono/zod-openapi";
import { parseDocument } from "yaml";
import { validateConfig } from "../../config/load.ts";
import { configKeys, redact } from "../../config/schema.ts";
import { errno, StacyError } from "../../host/error.ts";
import { formatDuration } from "../../sandboxes/duration.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { ProviderBody, providerBody } from "../schemas/provider.ts";

const Anything = z.record(z.string(), z.unknown());

export function systemRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { providers, config, version } = parts;
  const tag = "system";
  const uptime = (): string => formatDuration(Date.now() - parts.startedAt);

  const Alive = z.object({ status: z.string(), version: z.string(), uptime: z.string() }).openapi("Health");
  for (const [path, status] of [
    ["/health", "ok"],
    ["/live", "alive"],
  ] as const) {
    endpoints.add(
      {
        method: "get",
        path,
        scope: "read",
        tag,
        summary: "The server answers",
        responses: { 200: { description: "It does", schema: Alive } },
      },
      () => json({ status, version, uptime: uptime() }),
    );
  }
  const Ready = Alive.extend({
    providers: z.array(ProviderBody),
    ready_providers: z.int(),
    total_providers: z.int(),
  }).openapi("Ready");
  endpoints.add(
    {
      method: "get",
      path: "/ready",
      scope: "read",
      tag,
      summary: "It can spawn",
      responses: {
        200: {
          description: "At least one provider is healthy; of an entrance to a fleet: at least one node is there",
          schema: Ready,
        },
        503: { description: "None is", schema: Ready },
      },
    },
    async ({ sandboxes }) => {
      const reports = await providers.reports();
      const ready = reports.filter(({ healthy }) => healthy).length;
      const spawns = config.fleet.role === "entrance" ? await othersSpawn(parts) : ready > 0;
      const body = {
        status: spawns ? "ready" : "not_ready",
        version,
        uptime: uptime(),
        providers: reports.map((report) => providerBody(report, sandboxes.countOf(report.name))),
        ready_providers: ready,
        total_providers: reports.length,
      };
      return json(body, spawns ? 200 : 503);
    },
  );

  endpoints.add(
    {
      method: "get",
      path: "/config",
      scope: "admin",
      tag,
      summary: "The configuration, without keys",
      responses: { 200: { description: "Sections", schema: Anything } },
    },
    () => json(redact(config)),
  );
  endpoints.add(
    {
      method: "patch",
      path: "/config",
      scope: "admin",
      tag,
      summary: "Change the configuration file; needs a restart",
      body: z.record(z.string(), z.unknown()).openapi("ConfigPatch", {
        description: "Keys of the configuration, each with its new value: `defaults.ttl`.",
        example: { "defaults.ttl": "1h" },
      }),
      responses: {
        200: {
          description: "Written",
          schema: z.object({ status: z.string(), message: z.string() }).openapi("ConfigUpdated"),
        },
      },
    },
    async ({ body }) => {
      const keys = await patchConfig(parts.configPath, body);
      return json({
        status: "updated",
        message: `${keys.join(", ")} written to ${parts.configPath}; restart to apply`,
      });
    },
  );
}

/** Writes keys into the YAML file, whole or not at all; comments in it stay. */
async function patchConfig(path: string, patch: Record<string, unknown>): Promise<string[]> {
  const known = new Set(configKeys());
  const keys = Object.keys(patch);
  if (keys.length === 0) throw new StacyError("invalid", "there is nothing to change");
  for (const key of keys) {
    if (!known.has(key)) throw new StacyError("invalid", `${key}: there is no such key`);
    // Whoever may change settings must not be able to hand itself (or the world) the keys.
    if (key.startsWith("auth.")) throw new StacyError("invalid", `${key} can only be changed in the file itself`);
  }
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    if (errno(error) === "ENOENT") return "";
    throw error;
  });
  const document = parseDocument(text);
  for (const key of keys) document.setIn(key.split("."), patch[key]);
  validateConfig((document.toJS() ?? {}) as Record<string, unknown>, path);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const temporary = `${path}.new`;
  await writeFile(temporary, document.toString(), { mode: 0o600 });
  await rename(temporary, path);
  return keys;
}

/** Whether a node of its fleet takes new sandboxes. */
async function othersSpawn({ fleet }: RouteParts): Promise<boolean> {
  const nodes = (await fleet?.list()) ?? [];
  return nodes.some(({ role, state, draining }) => role === "node" && state === "up" && !draining);
}
