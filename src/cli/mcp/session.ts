/**
 * What one conversation has: a sandbox of its own, which is made at the first use and stays for what follows, others that it asked for,
 * their checkpoints and open ports. A model reaches these and nothing else of the server.
 */
import {
  type Checkpoint,
  type Client,
  NotFoundError,
  type PullProgress,
  type Sandbox,
  StacyError,
} from "../../../sdk/src/index.ts";
import { withTimeLimit } from "../../host/time-limit.ts";
import { note } from "../output.ts";
import { type Forwarding, forwardPort } from "../port-forward.ts";
import type { Call } from "./call.ts";
import { Advice } from "./tool.ts";
import { Work } from "./work.ts";

/** What the sandboxes are that a model gets. */
export interface ModelOptions {
  image: string;
  /** MiB; absent: the server's default, also of `vcpus` */
  memory?: number;
  vcpus?: number;
  /** How long each stays after its last use, give or take `RENEWED_EVERY_MS`. */
  ttl: string;
  allow?: string[];
  keep?: boolean;
}

/** What a sandbox is made from, if not from the session's image. */
export interface Origin {
  image?: string | undefined;
  checkpoint?: string | undefined;
}

interface Known {
  sandbox: Sandbox;
  /** ms. */
  renewedEvery: number;
  renewedAt: number;
}

/** Not for each of many short calls; more often where the whole time is short. */
const RENEWED_EVERY_MS = 60_000;
const RENEWALS_IN_A_LIFETIME = 4;

/** Clients give up after 60 s. Before that a model is told how far it is, and asks again. */
const ANSWER_WITHIN_MS = 45_000;

export class Session {
  readonly options: ModelOptions;
  /** Those that it has made itself. */
  readonly checkpoints = new Map<string, Checkpoint>();
  readonly #connect: (signal: AbortSignal) => Promise<Client>;
  readonly #known = new Map<string, Known>();
  readonly #images = new Map<string, Work<void>>();
  readonly #making = new Set<Promise<unknown>>();
  /** By sandbox and port; also those that are being opened, so that each has one listener and its end finds it. */
  readonly #ports = new Map<string, Promise<Forwarding>>();
  readonly #ending = new AbortController();
  readonly #waitMs: number;
  #connecting: Promise<Client> | undefined;
  #first: Work<Sandbox> | undefined;

  /**
   * @param connect finds the server or starts one, which takes longer than a client may wait for its first answers; its signal says that
   * the session has ended
   */
  constructor(connect: (signal: AbortSignal) => Promise<Client>, options: ModelOptions, waitMs = ANSWER_WITHIN_MS) {
    this.#connect = connect;
    this.options = options;
    this.#waitMs = waitMs;
  }

  /** Before the model needs them: the server, and the image, which may have to be built or pulled. */
  begin(): void {
    this.#image(this.options.image);
  }

