import { readFile, rename, writeFile } from "node:fs/promises";
import { z } from "@hono/zod-openapi";
import { parseDocument } from "yaml";
import { validateConfig } from "../../config/load.ts";
import { configKeys, redact } from "../../config/schema.ts";
import { errno, StacyError } from "../../host/error.ts";
import { formatDuration } from "../../sandboxes/duration.ts";
import type { SandboxEvent } from "../../sandboxes/events.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { maybe } from "../schemas/common.ts";
import { eventBody } from "../schemas/event.ts";
import { ProviderBody, providerBody } from "../schemas/provider.ts";
import { begun, SSE_HEADERS, streamed } from "../streams.ts";
import { SystemSampler } from "../system-stats.ts";

const Anything = z.record(z.string(), z.unknown());

export function systemRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { providers, config, version } = parts;
  const tag = "system";
  const uptime = (): string => formatDuration(Date.now() - parts.startedAt);
  const sampler = new SystemSampler(parts.dataDir);

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
        200: { description: "At least one provider is healthy", schema: Ready },
        503: { description: "None is", schema: Ready },
      },
    },
    async ({ sandboxes }) => {
      const reports = await providers.reports();
      const ready = reports.filter(({ healthy }) => healthy).length;
      const body = {
        status: ready > 0 ? "ready" : "not_ready",
        version,
        uptime: uptime(),
        providers: reports.map((report) => providerBody(report, sandboxes.countOf(report.name))),
        ready_providers: ready,
        total_providers: reports.length,
      };
      return json(body, ready > 0 ? 200 : 503);
    },
  );

  endpoints.add(
    {
      method: "get",
      path: "/system/stats",
      scope: "read",
      tag,
      summary: "Load of the host",
      responses: {
        200: {
          description: "Percentages, bytes per second, load",
          schema: z
            .object({
              cpu_pct: z.number(),
              mem_pct: z.number(),
              disk_pct: z.number(),
              net_rx_bps: z.number(),
              net_tx_bps: z.number(),
              load1: z.number(),
            })
            .openapi("SystemStats"),
        },
      },
    },
    async () => json(await sampler.read()),
  );
  endpoints.add(
    {
      method: "get",
      path: "/events",
      scope: "read",
      tag,
      summary: "What happens, as server-sent events",
      description:
        "`id:` and `data: {id, type, sandbox_id?, timestamp, data?}`; a block with an `id:` alone says how far it has come. After a break, `Last-Event-ID` (or `last_event_id`) replays what was missed.",
      query: z.object({
        last_event_id: maybe(z.string().max(32)),
        type: maybe(z.string().max(256)).openapi({
          type: "string",
          description: "Only these, comma-separated; `sandbox.*` works",
        }),
        sandbox_id: maybe(z.string().max(64)),
      }),
      responses: { 200: { description: "The stream", type: "text/event-stream" } },
    },
    ({ c, sandboxes, query, signal }) => {
      const asked = c.req.header("last-event-id") ?? query.last_event_id;
      const number = asked === undefined || asked === "" ? sandboxes.events.last() : Number(asked.replace(/^evt-/, ""));
      if (!Number.isSafeInteger(number) || number < 0)
        throw new StacyError("invalid", "Last-Event-ID is not an event's id");
      const wanted = filterOf(query.type, query.sandbox_id);
      const stop = AbortSignal.any([signal, parts.stopping]);
      async function* lines(): AsyncGenerator<string> {
        let at = number;
        // Counted from the last line, not from the last event: others' events are no sign of life to this reader.
        let said = performance.now();
        // With where it begins: after a break before the first event, a client continues from here.
        yield `: connected\nid: evt-${at}\nretry: 2000\n\n`;
        while (!stop.aborted) {
          const newest = sandboxes.events.last();
          const batch = sandboxes.events.after(at);
          // What came since is others'.
          if (batch.length === 0) at = Math.max(at, newest);
          let text = "";
          for (const event of batch) {
            at = event.number;
            if (wanted(event)) text += `id: evt-${event.number}\ndata: ${JSON.stringify(eventBody(event))}\n\n`;
          }
          const silent = performance.now() - said;
          if (text === "" && silent >= config.server.event_heartbeat) text = `: heartbeat\nid: evt-${at}\n\n`;
          if (text !== "") {
            yield text;
            said = performance.now();
          } else if (batch.length === 0) await sandboxes.events.wait(config.server.event_heartbeat - silent, stop);
        }
      }
      return streamed(begun(lines()), SSE_HEADERS);
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
      body: z.record(z.string(), z.unknown()).openapi("ConfigPatch", { example: { "defaults.ttl": "1h" } }),
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
  const temporary = `${path}.new`;
  await writeFile(temporary, document.toString(), { mode: 0o600 });
  await rename(temporary, path);
  return keys;
}

function filterOf(types: string | undefined, sandboxId: string | undefined): (event: SandboxEvent) => boolean {
  const patterns = (types ?? "").split(",").filter((type) => type !== "");
  const matches = (type: string): boolean =>
    patterns.length === 0 ||
    patterns.some((pattern) => (pattern.endsWith("*") ? type.startsWith(pattern.slice(0, -1)) : type === pattern));
  return (event) => matches(event.type) && (sandboxId === undefined || event.sandboxId === sandboxId);
}
