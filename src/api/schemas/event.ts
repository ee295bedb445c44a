import { z } from "@hono/zod-openapi";
import type { SandboxEvent } from "../../sandboxes/events.ts";
import { iso } from "./values.ts";

export const EventBody = z
  .object({
    id: z.string().openapi({ example: "evt-17" }),
    type: z.string().openapi({ example: "sandbox.destroyed" }),
    sandbox_id: z.string().optional(),
    owner: z.string().optional(),
    timestamp: z.string(),
    data: z.record(z.string(), z.unknown()).optional().openapi({ description: "By type, for example the reason" }),
  })
  .openapi("Event");

export function eventBody(event: SandboxEvent): z.output<typeof EventBody> {
  return {
    id: `evt-${event.number}`,
    type: event.type,
    ...(event.sandboxId === undefined ? {} : { sandbox_id: event.sandboxId }),
    ...(event.owner === undefined ? {} : { owner: event.owner }),
    timestamp: iso(event.at),
    ...(event.data === undefined ? {} : { data: event.data }),
  };
}
