/** For tests of a fleet: a real PostgreSQL of the file's own, emptied before each test, and servers of it. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { configSchema } from "../src/config/schema.ts";
import { Fleet } from "../src/fleet/fleet.ts";
import { silentLog } from "../src/sandboxes/observer.ts";
import { Postgres } from "./postgres.ts";

export const HEARTBEAT_MS = 100;

export interface FleetTests {
  /** There from the first test on. */
  readonly postgres: Postgres;
  /** Has not joined yet. @param from what it begins with: the home of one that ran before, another address of the database */
  open(
    name: string,
    from?: { home?: string | undefined; url?: string | undefined },
  ): Promise<{ fleet: Fleet; home: string }>;
}

export function fleetTests(): FleetTests {
  let postgres: Postgres | undefined;
  let dir = "";
  before(async () => {
    postgres = await Postgres.create();
    dir = await mkdtemp(join(tmpdir(), "stacyvm-fleet-"));
  });
  after(async () => {
    await postgres?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true });
  });
  const there = (): Postgres => postgres as Postgres;
  beforeEach(() => there().query("DROP SCHEMA IF EXISTS stacyvm CASCADE"));
  return {
    get postgres() {
      return there();
    },
    async open(name, { home = undefined, url = there().url } = {}) {
      const dataDir = home ?? (await mkdtemp(join(dir, "node-")));
      const config = configSchema.parse({
        fleet: { database_url: url, node_name: name, heartbeat: `${HEARTBEAT_MS}ms` },
      }).fleet;
      const fleet = await Fleet.open({
        ...{
          config,
          dataDir,
          url: `http://${name}:1`,
          role: "node",
          version: "1",
          providers: ["qemu"],
          log: silentLog,
        },
      });
      return { fleet, home: dataDir };
    },
  };
}

/** Waits for what comes by itself. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await delay(10);
}
