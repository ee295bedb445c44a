/** Requests to registries: authentication, redirects, retries. One instance per repository and pull; keeps its token. */
import { setTimeout as wait } from "node:timers/promises";
import type { Addresses } from "../../host/addresses.ts";
import { REGISTRY_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import { printable } from "../../host/printable.ts";
import { parseChallenge } from "./challenge.ts";
import type { Credentials } from "./credentials.ts";
import { type Answer, Asker, type AskOptions } from "./request.ts";
import { unreachable } from "./unreachable.ts";

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
  addresses: Addresses;
  /** Hosts, with port, that the operator has named. */
  named: (host: string) => boolean;
}

const MAX_DELAY_MS = 30_000;

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
  readonly #asker: Asker;

  constructor(options: RegistryOptions) {
    this.#options = options;
    this.#asker = new Asker(options.addresses, options.named);
  }

  /** A small document. @returns its bytes @throws StacyError, see `stream` */
  async document(path: string, accept: string[], limit: number): Promise<Buffer> {
    const { signal } = this.#options;
    return this.#retrying(async () => {
      const body = await this.#open(path, { accept: accept.join(", ") }, signal);
      return whole(body, limit, path);
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
    const begun = performance.now();
    const progress = (): number => have;
    await this.#retrying(
      async () => {
        if (have === size && size > 0) return;
        let skip = 0;
        const headers: Record<string, string> = have > 0 ? { range: `bytes=${have}-` } : {};
        const body = await this.#open(path, headers, signal, (response) => {
          // A registry may ignore the range and begin anew: then what we have is read over.
          if (response.status === 206) {
            const start = /^bytes (\d+)-/.exec(response.headers["content-range"] ?? "")?.[1];
            if (start !== String(have)) throw new StacyError("unavailable", "the registry answered another range");
          } else skip = have;
        });
        for await (const chunk of body) {
          const fresh = chunk.subarray(Math.min(skip, chunk.length));
          skip -= chunk.length - fresh.length;
          if (fresh.length === 0) continue;
          have += fresh.length;
          if (
            have / ((performance.now() - begun) / 1000 - 60) < REGISTRY_BOUNDS.leastBytesPerSecond &&
            begun + 60_000 < performance.now()
          )
            throw unavailable(`the registry sends ${path} too slowly`);
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
    check?: (response: Answer) => void,
  ): Promise<AsyncIterable<Buffer>> {
    const { origin, repository } = this.#options;
    const url = new URL(`/v2/${repository}/${path}`, origin);
    let idle = this.#idle(signal);
    let response = await this.#fetch(url, headers, idle);
    if (response.status === 401) {
      response.body.destroy();
      await this.#authenticate(response);
      idle.end();
      idle = this.#idle(signal);
      response = await this.#fetch(url, headers, idle);
    }
    if (!isOk(response)) {
      idle.end();
      throw await failure(response, url, this.#options.credentials !== undefined);
    }
    check?.(response);
    return chunks(response, idle);
  }

  #idle(signal = this.#options.signal): IdleLimit {
    return new IdleLimit(this.#options.idleMs ?? 30_000, signal);
  }

  async #fetch(url: URL, headers: Record<string, string>, idle: IdleLimit): Promise<Answer> {
    let target = url;
    for (let hop = 0; hop <= REGISTRY_BOUNDS.redirects; hop++) {
      // Where layers are stored elsewhere, that host must not see the registry's token, and refuses two kinds at once.
      const own = target.origin === url.origin && this.#authorization !== undefined;
      const options = {
        headers: { ...headers, ...(own ? { authorization: this.#authorization ?? "" } : {}) },
        signal: idle.signal,
      };
      const response = await this.#request(target, options, target.host !== url.host).catch((error) => {
        idle.end();
        throw error;
      });
      const { location } = response.headers;
      if (response.status < 300 || response.status >= 400 || location === undefined) return response;
      response.body.destroy();
      if (!URL.canParse(location, target.href)) {
        idle.end();
        throw unavailable(`${url.host} redirects to what is no address`);
      }
      target = this.#secure(new URL(location, target));
    }
    idle.end();
    throw unavailable(`${url.host} redirects without end`);
  }

  /** @param sent the registry has sent us there: how exactly it failed is not for whoever chose the registry */
  async #request(url: URL, options: AskOptions, sent: boolean): Promise<Answer> {
    try {
      return await this.#asker.ask(url, options);
    } catch (error) {
      const known = !sent || this.#options.named(url.host);
      if (!known && !options.signal.aborted) {
        throw new Retry(
          new StacyError("unavailable", `${this.#options.origin} sends us to ${url.host}, which cannot be used`, {
            cause: error,
            remedy: `if you trust that host, name it in the configuration: images.registries, "${url.host}": {}`,
          }),
        );
      }
      if (error instanceof StacyError) throw error;
      throw new Retry(unreachable(url, options.signal.aborted ? options.signal.reason : error));
    }
  }

  #secure(url: URL): URL {
    if (url.protocol === "https:" || (url.protocol === "http:" && (this.#options.plain || isLoopback(url.hostname)))) {
      return url;
    }
    throw new StacyError("unavailable", `the registry sends us to ${url.protocol}//${url.host}, which is not secure`);
  }

  /** Several layers at once meet the same challenge: it is answered once. */
  async #authenticate(response: Answer): Promise<void> {
    this.#challenge ??= this.#answer(response.headers["www-authenticate"] ?? "").finally(() => {
      this.#challenge = undefined;
    });
    return this.#challenge;
  }

  async #answer(challenge: string): Promise<void> {
    const { credentials } = this.#options;
    const { scheme, fields } = parseChallenge(challenge);
    if (scheme === "basic" && credentials !== undefined) {
      this.#authorization = basic(credentials);
      return;
    }
    if (scheme !== "bearer" || fields.realm === undefined || !URL.canParse(fields.realm)) {
      throw denied(this.#options.origin, credentials !== undefined);
    }
    const realm = this.#secure(new URL(fields.realm));
    const query = new URLSearchParams();
    if (fields.service !== undefined) query.set("service", fields.service);
    query.set("scope", fields.scope ?? `repository:${this.#options.repository}:pull`);
    const idle = this.#idle();
    const response = await this.#requestToken(realm, query, idle);
    if (!isOk(response)) {
      idle.end();
      throw await failure(response, realm, credentials !== undefined);
    }
    const text = await whole(chunks(response, idle), REGISTRY_BOUNDS.tokenBytes, `the token of ${realm.host}`);
    let token: unknown;
    try {
      const answer = JSON.parse(text.toString("utf8")) as { token?: unknown; access_token?: unknown };
      token = answer.token ?? answer.access_token;
    } catch {
      // Without the parser's words: they quote what stands there.
      throw new StacyError("unavailable", `${realm.host} did not answer with a token`);
    }
    if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token)) {
      throw new StacyError("unavailable", `${realm.host} did not answer with a token`);
    }
    this.#authorization = `Bearer ${token}`;
  }

  #requestToken(realm: URL, query: URLSearchParams, idle: IdleLimit): Promise<Answer> {
    const { credentials, origin } = this.#options;
    const sent = realm.host !== new URL(origin).host;
    if (credentials?.identityToken !== undefined) {
      query.set("grant_type", "refresh_token");
      query.set("refresh_token", credentials.identityToken);
      query.set("client_id", "stacyvm");
      const headers = { "content-type": "application/x-www-form-urlencoded" };
      return this.#request(realm, { method: "POST", headers, body: query.toString(), signal: idle.signal }, sent);
    }
    const url = new URL(realm);
    for (const [name, value] of query) url.searchParams.set(name, value);
    const headers: Record<string, string> = credentials === undefined ? {} : { authorization: basic(credentials) };
    return this.#request(url, { headers, signal: idle.signal }, sent);
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

