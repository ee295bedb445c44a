/** `stacyvm serve`: the daemon. */
import { randomBytes } from "node:crypto";
import { resolve } from "node:path";
import { Command } from "commander";
import { StacyError } from "../../host/error.ts";
import { dataPaths, defaultDataDir } from "../../host/paths.ts";
import { printableColoured, printableJson } from "../../host/printable.ts";
import { parsePort } from "../arguments.ts";
import { EMULATION } from "../emulation.ts";
import { LogOutput } from "../log-output.ts";
import { note, unheardIsNoError } from "../output.ts";

/** After the grace of requests, what else may be under way has this long to end. */
const SETTLE_MS = 15_000;

interface ServeOptions {
  config?: string;
  host?: string;
  port?: number;
  dataDir?: string;
  destroyOnExit?: boolean;
  removeUnknown?: boolean;
  json?: boolean;
}

export function serveCommand(): Command {
  return new Command("serve")
    .description("run the server")
    .option("--config <file>", "configuration file (default: ./stacyvm.yaml, then ~/.stacyvm/config.yaml)")
    .option("--host <address>", "address to listen on; another than loopback needs an API key")
    .option("--port <number>", "port; 0 picks a free one", parsePort)
    .option("--data-dir <dir>", "where images, snapshots and sandboxes live")
    .option("--destroy-on-exit", "end all sandboxes when the server stops, instead of leaving them running")
    .option(
      "--remove-unknown",
      "end machines in the data directory that the database does not know, instead of refusing to start",
    )
    .option("--json", "say where it listens as JSON")
    .action(serve);
}

/** One line per entry for people, coloured on a terminal. */
async function readable(): Promise<(line: string) => string> {
  const { isColorSupported, prettyFactory } = await import("pino-pretty");
  const pretty = prettyFactory({
    colorize: isColorSupported && process.stderr.isTTY,
    ignore: "pid,hostname",
    translateTime: "SYS:HH:MM:ss.l",
    singleLine: true,
  });
  return (line) => printableColoured(pretty(line));
}

async function serve(options: ServeOptions): Promise<void> {
  unheardIsNoError(process.stdout);
  const stop = Promise.withResolvers<NodeJS.Signals>();
  let ready = false;
  let stopping = false;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      // Before it serves there is nothing to finish, and whatever is cut off here the next start puts right. Asked twice, it goes at once.
      if (!ready || stopping) process.exit(130);
      stopping = true;
      stop.resolve(signal);
    });
  }
  const [
    { pino },
    { answersOwnUser, assertSafeToListen },
    { Keys },
    { loadConfig },
    { startDaemon },
    { takeDataDir },
    { writeKeyFile },
    { announce },
    { ensureGuest },
    { Store },
  ] = await Promise.all([
    import("pino"),
    import("../../access/configured.ts"),
    import("../../access/keys.ts"),
    import("../../config/load.ts"),
    import("../daemon.ts"),
    import("../take-data-dir.ts"),
    import("../key-file.ts"),
    import("../local-socket.ts"),
    import("../first-run.ts"),
    import("../../sandboxes/store.ts"),
  ]);
  const { config, path, notes } = await loadConfig({
    serves: true,
    ...(options.config === undefined ? {} : { file: options.config }),
    flags: {
      "server.host": options.host,
      "server.port": options.port,
      "shutdown.destroy": options.destroyOnExit,
    },
  });
  // Whoever may read the data directory owns the data: programs of that user need no other key.
  const localKey = randomBytes(32).toString("base64url");
  const ownUser = answersOwnUser(config);
  const { level, format } = config.logging;
  const log = pino(
    { level, hooks: { streamWrite: printableJson } },
    new LogOutput(2, format === "pretty" || (format === "auto" && process.stderr.isTTY) ? await readable() : undefined),
  );
  for (const note of notes) log.warn({ phase: "config" }, note);

  const paths = dataPaths(resolve(options.dataDir || config.data_dir || defaultDataDir()));
  await using lock = await takeDataDir(paths);
  if (lock === undefined) {
    throw new StacyError("conflict", `another server runs on the data directory ${paths.root}`, {
      phase: "lock",
      remedy: "stop it, or choose another directory with --data-dir",
    });
  }
  {
    // Before anything is fetched or adopted.
    using store = new Store(config.database.path || paths.database);
    for (const warning of assertSafeToListen(config, new Keys(store))) log.warn({ phase: "config" }, warning);
  }
  // An entrance has no guests.
  if (config.fleet.role === "node") await ensureGuest(paths);
  const daemon = await startDaemon({
    config,
    configPath: path,
    paths,
    localKey,
    ownUser,
    log,
    pool: true,
    removeUnknown: options.removeUnknown === true,
    doctor: async () => (await import("./doctor.ts")).examine(paths), // loaded when somebody asks
  });
  log.info({ phase: "adopt", ...daemon.found }, "looked after the last run");
  let destroy = false;
  try {
    const url = daemon.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");
    // Before it can be found by its socket: whoever waits for that may look for the key next.
    await using _keyFile = await writeKeyFile(paths.root, url, localKey);
    const announced = await announce(paths.root, { url, pid: process.pid, key: localKey });
    const access = ownUser ? "own-user" : "keys";
    log.info({ url: daemon.url, provider: daemon.provider, data: paths.root, access }, "listening");
    ready = true;
    process.stdout.write(
      options.json === true
        ? `${JSON.stringify({ url: daemon.url, pid: process.pid, data: paths.root, access })}\n`
        : `listening on ${daemon.url}\n${whoMayCall(ownUser, paths.root)}\n`,
    );
    // A browser asks as its user, or takes the key from what is behind the #, which it sends to nobody.
    if (process.stderr.isTTY) note(`the console: ${url}/ui/${ownUser ? "" : `#key=${localKey}`}`);
    if (await daemon.emulated()) log.warn({ phase: "probe" }, EMULATION);
    const signal = await stop.promise;
    log.info({ signal, destroy: config.shutdown.destroy }, "stopping");
    // Requests have their grace, and what goes on without a request (a pull, a build) ends by its signal. Whatever does not: the
    // next start puts it right.
    setTimeout(() => {
      log.warn({}, "ending with work under way");
      process.exit(1);
    }, config.shutdown.grace + SETTLE_MS).unref();
    destroy = config.shutdown.destroy;
    await announced.close();
  } finally {
    await daemon.close({ graceMs: config.shutdown.grace, destroy });
  }
  log.info({}, "stopped");
  // What did not end by its signal (a slow disk) must not go on when somebody else has the data directory: the lock goes with the process.
  process.exit();
}

function whoMayCall(ownUser: boolean, root: string): string {
  const found = `this user's commands and SDKs find one in ${root}`;
  return ownUser
    ? `without a key: programs of this user (uid ${process.getuid?.()}) and root; with one (\`stacyvm key create\`): others`
    : `with a key only; ${found}`;
}
