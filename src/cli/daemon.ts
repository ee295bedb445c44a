/** The server's layers, put together and taken apart in the right order: for `serve`, and inside a command that finds no server. */
import type { Logger } from "pino";
import { Access, type ConfiguredKey } from "../access/access.ts";
import { Audit } from "../access/audit.ts";
import { configuredKeys, tokenOptions } from "../access/configured.ts";
import { Keys } from "../access/keys.ts";
import { Tenants } from "../access/tenants.ts";
import { Tokens } from "../access/tokens.ts";
import { createApp } from "../api/app.ts";
import type { RouteParts } from "../api/context.ts";
import { Metrics } from "../api/metrics.ts";
import { RateLimiter } from "../api/rate-limit.ts";
import { listen } from "../api/server.ts";
import { imagesOptions, limitsOf, networkOf, sealOf } from "../config/options.ts";
import type { Config } from "../config/schema.ts";
import { e2b } from "../e2b/mount.ts";
import { SandboxTokens } from "../e2b/sandbox-tokens.ts";
import { Environments } from "../environments/environments.ts";
import type { Fleet } from "../fleet/fleet.ts";
import type { NodesListener } from "../fleet/nodes-listener.ts";
import { exists } from "../host/exists.ts";
import type { DataPaths } from "../host/paths.ts";
import { Spawner, spawnerPath } from "../host/spawner.ts";
import { createImages } from "../images/store.ts";
import { createMicrovmProvider } from "../providers/microvm.ts";
import { systemClock } from "../sandboxes/clock.ts";
import { assertAtHome } from "../sandboxes/database-home.ts";
import { keepClean } from "../sandboxes/keep-clean.ts";
import { Sandboxes } from "../sandboxes/sandboxes.ts";
import { Store } from "../sandboxes/store.ts";
import type { Takeover } from "../sandboxes/takeover.ts";
import { confinement } from "../vmm/cgroup.ts";
import { emptyNetwork } from "../vmm/empty-network.ts";
import { assertUsable } from "../vmm/usable.ts";
import { chooseVmm, vmms } from "./engine.ts";
import { version } from "./version.ts";

export interface DaemonOptions {
  config: Config;
  /** Where `PATCH /config` writes. */
  configPath: string;
  paths: DataPaths;
  /** Beside those of the configuration: what commands of its own user find. */
  localKey: string;
  /** Programs of its own user need no key at all. */
  ownUser: boolean;
  log: Logger;
  /** Keep machines ready: for a server that stays. */
  pool: boolean;
  /** End machines that the database does not know, instead of refusing to start. */
  removeUnknown?: boolean;
  /** Examines this host, for whoever asks the server for it: it knows how to start a daemon itself. */
  doctor?: RouteParts["doctor"];
}

export interface Daemon {
  readonly url: string;
  /** When somebody last used it over HTTP, ms of `performance.now()`. */
  readonly usedAt: number;
  /** Name of the default provider. */
  readonly provider: string;
  /** Whether its machines run in software emulation. */
  emulated(): Promise<boolean>;
  readonly found: Takeover;
  /** How many there are, whatever their states. */
  readonly sandboxes: number;
  /** Golden snapshots are being built beside what was asked for. */
  readonly building: boolean;
  /** Waits for them. */
  settle(): Promise<void>;
  /** Lets requests under way finish for `graceMs`. Sandboxes go on, unless `destroy`. */
  close(options: { graceMs: number; destroy: boolean }): Promise<void>;
}

