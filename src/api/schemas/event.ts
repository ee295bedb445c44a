import type { SandboxEvent } from "../../sandboxes/events.ts";
import { iso } from "./sandbox.ts";

export function eventBody(event: SandboxEvent): Record<string, unknown> {
  return {
    id: `evt-${event.number}`,
    type: event.type,
    ...(event.sandboxId === undefined ? {} : { sandbox_id: event.sandboxId }),
    ...(event.owner === undefined ? {} : { owner: event.owner }),
    timestamp: iso(event.at),
    ...(event.data === undefined ? {} : { data: event.data }),
  };
}
