/** Long work as NDJSON: a line per progress, at last the result or the error. */
import type { Progress } from "../images/image.ts";
import { problemOf } from "./problem.ts";
import { begun, NDJSON_HEADERS, resultOrTimeout, streamed } from "./streams.ts";

const MAX_PRINTED = 1 << 20;
/** Work may be silent for minutes: clients (fetch after 5 of them) and proxies take an answer for dead that is. */
const HEARTBEAT_MS = 15_000;

/**
 * @param work begins at once; what it resolves with becomes the last line
 *   `output`: what a program printed, each piece a line of its own as `{output}`
 * @param requestId for the error's line
 * @param heartbeatMs after so much silence the last step is said again
 */
export function progressStream(
  work: (
    progress: (progress: Progress) => void,
    output: (text: Uint8Array) => void,
  ) => Promise<Record<string, unknown>>,
  requestId: string,
  heartbeatMs = HEARTBEAT_MS,
): Response {
  async function* lines(): AsyncGenerator<string> {
    // Only the newest state of each step is of interest: a slow reader skips the others.
    const latest = new Map<string, Progress>();
    const decoder = new TextDecoder();
    let printed = "";
    let last: Progress = { step: "working" };
    let wake = (): void => {};
    let settled = false;
    const working = work(
      (step) => {
        latest.set(step.step, step);
        last = step;
        wake();
      },
      (text) => {
        // Of what a slow reader has not taken, the end is kept.
        printed = (printed + decoder.decode(text, { stream: true })).slice(-MAX_PRINTED);
        wake();
      },
    ).finally(() => {
      settled = true;
      wake();
    });
    working.catch(() => {}); // awaited below
    while (!settled || latest.size > 0 || printed !== "") {
      if (latest.size === 0 && printed === "") {
        const woken = new Promise<true>((resolve) => (wake = () => resolve(true)));
        if ((await resultOrTimeout(woken, heartbeatMs)) === undefined) latest.set(last.step, last);
      }
      const now = [...latest.values()];
      latest.clear();
      const output = printed;
      printed = "";
      for (const step of now) yield `${JSON.stringify(step)}\n`;
      if (output !== "") yield `${JSON.stringify({ output })}\n`;
    }
    try {
      yield `${JSON.stringify(await working)}\n`;
    } catch (error) {
      yield `${JSON.stringify({ error: problemOf(error, requestId).body })}\n`;
    }
  }
  return streamed(begun(lines()), NDJSON_HEADERS);
}