  /** One for all calls; where there is none, the next call tries again. */
  #client(): Promise<Client> {
    this.#connecting ??= this.#connect(this.#ending.signal).catch((error: unknown) => {
      this.#connecting = undefined;
      throw error;
    });
    return this.#connecting;
  }

  get sandboxes(): Sandbox[] {
    return [...this.#known.values()].map(({ sandbox }) => sandbox);
  }

  /** Those that are still there, as they are now. */
  async refreshed(signal: AbortSignal): Promise<Sandbox[]> {
    const found = this.sandboxes.map(async (sandbox) => {
      try {
        await sandbox.refresh({ signal });
        return [sandbox];
      } catch (error) {
        if (!(error instanceof NotFoundError)) throw error;
        this.#forget(sandbox.id);
        return [];
      }
    });
    return (await Promise.all(found)).flat();
  }

  /** A further sandbox. @throws Advice when it takes longer than a client waits; it is in `sandboxes` later */
  async create(origin: Origin, call: Call): Promise<Sandbox> {
    return this.#wait(this.#make(origin), call, "list_sandboxes shows it when it is ready: look again in 30 seconds");
  }

  /** Takes in a copy of one. */
  add(sandbox: Sandbox): Sandbox {
    const { createdAt, expiresAt } = sandbox.info;
    const lifetime = Date.parse(expiresAt) - Date.parse(createdAt);
    const renewedEvery = Math.min(RENEWED_EVERY_MS, lifetime / RENEWALS_IN_A_LIFETIME);
    this.#known.set(sandbox.id, { sandbox, renewedEvery, renewedAt: performance.now() });
    return sandbox;
  }

  /**
   * Does `work` with one of this session's sandboxes; without an id with its own, which is made when it is needed.
   * @throws Advice for another id, and for one that has ended meanwhile
   */
  async use<T>(id: string | undefined, call: Call, work: (sandbox: Sandbox) => Promise<T>): Promise<T> {
    const sandbox = id === undefined ? await this.#own(call) : this.#get(id);
    await this.#renew(sandbox.id);
    // Work may take longer than a sandbox has left: while it goes on, that is use too.
    const every = this.#known.get(sandbox.id)?.renewedEvery;
    const renewing = setInterval(() => void this.#renew(sandbox.id), every).unref();
    try {
      return await work(sandbox);
    } catch (error) {
      const why = await endOf(sandbox, error);
      if (why === undefined) throw error;
      this.#forget(sandbox.id);
      const next = "call again without `sandbox`: a new one is made, without the files of this one";
      throw new Advice(`sandbox ${sandbox.id} has ended (${why})`, next, error);
    } finally {
      clearInterval(renewing);
    }
  }

  #get(id: string): Sandbox {
    const found = this.#known.get(id);
    if (found !== undefined) return found.sandbox;
    const all = [...this.#known.keys()].join(", ");
    throw new Advice(
      `this session has no sandbox ${id}; it has ${all === "" ? "none" : all}`,
      "name one of these, or leave `sandbox` out for the session's own",
    );
  }

  async #own(call: Call): Promise<Sandbox> {
    this.#first ??= this.#make({});
    const first = this.#first;
    try {
      const sandbox = await this.#wait(first, call, "call this tool again in 30 seconds");
      if (this.#known.has(sandbox.id)) return sandbox;
    } catch (error) {
      // Failed for good: the next call begins anew. Whoever only stopped waiting finds it again.
      if (!(error instanceof Advice) && this.#first === first) this.#first = undefined;
      throw error;
    }
    if (this.#first === first) this.#first = undefined;
    return this.#own(call);
  }

  #make(origin: Origin): Work<Sandbox> {
    const { signal } = this.#ending;
    const making = new Work<Sandbox>(async (say) => {
      const image = origin.checkpoint === undefined ? (origin.image ?? this.options.image) : undefined;
      if (image !== undefined) {
        const pull = this.#image(image);
        say(pull.step);
        await pull.done;
      }
      say("starting the sandbox; the first one of a kind boots, which takes some seconds");
      const { memory, vcpus, ttl, allow } = this.options;
      const shape = image === undefined ? {} : { image, vcpus, memoryMb: memory };
      const client = await this.#client();
      return this.add(
        await client.create({
          ...shape,
          ttl,
          checkpoint: origin.checkpoint,
          metadata: { purpose: "mcp" },
          allowedHosts: allow,
          signal,
        }),
      );
    });
    this.#making.add(making.done);
    const settled = (): void => void this.#making.delete(making.done);
    making.done.then(settled, settled);
    return making;
  }

  /** The image, when it is on the host. */
  #image(image: string): Work<void> {
    const known = this.#images.get(image);
    if (known !== undefined) return known;
    const work = new Work<void>(async (say) => {
      const { signal } = this.#ending;
      const onProgress = (progress: PullProgress): void => say(`preparing ${image}: ${amountOf(progress)}`);
      say("starting the server");
      const client = await this.#client();
      await client.images.pull(image, { pull: "missing", onProgress, signal }).catch((error: unknown) => {
        // A key that may not pull: the spawn says what it has to say.
        if (!(error instanceof StacyError) || error.status !== 403) throw error;
      });
    });
    this.#images.set(image, work);
    // Not kept: it may be removed from the host, or be there after a failure.
    const settled = (): void => void this.#images.delete(image);
    work.done.then(settled, settled);
    return work;
  }

  async #wait(work: Work<Sandbox>, call: Call, next: string): Promise<Sandbox> {
    call.say(work.step);
    return withTimeLimit(
      work.done,
      this.#waitMs,
      () => new Advice(`the sandbox is not ready yet: ${work.step() || "it is being made"}`, next),
    );
  }

  /** A conversation in which it is used goes on longer than its time. */
  async #renew(id: string): Promise<void> {
    const known = this.#known.get(id);
    const now = performance.now();
    if (known === undefined || now - known.renewedAt < known.renewedEvery) return;
    try {
      await known.sandbox.extend(this.options.ttl);
      known.renewedAt = now;
    } catch {
      // The work itself says what is wrong; the next use tries again.
    }
  }

  /** A port of this host that leads to one of the sandbox, for as long as both last. @throws Advice when it ends meanwhile */
  async open(sandbox: Sandbox, guest: number): Promise<number> {
    const key = `${sandbox.id}:${guest}`;
    const { signal } = this.#ending;
    signal.throwIfAborted();
    let opening = this.#ports.get(key);
    if (opening === undefined) {
      this.#get(sandbox.id);
      opening = forwardPort(sandbox, { address: "127.0.0.1", local: 0, guest }, signal);
      this.#ports.set(key, opening);
    }
    try {
      const { port } = await opening;
      if (this.#ports.get(key) === opening) return port;
    } catch (error) {
      if (this.#ports.get(key) === opening) this.#ports.delete(key);
      throw error;
    }
    throw new Advice(`sandbox ${sandbox.id} has ended, and its ports are closed`, "see list_sandboxes");
  }

  async destroy(id: string): Promise<void> {
    const sandbox = this.#get(id);
    await sandbox.destroy();
    this.#forget(id);
  }

  #forget(id: string): void {
    this.#known.delete(id);
    void this.#closePorts((key) => key.startsWith(`${id}:`));
  }

  /** Never rejects. */
  async #closePorts(whose: (key: string) => boolean): Promise<void> {
    const closing = [...this.#ports].filter(([key]) => whose(key));
    for (const [key] of closing) this.#ports.delete(key);
    await Promise.allSettled(closing.map(async ([, opening]) => (await opening).close()));
  }

  async end(): Promise<void> {
    this.#ending.abort(new Error("the session has ended"));
    await Promise.allSettled([...this.#making, this.#closePorts(() => true)]);
    if (this.options.keep === true) return;
    const ends = this.sandboxes.map((sandbox) => sandbox.destroy());
    report(await Promise.allSettled(ends));
    const removals = [...this.checkpoints.keys()].map(async (id) => (await this.#client()).checkpoints.remove(id));
    report(await Promise.allSettled(removals));
  }
}

/** Why a sandbox is gone, if that is what a failure means; a missing file is not. */
async function endOf(sandbox: Sandbox, error: unknown): Promise<string | undefined> {
  if (!(error instanceof StacyError)) return undefined;
  if (error.ended !== undefined) return error.ended;
  if (error.status !== 404) return undefined;
  const still = await sandbox
    .refresh()
    .catch((gone: unknown) => (gone instanceof NotFoundError ? undefined : "unknown"));
  return still === undefined ? "somebody else has removed it" : undefined;
}

function report(results: PromiseSettledResult<void>[]): void {
  for (const result of results) if (result.status === "rejected") note(String(result.reason));
}

function amountOf({ step, done, total, unit }: PullProgress): string {
  if (done === undefined) return step;
  if (total !== undefined && total > 0) return `${step}, ${Math.round((100 * done) / total)} %`;
  return unit === "bytes" ? `${step}, ${Math.round(done / 1e6)} MB` : `${step}, ${done}`;
}
