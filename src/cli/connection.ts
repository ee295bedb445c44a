/**
 * Which server a command talks to: the one that is named (`--server`, `STACYVM_URL`), else the one that runs on this data
 * directory (`stacyvm serve`, or another command's), else one inside this command.
 */
import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import WebSocket from "ws";
import { Client, type WebSocketConstructor } from "../../sdk/src/index.ts";
import { StacyError } from "../host/error.ts";
import { dataPaths } from "../host/paths.ts";
import type { Interrupts } from "./interrupt.ts";
import { findLocal, type LocalServer } from "./local-socket.ts";
import { ProgressLine } from "./progress-line.ts";

export interface ServerOptions {
  server?: string;
  apiKeyFile?: string;
  /** As the published StacyVM takes it: in the command line. */
  apiKey?: string;
  /** An administrator acts as this owner. */
  as?: string;
  verbose?: boolean;
}

export interface Connection {
  client: Client;
  /** `here`: inside this command. */
  kind: "named" | "found" | "here";
  close(interrupts: Interrupts): Promise<void>;
}

/** A server that starts or stops on the data directory gets this long. */
const OWNER_WAIT_MS = 60_000;
// Unlike the standard's, it can be paused, so that a slow terminal or disk holds the sender back.
const webSocket = WebSocket as unknown as WebSocketConstructor;

/**
 * @param options.boots machines may be started: on a fresh host, their kernel and agent are made ready first
 * @throws StacyError `conflict` when somebody else holds the data directory and does not answer
 */
export async function connectServer(
  options: ServerOptions & { boots?: boolean },
  signal: AbortSignal,
): Promise<Connection> {
  const named = await namedServer(options);
  if (named !== undefined) return { client: named, kind: "named", async close() {} };
  const paths = dataPaths();
  const deadline = performance.now() + OWNER_WAIT_MS;
  for (;;) {
    const local = await findLocal(paths.root);
    if (local !== undefined) {
      return { client: localClient(local, options.as), kind: "found", close: async () => local[Symbol.dispose]() };
    }
    // Only now, since it is most of the program.
    const [{ lockDataDir }, { startEmbedded }, { ensureGuest }] = await Promise.all([
      import("./daemon.ts"),
      import("./embedded.ts"),
      import("./first-run.ts"),
    ]);
    const lock = await lockDataDir(paths);
    if (lock !== undefined) {
      if (options.boots === true) {
        await ensureGuest(paths, signal).catch(async (error: unknown) => {
          await lock.release();
          throw error;
        });
      }
      const server = await startEmbedded(paths, lock, options.verbose === true);
      return {
        client: localClient(server, options.as),
        kind: "here",
        close: (interrupts) => closeEmbedded(server, interrupts),
      };
    }
    if (performance.now() > deadline) {
      throw new StacyError("conflict", `another process holds the data directory ${paths.root} and does not answer`, {
        phase: "connect",
        remedy: "look for a `stacyvm serve` that hangs, or choose another directory with STACYVM_DATA_DIR",
      });
    }
    await delay(25, undefined, { signal });
  }
}

export function localClient({ url, key }: LocalServer, owner?: string): Client {
  return new Client({ url, apiKey: key ?? "", owner, webSocket });
}

/** The server that the user has named, if any. */
export async function namedServer(options: ServerOptions): Promise<Client | undefined> {
  const url = options.server ?? process.env.STACYVM_URL;
  if (url === undefined || url === "") return undefined;
  if (options.apiKey !== undefined) return new Client({ url, apiKey: options.apiKey, owner: options.as, webSocket });
  const file = options.apiKeyFile ?? process.env.STACYVM_API_KEY_FILE;
  if (file === undefined || file === "") return new Client({ url, owner: options.as, webSocket });
  const key = await readFile(file, "utf8").catch((cause: unknown) => {
    throw new StacyError("invalid", `cannot read the key: ${(cause as Error).message}`, { cause });
  });
  return new Client({ url, apiKey: key.trim(), owner: options.as, webSocket });
}

async function closeEmbedded(server: import("./embedded.ts").Embedded, { signal, hurry }: Interrupts): Promise<void> {
  using line = new ProgressLine();
  await server.close({
    signal: hurry,
    // Whoever has interrupted the command does not wait for what only the next one would gain from.
    snapshots: !signal.aborted,
    waiting: (why) =>
      line.show({
        step:
          why === "commands"
            ? "other commands use this one's server: waiting for them (Ctrl-C leaves them without)"
            : "saving the golden snapshot, so that the next start is fast (Ctrl-C skips)",
      }),
  });
}
