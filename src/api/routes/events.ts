/** What happens, as a stream; and what happened, page by page. */
import { z } from "@hono/zod-openapi";
import { StacyError } from "../../host/error.ts";
import { Pace } from "../../host/turns.ts";
import type { SandboxEvent } from "../../sandboxes/events.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { maybe, whole } from "../schemas/common.ts";
import { EventBody, eventBody } from "../schemas/event.ts";
import { begun, SSE_HEADERS, streamed } from "../streams.ts";

/** Events looked through for one page, or until a stream says how far it has come: a filter that matches few does not read the whole database in one go. */
const MAX_SCANNED = 4_096;

const Filter = z.object({
  type: maybe(z.string().max(256)).openapi({
    type: "string",
    description: "Only these, comma-separated; `sandbox.*` works",
  }),
  sandbox_id: maybe(z.string().max(64)),
});

export function eventRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { config } = parts;
  const tag = "system";
  endpoints.add(
    {
      method: "get",
      path: "/events",
      scope: "read",
      tag,
      summary: "What happens, as server-sent events",
      description:
        "`id:` and `data: {id, type, sandbox_id?, timestamp, data?}`; a block with an `id:` alone says how far it has come. After a break, `Last-Event-ID` (or `last_event_id`) replays what was missed.",
      query: z.object({ last_event_id: maybe(z.string().max(32)) }).extend(Filter.shape),
      responses: { 200: { description: "The stream", type: "text/event-stream" } },
    },
    async ({ c, sandboxes, query, signal }) => {
      const asked = c.req.header("last-event-id") ?? query.last_event_id;
      const number = numberOf(asked, "Last-Event-ID") ?? (await sandboxes.events.newest());
      const wanted = filterOf(query.type, query.sandbox_id && sandboxes.idOf(query.sandbox_id));
      const stop = AbortSignal.any([signal, parts.stopping]);
      async function* lines(): AsyncGenerator<string> {
        let at = number;
        // Counted from the last line, not from the last event: others' events are no sign of life to this reader.
        let said = performance.now();
        let scanned = 0;
        const pace = new Pace();
        // With where it begins: after a break before the first event, a client continues from here.
        yield `: connected\nid: evt-${at}\nretry: 2000\n\n`;
        while (!stop.aborted) {
          // A replay reads thousands of events, and perhaps none of them is wanted.
          if (pace.over) await pace.rest();
          const newest = await sandboxes.events.newest();
          const batch = await sandboxes.events.after(at);
          // What came since is others'.
          if (batch.length === 0) at = Math.max(at, newest);
          scanned += batch.length;
          let text = "";
          for (const event of batch) {
            at = event.number;
            if (wanted(event)) text += `id: evt-${event.number}\ndata: ${JSON.stringify(eventBody(event))}\n\n`;
          }
          const silent = performance.now() - said;
          if (text === "" && silent >= config.server.event_heartbeat) text = `: heartbeat\nid: evt-${at}\n\n`;
          else if (text === "" && scanned >= MAX_SCANNED) text = `id: evt-${at}\n\n`;
          if (text !== "") {
            yield text;
            said = performance.now();
            scanned = 0;
          } else if (batch.length === 0) await sandboxes.events.wait(config.server.event_heartbeat - silent, stop);
        }
      }
      return streamed(begun(lines()), SSE_HEADERS);
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/events/history",
      scope: "read",
      tag,
      summary: "What happened, newest first",
      description:
        "The last 50,000 events are kept, over restarts. `next` is the `before` of the page that follows; without one this was the last. A page may be short, or empty, and still have a `next`.",
      query: z.object({ before: maybe(z.string().max(32)), limit: whole(1, 1_000).default(100) }).extend(Filter.shape),
      responses: {
        200: {
          description: "A page",
          schema: z.object({ events: z.array(EventBody), next: z.string().optional() }).openapi("EventHistory"),
        },
      },
    },
    async ({ sandboxes, query }) => {
      const wanted = filterOf(query.type, query.sandbox_id && sandboxes.idOf(query.sandbox_id));
      const events: SandboxEvent[] = [];
      let at = numberOf(query.before, "before") ?? (await sandboxes.events.newest()) + 1;
      for (let scanned = 0; scanned < MAX_SCANNED; ) {
        const batch = await sandboxes.events.before(at);
        if (batch.length === 0) return json({ events: events.map(eventBody) });
        scanned += batch.length;
        for (const event of batch) {
          at = event.number;
          if (wanted(event)) events.push(event);
          if (events.length === query.limit) return json({ events: events.map(eventBody), next: `evt-${at}` });
        }
      }
      return json({ events: events.map(eventBody), next: `evt-${at}` });
    },
  );
}

/** @throws StacyError `invalid` */
function numberOf(id: string | undefined, name: string): number | undefined {
  if (id === undefined || id === "") return undefined;
  const number = Number(id.replace(/^evt-/, ""));
  if (!Number.isSafeInteger(number) || number < 0) throw new StacyError("invalid", `${name} is not an event's id`);
  return number;
}

function filterOf(types: string | undefined, sandboxId: string | undefined): (event: SandboxEvent) => boolean {
  const patterns = (types ?? "").split(",").filter((type) => type !== "");
  const matches = (type: string): boolean =>
    patterns.length === 0 ||
    patterns.some((pattern) => (pattern.endsWith("*") ? type.startsWith(pattern.slice(0, -1)) : type === pattern));
  return (event) => matches(event.type) && (sandboxId === undefined || event.sandboxId === sandboxId);
}