/** The caller holds the lock. @throws StacyError when the address is taken, or the database cannot be opened */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { config, paths, log } = options;
  await using parts = new AsyncDisposableStack();
  const images = createImages(paths, { ...imagesOptions(config.images), privateHosts: "named" });
  const spawner = options.pool ? await openSpawner(paths.assets) : undefined;
  if (spawner !== undefined) parts.use(spawner);
  // Without it each cell makes its own.
  if (options.pool)
    await emptyNetwork().catch((err: unknown) =>
      log.debug({ phase: "network", err }, "no network namespace for all monitors"),
    );
  const all = vmms(paths, config, spawner?.spawn);
  // Before anything is adopted: a daemon that cannot do what it is told to must not judge the machines of one that could.
  if (config.firecracker.jail) await assertUsable(all.firecracker);
  const vmm = await chooseVmm(all, config.providers.default);
  // The others too: clients pick them by name, and sandboxes that an earlier run started with them are found again.
  const others = Object.values(all).filter(({ name }) => name !== vmm.name);
  const network = networkOf(config);
  const { adaptive, max_machines, max_memory_mb, idle_monitors } = config.warm;
  const budget = max_memory_mb === 0 ? {} : { memoryBudget: max_memory_mb * 2 ** 20 };
  const warms = options.pool && config.fleet.role === "node";
  const pool = warms ? { adaptive, maxWarm: max_machines, maxBlank: idle_monitors, ...budget } : undefined;
  const directoryAnswerMs = config.mounts.answer_timeout;
  const providers = [vmm, ...others].map((each) =>
    createMicrovmProvider({
      vmm: each,
      images,
      paths,
      network,
      directoryAnswerMs,
      ...(pool === undefined ? {} : { pool }),
    }),
  );
  const metrics = new Metrics();
  const store = parts.use(new Store(config.database.path || paths.database, log.child({ part: "store" })));
  if (config.database.path !== "") await assertAtHome(store, paths.root, options.removeUnknown === true);
  // A server inside a command comes and goes: nobody counts on it.
  const inFleet = config.fleet.database_url !== "" && options.pool;
  const nodes = inFleet ? await bindNodes(options) : undefined;
  if (nodes !== undefined) parts.defer(() => nodes.close(0));
  const fleet = inFleet ? parts.use(await openFleet(options, nodes?.url, [vmm, ...others])) : undefined;
  const keys = fleet?.keys(store) ?? new Keys(store);
  const access = accessOf(options, keys);
  const sandboxes = new Sandboxes({
    store,
    providers,
    limits: limitsOf(config),
    clock: systemClock,
    observer: metrics.observer,
    log: log.child({ part: "sandboxes" }),
    seal: sealOf(config),
    volumes: paths.volumes,
    directories: { allow: config.mounts.allow, hidden: paths.root },
    registry: fleet?.registry,
    eventLog: fleet?.events,
    shared: fleet?.shared(store),
  });
  network.vault = { of: (id) => sandboxes.secretsOf(id) };
  metrics.watch(sandboxes, paths.root, network);
  if (fleet !== undefined) metrics.watchFleet(() => fleet.directory.nodes());
  let destroy = false;
  let closing: Promise<void> | undefined;
  const closeSandboxes = (): Promise<void> => {
    closing ??= sandboxes.close({ destroy });
    return closing;
  };
  parts.defer(closeSandboxes);
  const found = await sandboxes.open({ removeUnknown: options.removeUnknown === true });
  await fleet?.join(sandboxes);
  const { max_bytes: maxBytes, max_unused: maxUnusedMs, checkpoints, gc_interval } = config.snapshots;
  parts.use(
    keepClean({
      providers,
      images,
      imageUsers: sandboxes.imageUsers(images),
      snapshots: sandboxes.checkpoints.snapshotOwners(),
      imageLimits: { maxBytes: config.images.max_bytes, everyMs: config.images.gc_interval },
      snapshotLimits: { maxBytes, maxUnusedMs, checkpoints, everyMs: gc_interval },
      log,
    }),
  );
  const environments = parts.use(
    new Environments({
      ...{ store, images },
      report: (err) => log.error({ phase: "environments", err }, "the state of a build could not be kept"),
    }),
  );
  const audit = parts.use(
    new Audit(store, (err, trouble) => {
      const words = "the audit log cannot be written: its entries wait in memory and are tried again";
      log.error({ phase: "audit", err, ...trouble }, words);
    }),
  );
  const stopping = new AbortController();
  const startedAt = Date.now();
  const serverParts = {
    sandboxes,
    images,
    config,
    dataDir: paths.root,
    configPath: options.configPath,
    access,
    audit,
    tenants: new Tenants(store, keys, startedAt),
    environments,
    rateLimiter: config.rate_limit.enabled ? new RateLimiter(config.rate_limit) : undefined,
    metrics,
    log: log.child({ part: "api" }),
    version,
    ...(options.doctor === undefined ? {} : { doctor: options.doctor }),
    fleet: fleet?.admin(),
    startedAt,
    stopping: stopping.signal,
  };
  const tokens = nodes === undefined ? await SandboxTokens.open(paths.root) : new SandboxTokens(nodes.tokensSecret);
  const app = createApp(serverParts, [e2b({ ...serverParts, tokens })]);
  const front = fleet && nodes?.open({ ...serverParts, tokens, app, fleet });
  const server = await listen(app, config.server, { front });
  const owned = parts.move();
  return {
    url: server.url,
    get usedAt() {
      return Math.max(server.usedAt, nodes?.usedAt ?? 0);
    },
    provider: vmm.name,
    emulated: async () => {
      const probe = await vmm.probe();
      return probe.usable && probe.accelerator === "tcg";
    },
    found,
    get sandboxes() {
      return sandboxes.list().length;
    },
    get building() {
      return providers.some(({ launcher }) => launcher.golden.building.size > 0);
    },
    settle: async () => {
      await Promise.all(providers.map(({ launcher }) => launcher.settle()));
    },
    async close(end) {
      destroy = end.destroy;
      stopping.abort(new Error("the server is stopping"));
      // Streams without an end are told why they end, while their connections are still there.
      await Promise.all([
        nodes?.close(end.graceMs),
        server.close(
          end.graceMs,
          () =>
            void environments[Symbol.asyncDispose]()
              .then(closeSandboxes)
              .catch(() => {}),
        ),
      ]);
      // Before whatever may take long: changes are told to end, and what `destroy` asks for is done.
      await environments[Symbol.asyncDispose]();
      await closeSandboxes();
      await owned.disposeAsync();
    },
  };
}