/** A small document, within a time. @throws StacyError `corrupt`, `unavailable` */
async function whole(body: AsyncIterable<Buffer>, limit: number, what: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  const until = performance.now() + REGISTRY_BOUNDS.documentMs;
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > limit) throw new StacyError("corrupt", `${what} is longer than ${limit} bytes`);
    if (performance.now() > until) throw unavailable(`${what} comes too slowly`);
    parts.push(Buffer.from(chunk));
  }
  return Buffer.concat(parts);
}

async function* chunks(response: Answer, idle: IdleLimit): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of response.body as AsyncIterable<Buffer>) {
      idle.alive();
      yield chunk;
    }
  } catch (error) {
    if (error instanceof StacyError || error instanceof Retry) throw error;
    throw new Retry(unreachable(response.url, idle.signal.aborted ? idle.signal.reason : error));
  } finally {
    response.body.destroy();
    idle.end();
  }
}

function isOk({ status }: Answer): boolean {
  return status >= 200 && status < 300;
}

/** The beginning of an error's body; what is behind it is not read. */
async function errorBody({ body }: Answer): Promise<string> {
  const timer = setTimeout(() => body.destroy(), ERROR_MS);
  const parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      parts.push(chunk);
      size += chunk.length;
      if (size >= REGISTRY_BOUNDS.errorBytes) break; // ends the connection
    }
  } catch {
    // What came is as good as nothing.
  } finally {
    clearTimeout(timer);
    body.destroy();
  }
  return Buffer.concat(parts).toString("utf8", 0, REGISTRY_BOUNDS.errorBytes);
}

const ERROR_MS = 5_000;

async function failure(response: Answer, url: URL, known: boolean): Promise<Retry | StacyError> {
  const words = registryWords(await errorBody(response));
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
    const said = (errors ?? []).map(({ code, message }) => String(message ?? code ?? ""));
    return printable(said.join(", ").slice(0, 300));
  } catch {
    return "";
  }
}

function retryAfter(response: Answer): number | undefined {
  const value = response.headers["retry-after"];
  if (value === undefined) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}

function denied(where: string, known: boolean, words = ""): StacyError {
  const said = words === "" ? "" : `: ${words}`;
  return new StacyError("permission", `${where} refuses access${known ? " with the credentials we have" : ""}${said}`, {
    remedy: "check the image's name, and log in with `docker login`",
  });
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
