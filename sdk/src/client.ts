/** A server: its sandboxes, templates, images, snapshots, checkpoints, events and numbers. */
import { errorOf } from "./errors.ts";
import type * as wire from "./generated.ts";
import type { Command } from "./process.ts";
import { type RunOptions, type RunResult, run } from "./run.ts";
import { type CreateOptions, Sandbox } from "./sandbox.ts";
import { decode } from "./schema.ts";
import { ndjson, serverSent } from "./streams.ts";
import { type CallOptions, type ClientOptions, LONG, Transport } from "./transport.ts";

export interface StacyEvent {
  /** `evt-` and a number; `after` continues from here. */
  id: string;
  /** For example `sandbox.running`. */
  type: string;
  sandboxId?: string | undefined;
  timestamp: string;
  data?: Record<string, unknown> | undefined;
}

export interface EventOptions {
  /** Only these; `sandbox.*` works. */
  types?: string[] | undefined;
  sandboxId?: string | undefined;
  /** Replay what came after this event. */
  after?: string | undefined;
  signal?: AbortSignal | undefined;
}

export interface PullProgress {
  step: string;
  done?: number | undefined;
  total?: number | undefined;
  unit?: string | undefined;
}

export class Client {
  readonly transport: Transport;

  constructor(options: ClientOptions = {}) {
    this.transport = new Transport(options);
  }

  get url(): string {
    return this.transport.url;
  }

  // Sandboxes

  create(options: CreateOptions = {}): Promise<Sandbox> {
    return Sandbox.create(options, this);
  }

  /** Runs a command in a sandbox of its own, which is gone afterwards. A non-zero exit code is no error, unless `check`. */
  run(command: Command, options: RunOptions = {}): Promise<RunResult> {
    return run(this.transport, command, options);
  }

  /** By id or name. */
  get(id: string, options: CallOptions = {}): Promise<Sandbox> {
    return Sandbox.connect(id, this, options);
  }

  /** Newest first. */
  list(options: CallOptions = {}): Promise<Sandbox[]> {
    return Sandbox.list(this, options);
  }

  /** What a spawn would meet now. */
  admission(request: wire.SpawnRequest, options: CallOptions = {}): Promise<wire.Admission> {
    return this.transport.call("POST /sandboxes/admission", { body: request, ...options });
  }

  /** Destroys what has expired. @returns how many */
  async prune(options: CallOptions = {}): Promise<number> {
    return (await this.transport.call("DELETE /sandboxes", options)).pruned;
  }

  // What sandboxes are made of

  readonly templates = {
    list: (options: CallOptions = {}): Promise<wire.Template[]> => this.transport.call("GET /templates", options),
    get: (name: string, options: CallOptions = {}): Promise<wire.Template> =>
      this.transport.call("GET /templates/{name}", { params: { name }, ...options }),
    create: (template: wire.TemplateCreateRequest, options: CallOptions = {}): Promise<wire.Template> =>
      this.transport.call("POST /templates", { body: template, ...options }),
    replace: (name: string, template: wire.TemplateRequest, options: CallOptions = {}): Promise<wire.Template> =>
      this.transport.call("PUT /templates/{name}", { params: { name }, body: template, ...options }),
    remove: async (name: string, options: CallOptions = {}): Promise<void> => {
      await this.transport.call("DELETE /templates/{name}", { params: { name }, ...options });
    },
    spawn: async (name: string, request: wire.TemplateSpawnRequest = {}, options: CallOptions = {}): Promise<Sandbox> =>
      new Sandbox(
        this.transport,
        await this.transport.call("POST /templates/{name}/spawn", {
          params: { name },
          body: request,
          ...LONG,
          ...options,
        }),
      ),
  };

  /** What programs of sandboxes use at some hosts and never have. Values go in and never come out. */
  readonly secrets = {
    list: (options: CallOptions = {}): Promise<wire.Secret[]> => this.transport.call("GET /secrets", options),
    get: (name: string, options: CallOptions = {}): Promise<wire.Secret> =>
      this.transport.call("GET /secrets/{name}", { params: { name }, ...options }),
    /** Makes it, or changes what is given; another value counts from the next request on. */
    put: (name: string, secret: wire.SecretRequest, options: CallOptions = {}): Promise<wire.Secret> =>
      this.transport.call("PUT /secrets/{name}", { params: { name }, body: secret, ...options }),
    remove: async (name: string, options: CallOptions = {}): Promise<void> => {
      await this.transport.call("DELETE /secrets/{name}", { params: { name }, ...options });
    },
  };

