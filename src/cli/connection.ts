/**
 * Which server a command talks to: the one that is named (`--server`, `STACYVM_URL`), else the one that runs on this data
 * directory (`stacyvm serve`, or another command's), else one that this command starts: in the background where the next command
 * will need it, too, or inside itself.
 */
import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import WebSocket from "ws";
import { Client, type WebSocketConstructor } from "../../sdk/src/index.ts";
import { localKey } from "../../sdk/src/local-key.ts";
import { StacyError } from "../host/error.ts";
import { type DataPaths, dataPaths } from "../host/paths.ts";
import { BACKGROUND_NOTE, type Starting, settingsMark, startBackground, wantsBackground } from "./background.ts";
import { lockDataDir } from "./data-dir.ts";
import type { Interrupts } from "./interrupt.ts";
import { findLocal, type LocalConnection, type LocalServer } from "./local-socket.ts";
import { note } from "./output.ts";
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

export interface ConnectOptions extends ServerOptions {
  /** Machines may be started: on a fresh host, their kernel and agent are made ready first. */
  boots?: boolean;
  /** Where a server is to be that this command starts; default: in the background as soon as there is a sandbox. */
  stays?: "background" | "here";
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

/** @throws StacyError `conflict` when somebody else holds the data directory and does not answer */
export async function connectServer(options: ConnectOptions, signal: AbortSignal): Promise<Connection> {
  const named = await namedServer(options);
  if (named !== undefined) return { client: named, kind: "named", async close() {} };
  // Before anything is started: it may not be readable.
  const key = await givenKey(options);
  const paths = dataPaths();
  let deadline = performance.now() + OWNER_WAIT_MS;
  let background: Starting | undefined;
  let ready = options.boots !== true;
  for (;;) {
    const local = await findLocal(paths.root);
    if (local !== undefined && (await serves(local))) {
      if (local.background !== undefined && background !== undefined) note(BACKGROUND_NOTE);
      const client = await localClient(local, options);
      return { client, kind: "found", close: async () => local[Symbol.dispose]() };
    }
    // One that serves somebody else goes when nobody uses it; its sandboxes stay.
    local?.end();
    if (local === undefined && !ready) {
      // Before any server: it may take minutes, after which somebody else's may be there.
      const { ensureGuest } = await import("./first-run.ts");
      await ensureGuest(paths, signal);
      ready = true;
      deadline = performance.now() + OWNER_WAIT_MS;
      continue;
    }
    if (local === undefined && background === undefined && (await wantsBackground(paths, options.stays))) {
      background = startBackground(paths);
      deadline = performance.now() + OWNER_WAIT_MS;
    }
    if (local !== undefined || background?.ended === false) {
      if (performance.now() > deadline) throw unanswered(paths);
      await delay(25, undefined, { signal });
      continue;
    }
    // Only now, since it is most of the program.
    const { startEmbedded } = await import("./embedded.ts");
    const lock = await lockDataDir(paths);
    if (lock !== undefined) {
      const server = await startEmbedded(paths, lock, { verbose: options.verbose === true, keys: key !== undefined });
      return {
        client: await localClient(server, options),
        kind: "here",
        close: (interrupts) => closeEmbedded(server, interrupts),
      };
    }
    if (performance.now() > deadline) throw unanswered(paths);
    await delay(25, undefined, { signal });
  }
}

/** A background server that has other settings than this command would give it is not this command's, unless others use it already. */
export async function serves({ background, others }: LocalConnection): Promise<boolean> {
  return background === undefined || others > 0 || background === (await settingsMark());
}

function unanswered({ root }: DataPaths): StacyError {
  return new StacyError("conflict", `another process holds the data directory ${root} and does not answer`, {
    phase: "connect",
    remedy: "look for a `stacyvm serve` that hangs, or choose another directory with STACYVM_DATA_DIR",
  });
}

/** Of the data directory: its own key is for who has given none. @throws StacyError `invalid` */
export async function localClient({ url, key }: LocalServer, options: ServerOptions): Promise<Client> {
  const given = await givenKey(options);
  // A key that the client finds by itself it finds again when the server was started anew: for a command that goes on over that.
  const apiKey = given === undefined && key !== undefined && localKey(url) === key ? undefined : (given ?? key ?? "");
  return new Client({ url, apiKey, owner: options.as, webSocket });
}

/**
 * What was said about the key, in the command line or in the environment. It is used with every server, so that nobody who names a
 * key of less acts as the administrator whom the data directory makes of its user.
 * @throws StacyError `invalid` when it is empty, or its file cannot be read
 */
export async function givenKey(options: ServerOptions): Promise<string | undefined> {
  if (options.apiKey !== undefined) return notEmpty(options.apiKey, "--api-key");
  const file = options.apiKeyFile ?? (process.env.STACYVM_API_KEY_FILE || undefined);
  if (file === undefined) return process.env.STACYVM_API_KEY || undefined;
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    throw new StacyError("invalid", `cannot read the key: ${(cause as Error).message}`, { cause });
  });
  return notEmpty(text.trim(), file);
}

/** An empty one is a slip (a variable without a value), and not the wish to go without. */
function notEmpty(key: string, place: string): string {
  if (key !== "") return key;
  throw new StacyError("invalid", `the key is empty: ${place}`, {
    phase: "connect",
    remedy: "write the key there, or leave the option out",
  });
}

/** The server that the user has named, if any. */
export async function namedServer(options: ServerOptions): Promise<Client | undefined> {
  const url = options.server ?? process.env.STACYVM_URL;
  if (url === undefined || url === "") return undefined;
  return new Client({ url, apiKey: await givenKey(options), owner: options.as, webSocket });
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
