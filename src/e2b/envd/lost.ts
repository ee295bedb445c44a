/**
 * The end of a sandbox under a stream. Clients learn of it as they do from E2B, by a connection that breaks: only then they look whether
 * the sandbox is there, and say that it was killed. An error with a code would be one of the call's.
 */
import type { Socket } from "node:net";
import { createContextKey, type HandlerContext } from "@connectrpc/connect";
import { StacyError } from "../../host/error.ts";

export const LOST = createContextKey<AbortController | undefined>(undefined);

/** @param error met in a stream that has begun: what is not found then is the sandbox */
export function noteLost({ values }: HandlerContext, error: unknown): void {
  const lost = error instanceof StacyError && ["machine-exited", "disconnected", "not-found"].includes(error.code);
  if (lost) values.get(LOST)?.abort(error);
}

/**
 * An end in the midst of a piece would be a mistake of the protocol for Python's clients, which look at nothing then; a reset connection is none.
 * @param socket of the request; absent where there is none, as in tests
 * @returns the answer, whose body breaks off when the signal is aborted
 */
export function breakable(answer: Response, lost: AbortSignal, socket?: Socket): Response {
  const isStream = answer.headers.get("content-type")?.startsWith("application/connect+") === true;
  if (!isStream || answer.body === null) return answer;
  // What has ended is over: its connection may serve somebody else's request by then.
  const over = new AbortController();
  const body = answer.body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      start(controller) {
        const breakOff = (): void => {
          // Only those of TCP can be reset.
          if (socket?.remoteAddress !== undefined) socket.resetAndDestroy();
          controller.error(lost.reason);
        };
        lost.addEventListener("abort", breakOff, { once: true, signal: over.signal });
      },
      flush: () => over.abort(),
      cancel: () => over.abort(),
    }),
  );
  return new Response(body, answer);
}