/** Where other nodes reach this one. */
async function bindNodes({ config, log }: DaemonOptions): Promise<NodesListener | undefined> {
  if (config.fleet.secret === "" && config.fleet.role === "node") {
    const words =
      "without fleet.secret this server answers for its own sandboxes only: no call is passed on to another node";
    log.warn({ phase: "fleet" }, words);
    return undefined;
  }
  // A server that is alone loads nothing of it.
  const { NodesListener } = await import("../fleet/nodes-listener.ts");
  return NodesListener.bind(config, log.child({ part: "fleet" }));
}

/** This server among others. @param url how they reach it, where the configuration does not say */
async function openFleet(
  { config, paths, log }: DaemonOptions,
  url: string | undefined,
  providers: readonly { name: string }[],
): Promise<Fleet> {
  const { Fleet } = await import("../fleet/fleet.ts");
  return Fleet.open({
    ...{
      config: config.fleet,
      dataDir: paths.root,
      version,
      role: config.fleet.role,
      log: log.child({ part: "fleet" }),
    },
    url: url ?? `http://${config.server.host}:${config.server.port}`,
    providers: config.fleet.role === "entrance" ? [] : providers.map(({ name }) => name),
  });
}

/** One that set-up has not compiled: the server starts its processes itself, as commands do. */
async function openSpawner(assets: string): Promise<Spawner | undefined> {
  const path = spawnerPath(assets);
  if (!(await exists(path))) return undefined;
  // First, since it moves us into a group of our own where it must: what we start then is in it too.
  await confinement();
  return new Spawner(path);
}

function accessOf({ config, localKey, ownUser, log }: DaemonOptions, keys: Keys): Access {
  const local: ConfiguredKey = { name: "local", key: localKey, scopes: ["admin"], local: true };
  const tokens = tokenOptions(config.auth);
  return new Access({
    configured: [...configuredKeys(config.auth), local],
    keys,
    ownUser,
    wrongKey: (address, left) =>
      log.warn(
        { phase: "auth", address },
        left > 0 ? "a wrong key" : "wrong keys; no more of this address are looked at for a while",
      ),
    ...(tokens === undefined ? {} : { tokens: new Tokens(tokens) }),
  });
}
