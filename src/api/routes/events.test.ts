import assert from "node:assert/strict";
import { test } from "node:test";
import { countTurns } from "../../../test/count-turns.ts";
import type { RouteParts } from "../context.ts";
import type { Endpoints } from "../endpoint.ts";
import { eventRoutes } from "./events.ts";

const EVENTS = 20_000;
const BATCH = 256;

test("a replay of which nothing is wanted says how far it has come, and others have their turn meanwhile", async () => {
  const abort = new AbortController();
  const row = (number: number): string =>
    JSON.stringify({ number, type: "sandbox.created", at: 0, data: { text: "x".repeat(2_000) } });
  const events = {
    newest: async () => EVENTS,
    after: async (number: number) =>
      Array.from({ length: Math.min(BATCH, EVENTS - number) }, (_, i) => JSON.parse(row(number + 1 + i))),
    wait: async () => abort.abort(),
  };
  const routes = new Map<string, (call: unknown) => Promise<Response>>();
  const endpoints = { add: ({ path }: { path: string }, route: never) => routes.set(path, route) };
  const parts = { config: { server: { event_heartbeat: 600_000 } }, stopping: new AbortController().signal };
  eventRoutes(endpoints as unknown as Endpoints, parts as unknown as RouteParts);
  const end = countTurns();
  const answer = await routes.get("/events")?.({
    c: { req: { header: () => undefined } },
    sandboxes: { events },
    query: { last_event_id: "0", type: "nothing" },
    signal: abort.signal,
  });
  const text = await answer?.text();
  const turns = end();
  const ids = [...(text ?? "").matchAll(/^id: evt-(\d+)$/gm)].map(([, id]) => Number(id));
  assert.deepEqual(ids, [0, 4_096, 8_192, 12_288, 16_384]);
  assert.ok(turns > 5, `${turns} turns`);
});
