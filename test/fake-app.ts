/** The application as the daemon has it, E2B's protocol too, in this process and with machines that are plain objects. */
import { randomBytes } from "node:crypto";
import pino from "pino";
import { createApp } from "../src/api/app.ts";
import type { HostFinding } from "../src/api/context.ts";
import type { FleetNodes } from "../src/api/fleet-nodes.ts";
import { Metrics } from "../src/api/metrics.ts";
import { RateLimiter } from "../src/api/rate-limit.ts";
import { validateConfig } from "../src/config/load.ts";
import { e2b } from "../src/e2b/mount.ts";
import { SandboxTokens } from "../src/e2b/sandbox-tokens.ts";
import { Environments } from "../src/environments/environments.ts";
import { StacyError } from "../src/host/error.ts";
import { peerUid } from "../src/host/peer-uid.ts";
import type { ImageLibrary } from "../src/images/image.ts";
import { fakeAccess } from "./fake-access.ts";
import { fakeWorld } from "./fake-provider.ts";

async function noImage(name: string): Promise<never> {
  throw new StacyError("not-found", `the image ${name} is not on this host`);
}

export function fakeApp(
  options: {
    wrongKey?: (address: string, left: number) => void;
    ownUser?: boolean;
    /** Whose a connection is says the kernel, not the test. */
    peer?: "kernel";
    config?: Record<string, unknown>;
    now?: () => number;
    images?: Partial<ImageLibrary>;
    doctor?: () => Promise<HostFinding[]>;
    fleet?: FleetNodes;
    volumes?: string;
    /** For what is sent to it. */
    dataDir?: string;
    /** Of E2B's tokens; several servers may have the same. */
    secret?: Buffer;
    maxSandboxes?: number;
    world?: Parameters<typeof fakeWorld>[0];
  } = {},
) {
  const world = fakeWorld({
    ...(options.volumes === undefined ? {} : { volumes: options.volumes }),
    ...(options.maxSandboxes === undefined ? {} : { maxSandboxes: options.maxSandboxes }),
    ...options.world,
  });
  const config = validateConfig(options.config ?? {}, "");
  const { now, ownUser = false, wrongKey } = options;
  const { access, audit, keys, tenants } = fakeAccess(world.store, {
    ownUser,
    ...(options.peer === "kernel" ? { peer: peerUid } : {}),
    ...(now === undefined ? {} : { now }),
    ...(wrongKey === undefined ? {} : { wrongKey }),
  });
  const stopping = new AbortController();
  const tokens = new SandboxTokens(options.secret ?? randomBytes(32));
  const given = options.images;
  const images: ImageLibrary =
    given !== undefined && "of" in given
      ? (given as ImageLibrary)
      : ({ list: async () => [], of: () => images, resolve: noImage, ...given } as unknown as ImageLibrary);
  const parts = {
    fleet: options.fleet,
    sandboxes: world.sandboxes,
    images,
    environments: new Environments({ store: world.store, images, report: () => {} }),
    ...(options.doctor === undefined ? {} : { doctor: options.doctor }),
    config,
    dataDir: options.dataDir ?? "/",
    configPath: "/nonexistent/stacyvm.yaml",
    access,
    audit,
    tenants,
    rateLimiter: config.rate_limit.enabled ? new RateLimiter(config.rate_limit) : undefined,
    metrics: new Metrics(),
    log: pino({ level: "silent" }),
    version: "0",
    startedAt: 0,
    stopping: stopping.signal,
  };
  const app = createApp(parts, [e2b({ ...parts, tokens })]);
  return { ...world, app, access, keys, audit, tokens, stopping, config, images };
}
