/** The OpenAPI document of the server, made in this process: no socket, no machine, no file. */
import pino from "pino";
import { Access } from "../src/access/access.ts";
import { Audit } from "../src/access/audit.ts";
import { Keys } from "../src/access/keys.ts";
import { Tenants } from "../src/access/tenants.ts";
import { type App, createApp } from "../src/api/app.ts";
import { Metrics } from "../src/api/metrics.ts";
import { validateConfig } from "../src/config/load.ts";
import { limitsOf } from "../src/config/options.ts";
import type { Environments } from "../src/environments/environments.ts";
import type { ImageLibrary } from "../src/images/image.ts";
import type { Provider } from "../src/providers/provider.ts";
import { systemClock } from "../src/sandboxes/clock.ts";
import { Sandboxes } from "../src/sandboxes/sandboxes.ts";
import { Store } from "../src/sandboxes/store.ts";

export interface JsonSchema {
  $ref?: string;
  type?: string | string[];
  description?: string;
  format?: string;
  example?: unknown;
  enum?: unknown[];
  const?: unknown;
  properties?: Record<string, JsonSchema>;
  required?: string[];
  items?: JsonSchema;
  additionalProperties?: boolean | JsonSchema;
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  allOf?: JsonSchema[];
}

export interface Operation {
  tags?: string[];
  summary?: string;
  description?: string;
  parameters?: { name: string; in: string; required?: boolean; description?: string; schema: JsonSchema }[];
  requestBody?: { required?: boolean; content: Record<string, { schema: JsonSchema }> };
  responses: Record<string, { description: string; content?: Record<string, { schema: JsonSchema }> }>;
}

export interface OpenApi {
  info: { title: string; version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, JsonSchema> };
}

const KEY = "of-this-process";

export async function openApiDocument(): Promise<OpenApi> {
  using store = new Store(":memory:");
  const response = await appWithoutMachines(store).request(
    "/api/v1/openapi.json",
    { headers: { "x-api-key": KEY } },
    {},
  );
  return (await response.json()) as OpenApi;
}

/** The application as far as routes go: no socket, no machine, no image. */
export function appWithoutMachines(store: Store): App {
  const config = validateConfig({}, "");
  const log = pino({ level: "silent" });
  const sandboxes = new Sandboxes({
    store,
    // As with the images: routes only keep it.
    providers: [{ name: "qemu", onEvent: () => () => {} } as unknown as Provider],
    limits: limitsOf(config),
    clock: systemClock,
    observer: new Metrics().observer,
    log,
    volumes: "/nonexistent",
  });
  const keys = new Keys(store);
  return createApp({
    sandboxes,
    // Routes only keep it; nothing is called while the document is made.
    images: {} as ImageLibrary,
    config,
    dataDir: "",
    configPath: "",
    access: new Access({
      configured: [{ name: "document", key: KEY, scopes: ["admin"] }],
      keys,
      ownUser: false,
    }),
    audit: new Audit(store, () => {}),
    tenants: new Tenants(store, keys, 0),
    environments: {} as Environments,
    rateLimiter: undefined,
    metrics: new Metrics(),
    log,
    version: "0",
    startedAt: 0,
    stopping: new AbortController().signal,
  });
}
