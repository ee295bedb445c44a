/**
 * An agent whose channel may break and come back: calls in flight fail at once with `disconnected`, and the next call
 * connects again. Commands go on in the guest meanwhile and can be attached to. A channel that is open and silent breaks with the first
 * call that is given up over it (answer-limit.ts).
 */
import { StacyError } from "../host/error.ts";
import type { Agent } from "./agent.ts";

export interface ReconnectingAgent extends Agent {
  /** Drops the channel; the next call opens it again. */
  disconnect(): Promise<void>;
}

export interface ReconnectOptions {
  /** The whole time that a call may spend on connecting again, ms. */
  limitMs: () => number;
  /** A session that is open already. */
  first?: Agent | undefined;
}

/** @param open makes a new session */
export function reconnectingAgent(
  open: (signal: AbortSignal) => Promise<Agent>,
  { limitMs, first }: ReconnectOptions,
): ReconnectingAgent {
  let current: Agent | undefined;
  let opening: Promise<Agent> | undefined;
  let last: Agent["hello"] | undefined;
  let ended: StacyError | undefined;
  let still = false;
  const closed = Promise.withResolvers<Error>();

  const hold = (agent: Agent): Agent => {
    current = agent;
    last = agent.hello;
    if (still) agent.standsStill(still);
    void agent.closed.then(() => {
      if (current === agent) current = undefined;
    });
    return agent;
  };
  const connected = (): Promise<Agent> => {
    if (ended !== undefined) return Promise.reject(ended);
    if (current !== undefined) return Promise.resolve(current);
    opening ??= open(AbortSignal.timeout(limitMs()))
      .then(async (agent) => {
        if (ended === undefined) return hold(agent);
        // Closed while it connected.
        await agent.close(ended);
        throw ended;
      })
      .finally(() => {
        opening = undefined;
      });
    return opening;
  };
  const disconnect = async (why?: StacyError): Promise<void> => {
    const agent = current;
    current = undefined;
    await agent?.close(why);
  };
  const close = async (
    why = new StacyError("disconnected", "the sandbox's channel was closed for good"),
  ): Promise<void> => {
    if (ended !== undefined) return;
    ended = why;
    await disconnect(why);
    closed.resolve(why);
  };
  const standsStill = (now: boolean): void => {
    if (now === still) return;
    still = now;
    current?.standsStill(still);
  };
  const watch: Agent["watch"] = async function* (...args) {
    yield* (await connected()).watch(...args);
  };
  if (first !== undefined) hold(first);

  return new Proxy({} as ReconnectingAgent, {
    get(_target, name) {
      if (name === "disconnect") return disconnect;
      if (name === "close") return close;
      if (name === "standsStill") return standsStill;
      if (name === "closed") return closed.promise;
      if (name === "hello") return current?.hello ?? last;
      // A promise looks for this on whatever it resolves with.
      if (name === "then" || typeof name !== "string") return undefined;
      // The one method that gives an iterator and not a promise.
      if (name === "watch") return watch;
      return async (...args: unknown[]) => {
        const agent = (await connected()) as unknown as Record<string, (...args: unknown[]) => unknown>;
        return agent[name]?.(...args);
      };
    },
  });
}
