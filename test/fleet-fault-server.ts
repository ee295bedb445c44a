/**
 * A server of a fleet in a process of its own, that can be killed and stopped: with the application, the listeners and the fleet that a server
 * has, its database on disk, and machines that are files in its directory. Says to its parent where it is, and ends with it.
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import pino from "pino";
import { listen } from "../src/api/server.ts";
import { validateConfig } from "../src/config/load.ts";
import { Fleet } from "../src/fleet/fleet.ts";
import { NodesListener } from "../src/fleet/nodes-listener.ts";
import type { Adoption } from "../src/providers/provider.ts";
import { silentLog } from "../src/sandboxes/observer.ts";
import { Store } from "../src/sandboxes/store.ts";
import { fakeApp } from "./fake-app.ts";
import { FakeMachine, FakeProvider } from "./fake-provider.ts";

export interface ServerStart {
  home: string;
  name: string;
  role: "node" | "entrance";
  databaseUrl: string;
  /** How the others reach it. */
  url: string;
}

export interface ServerReport {
  url: string;
  nodesUrl: string;
  key: string;
}

/** A machine is there as long as its file is, whatever becomes of this process. */
class Files extends Map<string, FakeMachine> {
  readonly #dir: string;

  constructor(dir: string) {
    super();
    this.#dir = dir;
    mkdirSync(dir, { recursive: true });
  }
  list(): string[] {
    return readdirSync(this.#dir);
  }
  override set(id: string, machine: FakeMachine): this {
    writeFileSync(join(this.#dir, id), "");
    return super.set(id, machine);
  }
  override delete(id: string): boolean {
    rmSync(join(this.#dir, id), { force: true });
    return super.delete(id);
  }
}

class KeptProvider extends FakeProvider {
  override readonly machinesById: Files;

  constructor(dir: string) {
    super();
    this.machinesById = new Files(dir);
  }
  override async machines(): Promise<string[]> {
    return this.machinesById.list();
  }
  override async adopt(wanted: ReadonlySet<string> = new Set()): Promise<Adoption> {
    const all = this.machinesById.list();
    const removed = all.filter((id) => !wanted.has(id));
    for (const id of removed) this.machinesById.delete(id);
    const adopted = all.filter((id) => wanted.has(id)).map((id) => new FakeMachine(this, id));
    return { adopted, unreachable: [], gone: [], removed };
  }
}

process.once("disconnect", () => process.exit());
const { home, name, role, databaseUrl, url } = JSON.parse(process.argv[2] as string) as ServerStart;
const given = {
  server: { port: 0 },
  fleet: {
    ...{ database_url: databaseUrl, node_name: name, role, url, address: "127.0.0.1:0" },
    ...{ secret: "s".repeat(40), heartbeat: "200ms", lost_after: "10m" },
  },
};
const config = validateConfig(given, "");
const log = pino({ level: "silent" });
const nodes = await NodesListener.bind(config, log);
const fleet = await Fleet.open({
  ...{ config: config.fleet, dataDir: home, url, role, version: "1", log: silentLog },
  providers: role === "entrance" ? [] : ["qemu"],
});
const app = fakeApp({
  ...{ config: given, secret: nodes.tokensSecret },
  world: {
    ...{ registry: fleet.registry, eventLog: fleet.events, store: new Store(join(home, "stacyvm.db")) },
    ...{ volumes: join(home, "volumes"), provider: new KeptProvider(join(home, "machines")) },
  },
});
app.clock.set(Date.now());
await app.sandboxes.open();
await fleet.join(app.sandboxes);
const front = nodes.open({
  ...{ fleet, config, log, sandboxes: app.sandboxes, access: app.access, tokens: app.tokens },
  ...{ app: app.app, images: app.images },
});
const server = await listen(app.app, config.server, { front });
const { secret: key } = await app.keys.create({ name: `k${Date.now()}`, owner: "default", scopes: ["admin"] }, "test");
process.send?.({ url: server.url, nodesUrl: nodes.url, key } satisfies ServerReport);
