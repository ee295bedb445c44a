/** A sandbox's log in E2B's form: its console. Its lines have no times of their own, so each has that of the asking. */
import { z } from "zod";
import { StacyError } from "../../host/error.ts";

const MOST = 1_000;
const LEVELS = ["debug", "info", "warn", "error"] as const;

const Asked = z.object({
  limit: z.coerce.number().int().min(0).max(MOST).default(MOST),
  direction: z.enum(["forward", "backward"]).default("forward"),
  /** The least that is told. */
  level: z.enum(LEVELS).default("debug"),
  search: z.string().max(256).default(""),
});

/** @param lines oldest first. @returns those that were asked for, in that order. @throws StacyError `invalid` */
export function wantedOf(lines: readonly string[], query: Record<string, string>): string[] {
  const asked = Asked.safeParse(query);
  if (!asked.success) {
    const [issue] = asked.error.issues;
    throw new StacyError("invalid", `${issue?.path.join(".")}: ${issue?.message}`);
  }
  const { limit, direction, level, search } = asked.data;
  // What a console says is information, whatever it is about.
  if (LEVELS.indexOf(level) > LEVELS.indexOf("info")) return [];
  const found = lines.filter((line) => line.includes(search));
  return (direction === "backward" ? found.toReversed() : found).slice(0, limit);
}

export function logEntry(message: string): Record<string, unknown> {
  return { timestamp: new Date().toISOString(), message, level: "info", fields: {} };
}
