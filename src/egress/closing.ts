import type { Closing } from "./share.ts";

/** Aborted when it closes, or has. */
export function closing(client: Closing): AbortSignal {
  const gone = new AbortController();
  if (client.closed) gone.abort();
  else client.once("close", () => gone.abort());
  return gone.signal;
}
