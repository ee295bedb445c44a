/** What a piece of code says, for a call that is answered when it has ended: in bounded memory, however it says it. */
import type { z } from "@hono/zod-openapi";
import type { CollectedOutput } from "../guest/output-budget.ts";
import { StacyError } from "../host/error.ts";
import type { CodeEvent } from "../sandboxes/code.ts";
import { type CodeErrorBody, codeError, codeResult } from "./schemas/code.ts";
import { JsonTexts } from "./streams.ts";

/** Of one collected answer, characters. */
const COLLECTED = 16 << 20;
/** What is kept of each event besides its text, bytes. */
const EVENT_BYTES = 64;

/**
 * Results are kept as the JSON that they become: as objects, lists of lists take ten times as much.
 * @throws StacyError `limit`
 */
export async function collectCode(events: AsyncGenerator<CodeEvent>, memory: CollectedOutput) {
  const results: string[] = [];
  const texts: Record<"stdout" | "stderr", string[]> = { stdout: [], stderr: [] };
  let error: z.output<typeof CodeErrorBody> | undefined;
  let executionCount = 0;
  let size = 0;
  const keep = (text: string): string => {
    size += text.length;
    const bytes = 2 * text.length + EVENT_BYTES;
    if (size > COLLECTED || memory.take(bytes) < bytes) {
      throw new StacyError("limit", "the code says more than one answer holds, or than there is room for now", {
        remedy: "ask with `stream: true`, or write what is large to a file",
      });
    }
    return text;
  };
  for await (const event of events) {
    if (event.type === "stdout" || event.type === "stderr") texts[event.type].push(keep(String(event.text)));
    else if (event.type === "result") results.push(keep(JSON.stringify(codeResult(event))));
    else if (event.type === "error") {
      error = codeError(event);
      keep(Object.values(error).join(""));
    } else if (event.type === "end") executionCount = Number(event.execution_count);
  }
  return {
    results: new JsonTexts(results),
    ...{ stdout: texts.stdout.join(""), stderr: texts.stderr.join("") },
    ...(error === undefined ? {} : { error }),
    execution_count: executionCount,
  };
}
