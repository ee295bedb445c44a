/** Requests to registries: authentication, redirects, retries. One instance per repository and pull; keeps its token. */
import { setTimeout as wait } from "node:timers/promises";
import { StacyError } from "../../host/error.ts";
import type { Credentials } from "./credentials.ts";

export interface RetryPolicy {
  /** Attempts in a row without progress. */
  tries: number;
  /** ms before the second; doubles up to 30 s. */
  firstDelayMs: number;
}

export interface RegistryOptions {
  /** Where the registry answers, for example `https://registry-1.docker.io`. */
  origin: string;
  repository: string;
  credentials?: Credentials | undefined;
  /** Lets it answer and authenticate without TLS. */
  plain: boolean;
  retry: RetryPolicy;
  /** ms without any byte; default 30 s */
  idleMs?: number | undefined;
  signal?: AbortSignal | undefined;
}

const MAX_DELAY_MS = 30_000;
const MAX_REDIRECTS = 5;
const MAX_TOKEN = 1 << 20;

/** An answer that may come right when asked again. */
class Retry extends Error {
  readonly failure: StacyError;
  readonly afterMs: number | undefined;
  constructor(failure: StacyError, afterMs?: number) {
    super(failure.message);
    this.failure = failure;
    this.afterMs = afterMs;
  }
}

export class RegistryHttp {
  readonly #options: RegistryOptions;
  #authorization: string | undefined;
  #challenge: Promise<void> | undefined;

  constructor(options: RegistryOptions) {
    this.#options = options;
  }