  /** Disks that stay when sandboxes go. */
  readonly volumes = {
    list: (options: CallOptions = {}): Promise<wire.Volume[]> => this.transport.call("GET /volumes", options),
    /** What an owner's volumes take, and may take; an administrator's: of every owner that has some. */
    usage: (options: CallOptions = {}): Promise<wire.VolumeUsage[]> =>
      this.transport.call("GET /usage/volumes", options),
    get: (name: string, options: CallOptions = {}): Promise<wire.Volume> =>
      this.transport.call("GET /volumes/{name}", { params: { name }, ...options }),
    create: (volume: wire.VolumeRequest, options: CallOptions = {}): Promise<wire.Volume> =>
      this.transport.call("POST /volumes", { body: volume, ...options }),
    /** It can only grow, and only while no sandbox has it. */
    resize: (name: string, sizeMb: number, options: CallOptions = {}): Promise<wire.Volume> =>
      this.transport.call("PATCH /volumes/{name}", { params: { name }, body: { sizeMb }, ...options }),
    /** While no sandbox may write to it. @param to.readOnly a snapshot, which never changes */
    clone: (name: string, to: wire.VolumeClone, options: CallOptions = {}): Promise<wire.Volume> =>
      this.transport.call("POST /volumes/{name}/clone", { params: { name }, body: to, ...LONG, ...options }),
    /** Its disk, compressed with gzip, while no sandbox may write to it. */
    readContent: async (name: string, options: CallOptions = {}): Promise<ReadableStream<Uint8Array>> => {
      const response = await this.transport.open("GET /volumes/{name}/content", {
        params: { name },
        ...LONG,
        ...options,
      });
      return response.body ?? new ReadableStream();
    },
    /** Makes a volume of what `readContent` gave. */
    writeContent: (
      name: string,
      content: ReadableStream<Uint8Array>,
      options: CallOptions = {},
    ): Promise<wire.Volume> =>
      this.transport.call("PUT /volumes/{name}/content", { params: { name }, raw: content, ...LONG, ...options }),
    /** With all that is in it, and only while no sandbox has it. */
    remove: async (name: string, options: CallOptions = {}): Promise<void> => {
      await this.transport.call("DELETE /volumes/{name}", { params: { name }, ...options });
    },
  };

  readonly images = {
    list: (options: CallOptions = {}): Promise<wire.Image[]> => this.transport.call("GET /images", options),
    /** Pulls or builds it, unless it is there. */
    pull: (reference: string, options: PullOptions = {}): Promise<wire.Image> => this.#pull(reference, options),
    remove: async (reference: string, options: CallOptions = {}): Promise<void> => {
      await this.transport.call("DELETE /images", { query: { reference }, ...options });
    },
  };

  readonly snapshots = {
    /** Newest first. */
    list: (options: CallOptions = {}): Promise<wire.Snapshot[]> => this.transport.call("GET /snapshots", options),
    get: (key: string, options: CallOptions = {}): Promise<wire.Snapshot> =>
      this.transport.call("GET /snapshots/{key}", { params: { key }, ...options }),
    /** Builds the golden snapshot of a shape now. */
    build: (request: wire.SpawnRequest, options: CallOptions = {}): Promise<wire.Snapshot> =>
      this.transport.call("POST /snapshots", { body: request, ...LONG, ...options }),
    remove: async (key: string, options: CallOptions = {}): Promise<void> => {
      await this.transport.call("DELETE /snapshots/{key}", { params: { key }, ...options });
    },
    /** Removes what was used longest ago, until the rest fits. */
    gc: (request: wire.SnapshotGcRequest = {}, options: CallOptions = {}): Promise<wire.SnapshotGc> =>
      this.transport.call("POST /snapshots/gc", { body: request, ...LONG, ...options }),
  };

