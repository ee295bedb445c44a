/** The console's own server with machines that are plain objects: for hundreds of them, and for what can be killed and come back. */

import assert from "node:assert/strict";
import axe from "axe-core";
import type { BrowserContext, Page } from "playwright-core";
import type { FleetNodeView } from "../src/api/fleet-nodes.ts";
import { listen, type RunningServer } from "../src/api/server.ts";
import { validateConfig } from "../src/config/load.ts";
import { StacyError } from "../src/host/error.ts";
import type { Image, ImageDetails, ResolveOptions } from "../src/images/image.ts";
import { fakeApp } from "./fake-app.ts";
import { FakeMachine } from "./fake-provider.ts";

export class ConsoleServer implements AsyncDisposable {
  readonly world: ReturnType<typeof fakeApp>;
  readonly images = new FakeImages();
  key = "";
  #server: RunningServer | undefined;
  #port = 0;
  #hung: Promise<void> | undefined;

  private constructor() {
    this.world = fakeApp({
      images: this.images,
      doctor: async () => [
        {
          name: "KVM",
          state: "note",
          detail: "cannot be opened",
          meaning: "hardware virtualisation",
          remedy: "load it",
        },
        { name: "QEMU", state: "ok", detail: "7.2", meaning: "runs Linux guests" },
      ],
      fleet: {
        ...{ self: "1", list: async () => [node("1", "one", "up"), node("2", "two", "silent")] },
        ...{
          drain: async () => {},
          drained: async () => ({ moving: false, moved: 0, left: [] }),
          move: () => assert.fail("the console moves nothing"),
          remove: async () => [],
        },
      },
    });
    this.world.clock.set(Date.now());
  }

  static async create(sandboxes = 0): Promise<ConsoleServer> {
    const server = new ConsoleServer();
    const { secret } = await server.world.keys.create({ name: "console", owner: "default", scopes: ["admin"] }, "test");
    server.key = secret;
    await server.world.sandboxes.open();
    await server.spawn(sandboxes);
    await server.start();
    return server;
  }

  /** Each third has no name, each seventh is paused. @returns their ids, in their order */
  async spawn(count: number): Promise<string[]> {
    const ids: string[] = [];
    for (let i = 0; i < count; i++) {
      const { id } = await this.world.sandboxes.spawn({
        owner: "default",
        image: i % 2 === 0 ? "stacyvm/python" : "stacyvm/busybox",
        ...(i % 3 === 0
          ? {}
          : { name: `worker-${String(i).padStart(3, "0")}`, metadata: { team: i % 5 === 0 ? "search" : "web" } }),
      });
      ids.push(id);
      if (i % 7 === 3) await this.world.sandboxes.pause(id);
    }
    return ids;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async start(): Promise<void> {
    const { app } = this.world;
    const fetch = async (...[request, env]: Parameters<typeof app.fetch>): Promise<Response> => {
      await this.#hung;
      return app.fetch(request, env);
    };
    this.#server = await listen({ fetch } as typeof app, validateConfig({ server: { port: this.#port } }, "").server);
    this.#port = this.#server.port;
  }

  /** Requests wait from now on. @returns lets them go on */
  hang(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#hung = promise;
    return resolve;
  }

  /** Connections break, and nobody listens. */
  async kill(): Promise<void> {
    await this.#server?.close(0);
    this.#server = undefined;
  }

  async call(method: string, path: string, body: object): Promise<void> {
    const headers = { "x-api-key": this.key, "content-type": "application/json" };
    const response = await fetch(`${this.url}/api/v1${path}`, { method, headers, body: JSON.stringify(body) });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  }

  /** A page that has the key. */
  async open(context: BrowserContext, hash = "#/"): Promise<Page> {
    const page = await context.newPage();
    page.setDefaultTimeout(30_000);
    await page.addInitScript(`sessionStorage.setItem("stacyvm.key", ${JSON.stringify(this.key)})`);
    await page.goto(`${this.url}/ui/${hash}`);
    await page.getByRole("heading", { level: 1 }).waitFor();
    return page;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.world.stopping.abort();
    await this.kill();
    await this.world.sandboxes.close({ destroy: true });
  }
}

function node(id: string, name: string, state: FleetNodeView["state"]): FleetNodeView {
  return {
    ...{ id, name, state, url: `http://${name}:1`, role: "node", draining: false, version: "1.0.0", labels: {} },
    ...{ architecture: "x64", providers: ["qemu"], hostIdentity: "x", seenAt: Date.now() },
    load: {
      ...{ sandboxes: 3, maxSandboxes: 0, queued: 0, vcpus: 2, memoryMiB: 4_096, freeMemoryMiB: 2_048 },
      loadAverage: 0.5,
    },
  };
}

/** Images whose pulls go on when the test says so. */
export class FakeImages {
  readonly known = new Map<string, Image>();
  pulled = Promise.withResolvers<void>();

  constructor() {
    this.#add("stacyvm/python", 90_000_000);
    this.#add("stacyvm/busybox", 1_200_000);
  }

  #add(reference: string, bytes: number): Image {
    const image: Image = {
      ...{ reference, digest: `sha256:${"0".repeat(64)}`, base: "/", filesystem: "erofs", sizeBytes: bytes },
      ...{ config: { env: [], entrypoint: [], cmd: ["sh"], labels: {}, exposedPorts: [] }, createdAt: Date.now() },
    };
    this.known.set(reference, image);
    return image;
  }

  list = async (): Promise<Image[]> => [...this.known.values()];
  inspect = async (reference: string): Promise<ImageDetails> => {
    const found = this.known.get(reference);
    if (found === undefined) throw new StacyError("not-found", `there is no image ${reference}`);
    return { ...found, references: [reference], usedAt: 0, blobs: [] };
  };
  has = async (digest: string): Promise<boolean> => [...this.known.values()].some((image) => image.digest === digest);
  resolve = async (reference: string, { progress }: ResolveOptions = {}): Promise<Image> => {
    if (reference.startsWith("no/")) throw new StacyError("not-found", `there is no image ${reference}`);
    progress?.({ step: "pulling", done: 30 * 2 ** 20, total: 60 * 2 ** 20, unit: "bytes" });
    await this.pulled.promise;
    return this.#add(reference, 60 * 2 ** 20);
  };
  remove = async (reference: string): Promise<void> => {
    this.known.delete(reference);
  };
}

/** What each machine uses from now on: something to sort by. */
export function busy(id: string, server: ConsoleServer, cpuPercent: number): void {
  const machine = server.world.provider.machinesById.get(id);
  if (!(machine instanceof FakeMachine)) throw new Error(`there is no machine ${id}`);
  machine.stats = async () => ({
    cpuPercent,
    privateBytes: cpuPercent * 2 ** 20,
    pssBytes: 0,
    memoryLimitBytes: 2 ** 28,
    diskBytes: 2 ** 20,
  });
}

/** What axe finds, as lines; and whether the page is wider than its window. */
export async function faults(page: Page, rules?: string[]): Promise<string[]> {
  // Evaluated by the debugger, which the page's own policy does not concern.
  await page.evaluate(axe.source);
  const only = rules === undefined ? {} : { runOnly: { type: "rule", values: rules } };
  const options = JSON.stringify({ resultTypes: ["violations"], ...only });
  const { violations } = (await page.evaluate(`axe.run(${options})`)) as axe.AxeResults;
  const found = violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 200)} ${failureSummary}`),
  );
  const wide = (await page.evaluate(
    "document.documentElement.scrollWidth - document.documentElement.clientWidth",
  )) as number;
  return wide > 0 ? [...found, `${wide} px too wide`] : found;
}