  /** A small document. @returns its bytes @throws StacyError, see `stream` */
  async document(path: string, accept: string[], limit: number): Promise<Buffer> {
    const { signal } = this.#options;
    return this.#retrying(async () => {
      const parts: Buffer[] = [];
      let size = 0;
      for await (const chunk of await this.#open(path, { accept: accept.join(", ") }, signal)) {
        size += chunk.length;
        if (size > limit) throw new StacyError("corrupt", `${path} is longer than ${limit} bytes`);
        parts.push(chunk);
      }
      return Buffer.concat(parts);
    }, signal);
  }

  /**
   * Content of a known size, in order, each byte once; a broken connection is resumed where it broke.
   * @throws StacyError `not-found`, `permission` (credentials), `unavailable` (network, registry), `corrupt` (size)
   */
  async stream(
    path: string,
    size: number,
    receive: (chunk: Buffer) => Promise<void>,
    signal = this.#options.signal,
  ): Promise<void> {
    let have = 0;
    const progress = (): number => have;
    await this.#retrying(
      async () => {
        if (have === size && size > 0) return;
        let skip = 0;
        const headers: Record<string, string> = have > 0 ? { range: `bytes=${have}-` } : {};
        const body = await this.#open(path, headers, signal, (response) => {
          // A registry may ignore the range and begin anew: then what we have is read over.
          if (response.status === 206) {
            const start = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
            if (start !== String(have)) throw new StacyError("unavailable", "the registry answered another range");
          } else skip = have;
        });
        for await (const chunk of body) {
          const fresh = chunk.subarray(Math.min(skip, chunk.length));
          skip -= chunk.length - fresh.length;
          if (fresh.length === 0) continue;
          have += fresh.length;
          if (have > size) throw new StacyError("corrupt", `${path} is longer than its manifest says`);
          await receive(fresh);
        }
        if (have < size) throw new Retry(unavailable(`the connection broke after ${have} of ${size} bytes`));
      },
      signal,
      progress,
    );
  }

  async #retrying<T>(
    work: () => Promise<T>,
    signal: AbortSignal | undefined,
    progress: () => number = () => 0,
  ): Promise<T> {
    const { tries, firstDelayMs } = this.#options.retry;
    let before = progress();
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof Retry)) throw error;
        if (progress() > before) attempt = 1;
        before = progress();
        if (attempt >= tries) throw error.failure;
        const delay = error.afterMs ?? firstDelayMs * 2 ** (attempt - 1);
        await wait(Math.min(delay, MAX_DELAY_MS), undefined, signal === undefined ? {} : { signal }).catch(() => {});
        signal?.throwIfAborted();
      }
    }
  }

  /** The body of a successful answer. @param check looks at the answer first */
  async #open(
    path: string,
    headers: Record<string, string>,
    signal: AbortSignal | undefined,
    check?: (response: Response) => void,
  ): Promise<AsyncIterable<Buffer>> {
    const { origin, repository } = this.#options;
    const url = new URL(`/v2/${repository}/${path}`, origin);
    let idle = this.#idle(signal);
    let response = await this.#fetch(url, headers, idle);
    if (response.status === 401) {
      await response.body?.cancel();
      await this.#authenticate(response);
      idle.end();
      idle = this.#idle(signal);
      response = await this.#fetch(url, headers, idle);
    }
    if (!response.ok) {
      idle.end();
      throw await failure(response, url, this.#options.credentials !== undefined);
    }
    check?.(response);
    return chunks(response, idle);
  }

  #idle(signal = this.#options.signal): IdleLimit {
    return new IdleLimit(this.#options.idleMs ?? 30_000, signal);
  }

  async #fetch(url: URL, headers: Record<string, string>, idle: IdleLimit): Promise<Response> {
    let target = url;
    for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
      // Where layers are stored elsewhere, that host must not see the registry's token, and refuses two kinds at once.
      const own = target.origin === url.origin && this.#authorization !== undefined;
      const response = await request(target, {
        headers: { ...headers, ...(own ? { authorization: this.#authorization ?? "" } : {}) },
        redirect: "manual",
        signal: idle.signal,
      }).catch((error) => {
        idle.end();
        throw error;
      });
      const location = response.headers.get("location");
      if (response.status < 300 || response.status >= 400 || location === null) return response;
      await response.body?.cancel();
      target = this.#secure(new URL(location, target));
    }
    idle.end();
    throw unavailable(`${url.host} redirects without end`);
  }

  #secure(url: URL): URL {
    if (url.protocol === "https:" || (url.protocol === "http:" && (this.#options.plain || isLoopback(url.hostname)))) {
      return url;
    }
    throw new StacyError("unavailable", `the registry sends us to ${url.protocol}//${url.host}, which is not secure`);
  }

  /** Several layers at once meet the same challenge: it is answered once. */
  async #authenticate(response: Response): Promise<void> {
    this.#challenge ??= this.#answer(response.headers.get("www-authenticate") ?? "").finally(() => {
      this.#challenge = undefined;
    });
    return this.#challenge;
  }

  async #answer(challenge: string): Promise<void> {
    const { credentials } = this.#options;
    const scheme = /^\s*([a-z]+)/i.exec(challenge)?.[1]?.toLowerCase();
    if (scheme === "basic" && credentials !== undefined) {
      this.#authorization = basic(credentials);
      return;
    }
    const fields = Object.fromEntries(
      [...challenge.matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/gi)].map(([, name, value]) => [name?.toLowerCase(), value]),
    ) as Record<string, string | undefined>;
    if (scheme !== "bearer" || fields.realm === undefined || !URL.canParse(fields.realm)) {
      throw denied(this.#options.origin, credentials !== undefined);
    }
    const realm = this.#secure(new URL(fields.realm));
    const query = new URLSearchParams();
    if (fields.service !== undefined) query.set("service", fields.service);
    query.set("scope", fields.scope ?? `repository:${this.#options.repository}:pull`);
    const idle = this.#idle();
    const response = await this.#requestToken(realm, query, idle);
    if (!response.ok) throw await failure(response, realm, credentials !== undefined);
    const parts: Buffer[] = [];
    let size = 0;
    for await (const chunk of chunks(response, idle)) {
      size += chunk.length;
      if (size > MAX_TOKEN) throw new StacyError("corrupt", `the token of ${realm.host} is too long`);
      parts.push(chunk);
    }
    let token: unknown;
    try {
      const answer = JSON.parse(Buffer.concat(parts).toString("utf8")) as { token?: unknown; access_token?: unknown };
      token = answer.token ?? answer.access_token;
    } catch (cause) {
      throw new StacyError("unavailable", `${realm.host} did not answer with a token`, { cause });
    }
    if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token)) {
      throw new StacyError("unavailable", `${realm.host} did not answer with a token`);
    }
    this.#authorization = `Bearer ${token}`;
  }

  #requestToken(realm: URL, query: URLSearchParams, idle: IdleLimit): Promise<Response> {
    const { credentials } = this.#options;
    if (credentials?.identityToken !== undefined) {
      query.set("grant_type", "refresh_token");
      query.set("refresh_token", credentials.identityToken);
      query.set("client_id", "stacyvm");
      return request(realm, { method: "POST", body: query, redirect: "error", signal: idle.signal });
    }
    const url = new URL(realm);
    for (const [name, value] of query) url.searchParams.set(name, value);
    const headers = credentials === undefined ? {} : { authorization: basic(credentials) };
    return request(url, { headers, redirect: "error", signal: idle.signal });
  }
}