  readonly checkpoints = {
    list: (options: CallOptions = {}): Promise<wire.Checkpoint[]> => this.transport.call("GET /checkpoints", options),
    get: (id: string, options: CallOptions = {}): Promise<wire.Checkpoint> =>
      this.transport.call("GET /checkpoints/{id}", { params: { id }, ...options }),
    remove: async (id: string, options: CallOptions = {}): Promise<void> => {
      await this.transport.call("DELETE /checkpoints/{id}", { params: { id }, ...options });
    },
  };

  async #pull(reference: string, options: PullOptions): Promise<wire.Image> {
    const { pull, signal, onProgress } = options;
    const response = await this.transport.open("POST /images/pull", {
      body: { reference, pull, stream: true },
      ...LONG,
      signal,
    });
    for await (const line of ndjson(response.body)) {
      if ("image" in line) return decode({ ref: "Image" }, line.image) as wire.Image;
      if ("error" in line) throw errorOf(pullStatus(line.error), line.error);
      onProgress?.(line as unknown as PullProgress);
    }
    throw errorOf(500, { code: "CONNECTION", message: "the answer ended before the image was there" });
  }

  // What happens

  /** Events as they happen, until the loop is left or the signal is aborted. A broken connection is taken up again. */
  async *events(options: EventOptions = {}): AsyncGenerator<StacyEvent> {
    let after = options.after;
    for (let failures = 0; !options.signal?.aborted; ) {
      try {
        const response = await this.transport.open("GET /events", {
          query: { last_event_id: after, type: options.types?.join(","), sandbox_id: options.sandboxId },
          ...LONG,
          signal: options.signal,
        });
        failures = 0;
        const seen = (id: string): void => {
          after = id;
        };
        for await (const event of serverSent(response.body, seen)) {
          yield {
            id: String(event.id),
            type: String(event.type),
            timestamp: String(event.timestamp),
            ...(typeof event.sandbox_id === "string" ? { sandboxId: event.sandbox_id } : {}),
            ...(typeof event.data === "object" && event.data !== null
              ? { data: event.data as Record<string, unknown> }
              : {}),
          };
        }
      } catch (error) {
        if (options.signal?.aborted) return;
        if ((error as { code?: string }).code !== "CONNECTION" || ++failures > 5) throw error;
      }
      await pause(200 * 2 ** failures, options.signal);
    }
  }

  /** What happened, newest first: a page, and what the next one begins `before`. */
  async eventHistory(
    options: CallOptions & {
      before?: string | undefined;
      limit?: number | undefined;
      types?: string[] | undefined;
      sandboxId?: string | undefined;
    } = {},
  ): Promise<{ events: StacyEvent[]; next?: string | undefined }> {
    const { before, limit, types, sandboxId, ...call } = options;
    return this.transport.call("GET /events/history", {
      query: { before, limit, type: types?.join(","), sandbox_id: sandboxId },
      ...call,
    });
  }

  // Who may call

  /** For administrators. The secret of a key is in the answer that makes it, and nowhere else. */
  readonly keys = {
    list: (options: CallOptions & { owner?: string } = {}): Promise<wire.Key[]> =>
      this.transport.call("GET /keys", { query: { owner: options.owner }, ...options }),
    create: (request: wire.KeyRequest, options: CallOptions = {}): Promise<wire.MadeKey> =>
      this.transport.call("POST /keys", { body: request, ...options }),
    /** @param request.grace how long the secret before works on */
    rotate: (key: string, request: wire.KeyRotateRequest = {}, options: CallOptions = {}): Promise<wire.MadeKey> =>
      this.transport.call("POST /keys/{key}/rotate", { params: { key }, body: request, ...options }),
    revoke: (key: string, options: CallOptions = {}): Promise<wire.Key> =>
      this.transport.call("DELETE /keys/{key}", { params: { key }, ...options }),
  };

  /** Servers of the fleet, by id or name, for administrators; none where the server is alone. */
  readonly nodes = {
    list: (options: CallOptions = {}): Promise<wire.FleetNode[]> => this.transport.call("GET /nodes", options),
    get: (node: string, options: CallOptions = {}): Promise<wire.FleetNode> =>
      this.transport.call("GET /nodes/{node}", { params: { node }, ...options }),
    /** It gets no new sandboxes; those that it has go on. @param options.move elsewhere, beside this */
    drain: (node: string, { move, ...options }: CallOptions & { move?: boolean } = {}): Promise<wire.FleetNode> => {
      const body = move === undefined ? {} : { move };
      return this.transport.call("POST /nodes/{node}/drain", { params: { node }, body, ...options });
    },
    /** How far one is that is being drained: what it still has, with why. */
    drained: (node: string, options: CallOptions = {}): Promise<wire.NodeDrain> =>
      this.transport.call("GET /nodes/{node}/drain", { params: { node }, ...options }),
    undrain: (node: string, options: CallOptions = {}): Promise<wire.FleetNode> =>
      this.transport.call("POST /nodes/{node}/undrain", { params: { node }, ...options }),
    /** @param options.force also one that is up or has sandboxes: the fleet forgets them */
    remove: (node: string, { force, ...options }: CallOptions & { force?: boolean } = {}): Promise<wire.RemovedNode> =>
      this.transport.call("DELETE /nodes/{node}", { params: { node }, query: { force }, ...options }),
  };

  /** Who this client is to the server. */
  identity(options: CallOptions = {}): Promise<wire.Identity> {
    return this.transport.call("GET /identity", options);
  }

  // The server itself

  health(options: CallOptions = {}): Promise<wire.Health> {
    return this.transport.call("GET /health", options);
  }

  providers(options: CallOptions = {}): Promise<wire.Provider[]> {
    return this.transport.call("GET /providers", options);
  }

  pool(options: CallOptions = {}): Promise<wire.PoolStatus> {
    return this.transport.call("GET /pool/status", options);
  }

  systemStats(options: CallOptions = {}): Promise<wire.SystemStats> {
    return this.transport.call("GET /system/stats", options);
  }

  /** Over the last hour, oldest first. */
  systemHistory(options: CallOptions = {}): Promise<wire.SystemSample[]> {
    return this.transport.call("GET /system/history", options);
  }

  /** What the host has and lacks; for administrators. */
  doctor(options: CallOptions = {}): Promise<wire.Doctor> {
    return this.transport.call("GET /doctor", options);
  }

  /** What each sandbox that has a machine uses, by id. */
  stats(options: CallOptions = {}): Promise<Record<string, wire.SandboxStats>> {
    return this.transport.call("GET /sandboxes/stats", options);
  }

  metrics(options: CallOptions = {}): Promise<Record<string, unknown>> {
    return this.transport.call("GET /metrics", options);
  }

  readonly quotas = {
    list: (options: CallOptions = {}): Promise<wire.OwnerQuota[]> => this.transport.call("GET /quotas", options),
    get: (owner: string, options: CallOptions = {}): Promise<wire.OwnerQuota> =>
      this.transport.call("GET /quotas/{owner}", { params: { owner }, ...options }),
    put: (owner: string, quota: wire.QuotaRequest, options: CallOptions = {}): Promise<wire.OwnerQuota> =>
      this.transport.call("PUT /quotas/{owner}", { params: { owner }, body: quota, ...options }),
    remove: async (owner: string, options: CallOptions = {}): Promise<void> => {
      await this.transport.call("DELETE /quotas/{owner}", { params: { owner }, ...options });
    },
    usage: (owner: string, options: CallOptions = {}): Promise<wire.QuotaUsage> =>
      this.transport.call("GET /quotas/{owner}/usage", { params: { owner }, ...options }),
  };
}

export interface PullOptions {
  /** `missing` (default), `always`, `never` */
  pull?: wire.PullRequest["pull"];
  onProgress?: ((progress: PullProgress) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** Until `ms` have gone, or at once when the signal is aborted. */
function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
    if (signal?.aborted) done();
  });
}

function pullStatus(problem: unknown): number {
  const code = (problem as { code?: string } | null)?.code;
  return code === "NOT_FOUND" ? 404 : code === "BAD_REQUEST" ? 400 : code === "NO_SPACE" ? 507 : 500;
}
