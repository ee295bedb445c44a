/** `stacyvm serve`: the daemon. Puts the layers together, and takes them apart in the right order. */
import { mkdir, readFile, realpath } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Command } from "commander";
import pino from "pino";
import { createApp } from "../../api/app.ts";
import { Authenticator, assertSafeToListen } from "../../api/auth.ts";
import { limitsOf, loadConfig } from "../../api/config.ts";
import { imagesOptions } from "../../api/images-options.ts";
import { Metrics } from "../../api/metrics.ts";
import { RateLimiter } from "../../api/rate-limit.ts";
import { listen } from "../../api/server.ts";
import { StacyError } from "../../host/error.ts";
import { tryLock } from "../../host/lock.ts";
import { dataPaths, defaultDataDir, packageRoot } from "../../host/paths.ts";
import { ImageKeeper } from "../../images/keeper.ts";
import { createImages } from "../../images/store.ts";
import { createMicrovmProvider } from "../../providers/microvm.ts";
import { systemClock } from "../../sandboxes/clock.ts";
import { Sandboxes } from "../../sandboxes/sandboxes.ts";
import { Store } from "../../sandboxes/store.ts";
import { chooseVmm, vmms } from "../engine.ts";

interface ServeOptions {
  config?: string;
  host?: string;
  port?: string;
  dataDir?: string;
  destroyOnExit?: boolean;
}

export function serveCommand(): Command {
  return new Command("serve")
    .description("run the server")
    .option("--config <file>", "configuration file (default: ./stacyvm.yaml, then ~/.stacyvm/config.yaml)")
    .option("--host <address>", "address to listen on; another than loopback needs an API key")
    .option("--port <number>", "port; 0 picks a free one")
    .option("--data-dir <dir>", "where images, snapshots and sandboxes live")
    .option("--destroy-on-exit", "end all sandboxes when the server stops, instead of leaving them running")
    .action(serve);
}

async function serve(options: ServeOptions): Promise<void> {
  const { config, path, notes } = await loadConfig({
    ...(options.config === undefined ? {} : { file: options.config }),
    flags: {
      "server.host": options.host,
      "server.port": options.port === undefined ? undefined : Number(options.port),
      "shutdown.destroy": options.destroyOnExit,
    },
  });
  const auth = new Authenticator(config.auth);
  assertSafeToListen(config, auth);
  const log = pino({ level: config.logging.level }, pino.destination({ dest: 2, sync: true }));
  for (const note of notes) log.warn({ phase: "config" }, note);

  const paths = dataPaths(resolve(options.dataDir || config.data_dir || defaultDataDir()));
  await mkdir(paths.root, { recursive: true, mode: 0o700 });
  // By real path: the same directory under two names is still one.
  const root = await realpath(paths.root);
  await using lock = await tryLock(`daemon:${root}`);
  if (lock === undefined) {
    throw new StacyError("conflict", `another daemon runs on the data directory ${root}`, {
      phase: "lock",
      remedy: "stop it, or choose another directory with --data-dir",
    });
  }

  const stop = Promise.withResolvers<NodeJS.Signals>();
  let ready = false;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      // Before it serves there is nothing to finish, and whatever is cut off here the next start puts right.
      if (!ready) process.exit(130);
      stop.resolve(signal);
    });
  }

  const { version } = JSON.parse(await readFile(join(packageRoot, "package.json"), "utf8")) as { version: string };
  const images = createImages(paths, imagesOptions(config.images));
  const vmm = await chooseVmm(paths, config.providers.default);
  const pool = { adaptive: config.warm.adaptive, maxWarm: config.warm.max_machines };
  // The others too: clients pick them by name, and sandboxes that an earlier run started with them are found again.
  const others = Object.values(vmms(paths)).filter(({ name }) => name !== vmm.name);
  const metrics = new Metrics();
  using store = new Store(config.database.path || paths.database);
  const sandboxes = new Sandboxes({
    store,
    providers: [vmm, ...others].map((each) => createMicrovmProvider({ vmm: each, images, paths, pool })),
    limits: limitsOf(config),
    clock: systemClock,
    observer: metrics.observer,
    log: log.child({ part: "sandboxes" }),
  });
  metrics.watch(sandboxes);
  const found = await sandboxes.open();
  log.info(
    { phase: "adopt", adopted: found.adopted, removed: found.removed, lost: found.lost },
    "looked after the last run",
  );

  await using _keeper = new ImageKeeper({
    library: images,
    users: () => sandboxes.providers.all(),
    everyMs: config.images.gc_interval,
    maxBytes: config.images.max_bytes,
    report: (done) => {
      if ("error" in done) log.warn({ phase: "image-gc", err: done.error }, "could not collect images");
      else if (done.images.length + done.blobs.length > 0) log.info({ phase: "image-gc", ...done }, "collected images");
    },
  });

  const stopping = new AbortController();
  const parts = {
    sandboxes,
    images,
    config,
    configPath: path,
    auth,
    rateLimiter: config.rate_limit.enabled ? new RateLimiter(config.rate_limit) : undefined,
    metrics,
    log: log.child({ part: "api" }),
    version,
    startedAt: Date.now(),
    stopping: stopping.signal,
  };
  let failure: unknown;
  try {
    const server = await listen(createApp(parts), config.server);
    log.info({ url: server.url, provider: vmm.name, data: root, open: auth.open }, "listening");
    ready = true;
    process.stdout.write(`listening on ${server.url}\n`);
    const signal = await stop.promise;
    log.info({ signal, destroy: config.shutdown.destroy }, "stopping");
    stopping.abort(new Error("the server is stopping"));
    await server.close(config.shutdown.grace);
  } catch (error) {
    failure = error;
  }
  await sandboxes.close({ destroy: failure === undefined && config.shutdown.destroy });
  if (failure !== undefined) throw failure;
  log.info({}, "stopped");
}