/** Ends a request that stands still. */
class IdleLimit {
  readonly signal: AbortSignal;
  readonly #timer: NodeJS.Timeout;

  constructor(idleMs: number, signal: AbortSignal | undefined) {
    const controller = new AbortController();
    this.#timer = setTimeout(() => controller.abort(new Error(`no byte for ${idleMs} ms`)), idleMs);
    this.#timer.unref();
    this.signal = signal === undefined ? controller.signal : AbortSignal.any([signal, controller.signal]);
  }

  alive(): void {
    this.#timer.refresh();
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

async function request(url: URL, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (error) {
    throw new Retry(unreachable(url, error));
  }
}

async function* chunks(response: Response, idle: IdleLimit): AsyncGenerator<Buffer> {
  try {
    if (response.body === null) return;
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
      idle.alive();
      yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    }
  } catch (error) {
    if (error instanceof StacyError || error instanceof Retry) throw error;
    throw new Retry(unreachable(new URL(response.url), error));
  } finally {
    idle.end();
  }
}

async function failure(response: Response, url: URL, known: boolean): Promise<Retry | StacyError> {
  const words = registryWords((await response.text().catch(() => "")).slice(0, 4096));
  const { status } = response;
  const message = `${url.host} answered ${status}${words === "" ? "" : `: ${words}`}`;
  if (status === 404) return new StacyError("not-found", message);
  if (status === 401 || status === 403) return denied(url.host, known, words);
  if (status === 429 || status === 408 || status >= 500) {
    const limited = status === 429 ? { remedy: "wait, or log in for a higher limit" } : {};
    return new Retry(new StacyError("unavailable", message, limited), retryAfter(response));
  }
  return new StacyError("unavailable", message);
}

function registryWords(text: string): string {
  try {
    const { errors } = JSON.parse(text) as { errors?: { code?: string; message?: string }[] };
    return (errors ?? [])
      .map(({ code, message }) => message ?? code ?? "")
      .join(", ")
      .slice(0, 300);
  } catch {
    return "";
  }
}

function retryAfter(response: Response): number | undefined {
  const value = response.headers.get("retry-after");
  if (value === null) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}

function denied(where: string, known: boolean, words = ""): StacyError {
  const said = words === "" ? "" : `: ${words}`;
  return new StacyError("permission", `${where} refuses access${known ? " with the credentials we have" : ""}${said}`, {
    remedy: "check the image's name, and log in with `docker login`",
  });
}

function unreachable(url: URL, error: unknown): StacyError {
  const cause = (error as { cause?: unknown }).cause ?? error;
  const words =
    cause instanceof Error && cause.message !== "" ? cause.message : String((cause as { code?: string }).code ?? cause);
  return new StacyError("unavailable", `cannot reach ${url.host}: ${words}`, {
    cause: error,
    remedy: remedyFor(url, String((cause as { code?: string }).code ?? "")),
  });
}

function remedyFor({ host }: URL, code: string): string {
  if (/CERT|SIGNATURE/.test(code)) {
    return "if its certificate is right, name its authority in NODE_EXTRA_CA_CERTS=FILE, or set NODE_USE_SYSTEM_CA=1";
  }
  if (/WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|EPROTO/.test(code)) {
    return `if it speaks plain http, set \`insecure: true\` for ${host} in \`images.registries\``;
  }
  return "check the network, or import the image with `stacyvm image import`";
}

function unavailable(message: string): StacyError {
  return new StacyError("unavailable", message);
}

function basic({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}

/** @param host as in a URL or a reference, without port */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host.endsWith(".localhost") || /^127(\.\d{1,3}){3}$/.test(host) || host === "[::1]";
}
