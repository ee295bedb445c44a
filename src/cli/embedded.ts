/** A server inside a process of the command line, when there is none: the same application, on loopback, with a key that is made for it. */
import { randomBytes } from "node:crypto";
import pino from "pino";
import { answersOwnUser } from "../access/configured.ts";
import { loadConfig } from "../config/load.ts";
import type { Lock } from "../host/lock.ts";
import type { DataPaths } from "../host/paths.ts";
import { printableJson } from "../host/printable.ts";
import { startDaemon } from "./daemon.ts";
import { writeKeyFile } from "./key-file.ts";
import { announce, type LocalServer } from "./local-socket.ts";
import { LogOutput } from "./log-output.ts";

export interface Embedded extends LocalServer {
  readonly key: string;
  /** When a program or a browser last used it, ms of `performance.now()`. */
  readonly usedAt: number;
  /** No command uses it, it has no sandbox, and no golden snapshot is being saved. */
  readonly idle: boolean;
  /** Waits until no other command uses it and, if asked, its golden snapshots are saved; aborting ends the waiting. */
  close(options: {
    signal: AbortSignal;
    snapshots: boolean;
    waiting: (why: "commands" | "snapshot") => void;
  }): Promise<void>;
}

const GRACE_MS = 10_000;

export interface EmbeddedOptions {
  verbose?: boolean;
  /** It knows those of the configuration: its command brings one. */
  keys?: boolean;
  /** It is the background server of several commands, and of the user's programs and browser. */
  background?: { mark: string; asked: () => void };
}

/** Takes over `lock`, the ownership of the data directory. */
export async function startEmbedded(
  paths: DataPaths,
  lock: Lock,
  { verbose, keys, background }: EmbeddedOptions = {},
): Promise<Embedded> {
  const key = randomBytes(32).toString("base64url");
  try {
    // Which says who asks here, as for every other server: it would make whoever has a key of less an administrator.
    const { STACYVM_API_KEY: _, ...env } = process.env;
    const { config, path } = await loadConfig({ env, flags: { "server.host": "127.0.0.1", "server.port": 0 } });
    config.rate_limit.enabled = false;
    // For this command and those that find it: nobody else is told where it is.
    if (background === undefined && keys !== true) {
      config.auth = { ...config.auth, api_key: "", admin_api_key: "", keys: [], oidc_issuer: "" };
    }
    const log = pino(
      {
        level: verbose === true ? "info" : background === undefined ? "silent" : "warn",
        hooks: { streamWrite: printableJson },
      },
      new LogOutput(2),
    );
    const daemon = await startDaemon({
      config,
      configPath: path,
      paths,
      localKey: key,
      ownUser: background !== undefined && answersOwnUser(config),
      log,
      pool: false,
    });
    const local = {
      ...{ url: daemon.url, key, pid: process.pid },
      ...(background === undefined ? {} : { background: background.mark }),
    };
    await using parts = new AsyncDisposableStack();
    let graceMs = 0;
    parts.defer(() => daemon.close({ graceMs, destroy: false }));
    // Before it can be found by its socket: whoever waits for that may look for the key next.
    if (background !== undefined) parts.use(await writeKeyFile(paths.root, local.url, key));
    const announced = await announce(paths.root, local, background?.asked);
    const owned = parts.move();
    return {
      ...local,
      get usedAt() {
        return daemon.usedAt;
      },
      get idle() {
        return announced.users === 0 && daemon.sandboxes === 0 && !daemon.building;
      },
      async close({ signal, snapshots, waiting }) {
        try {
          if (announced.users > 0) waiting("commands");
          await announced.retire(signal);
          if (snapshots && daemon.building && !signal.aborted) {
            waiting("snapshot");
            const skip = Promise.withResolvers<void>();
            signal.addEventListener("abort", () => skip.resolve(), { once: true });
            await Promise.race([daemon.settle(), skip.promise]);
          }
          if (!signal.aborted) graceMs = GRACE_MS;
        } finally {
          await owned.disposeAsync().finally(() => lock.release());
        }
      },
    };
  } catch (error) {
    await lock.release();
    throw error;
  }
}
