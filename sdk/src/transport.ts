/** HTTP: addresses, keys, time limits, retries, errors. Everything above speaks in operations of the interface. */
import { CancelledError, ConnectionError, errorOf, ReplyError, StacyError, TimeoutError } from "./errors.ts";
import { type Operations, operations } from "./generated.ts";
import { keyOfFile, localKey } from "./local-key.ts";
import { decode, encode } from "./schema.ts";

export interface ClientOptions {
  /** For example `http://127.0.0.1:7423`. Default: `STACYVM_URL`, else that address. */
  url?: string | undefined;
  /** Default: in the file that `STACYVM_API_KEY_FILE` names, else `STACYVM_API_KEY`, else what a server of the same user on this host has left for its programs. */
  apiKey?: string | undefined;
  /** The user within the key's owner, for quotas (`X-User-ID`). */
  userId?: string | undefined;
  /** An administrator acts as this owner (`X-Owner`). */
  owner?: string | undefined;
  /** Limit for a call's answer to begin, ms; default 60 000. Spawns, commands and pulls have their own. */
  timeoutMs?: number | undefined;
  /** How often a call is repeated where that is safe; default 2. */
  retries?: number | undefined;
  /** Instead of the global ones: a proxy, a test, an older runtime. */
  fetch?: typeof fetch | undefined;
  webSocket?: WebSocketConstructor | undefined;
}

/** What the SDK needs of a WebSocket: the standard's, or the npm package `ws`, which can also be paused. */
export interface WebSocketLike {
  binaryType: string;
  readyState: number;
  bufferedAmount: number;
  send(data: string | Uint8Array): void;
  close(code?: number, reason?: string): void;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  pause?(): void;
  resume?(): void;
}
export type WebSocketConstructor = new (url: string, options?: never) => WebSocketLike;

/** What `fetch` takes as a body. */
export type Payload = NonNullable<RequestInit["body"]>;

export interface CallOptions {
  signal?: AbortSignal | undefined;
  /** Limit for this call, ms; 0: none. */
  timeoutMs?: number | undefined;
}

type Primitive = string | number | boolean | undefined;

export interface CallInput<K extends keyof Operations> extends CallOptions {
  params?: Record<string, string | number>;
  query?: Record<string, Primitive>;
  body?: Operations[K]["body"];
  /** Bytes instead of JSON. */
  raw?: Payload;
  headers?: Record<string, string>;
}

/** Spawns, commands, pulls: as long as the caller does not say otherwise, the server's own limits hold. */
export const LONG: CallOptions = { timeoutMs: 0 };

/** Calls that may take longer ask to be told that they are at work. */
const PATIENT_MS = 240_000;
const DEFAULT_URL = "http://127.0.0.1:7423";
const IDEMPOTENT = new Set(["GET", "PUT", "DELETE"]);
const TEMPORARY = new Set([502, 503, 504]);

export class Transport {
  readonly url: string;
  readonly #headers: Record<string, string> = {};
  /** The key was found, not given: another one may be there after the server has started anew. */
  readonly #found: boolean;
  readonly #fetch: typeof fetch;
  readonly #webSocket: WebSocketConstructor | undefined;
  /** A browser's `fetch` sends no streams, and its WebSocket no headers. Node, Bun, Deno and the package `ws` do. */
  readonly #browser: boolean;
  readonly #timeoutMs: number;
  readonly #retries: number;

  constructor(options: ClientOptions = {}) {
    const { process } = globalThis as { process?: { env?: Record<string, string>; versions?: { node?: string } } };
    const env: Record<string, string | undefined> = process?.env ?? {};
    this.#browser = process?.versions?.node === undefined;
    this.url = (options.url ?? (env.STACYVM_URL || DEFAULT_URL)).replace(/\/+$/, "");
    if (!/^https?:\/\//.test(this.url)) {
      throw new StacyError("BAD_REQUEST", `"${this.url}" is not the address of a server`, {
        hint: "write it as http://host:7423",
      });
    }
    const given = options.apiKey ?? fromFile() ?? (env.STACYVM_API_KEY || undefined);
    const key = given ?? localKey(this.url);
    this.#found = given === undefined;
    if (key) this.#headers["x-api-key"] = key;
    if (options.owner) this.#headers["x-owner"] = options.owner;
    if (options.userId) this.#headers["x-user-id"] = options.userId;
    this.#fetch = options.fetch ?? ((input, init) => fetch(input, init));
    this.#webSocket = options.webSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
    this.#timeoutMs = options.timeoutMs ?? 60_000;
    this.#retries = options.retries ?? 2;
  }

  /** One operation; its reply is checked against the interface. */
  async call<K extends keyof Operations>(key: K, input: CallInput<K> = {}): Promise<Operations[K]["reply"]> {
    const response = await this.open(key, input);
    const shape = operations[key].reply;
    const text = await response.text().catch((error: unknown) => {
      throw this.#broken(error, input.signal);
    });
    if (shape === undefined) return undefined as Operations[K]["reply"];
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      throw new ReplyError("BAD_REPLY", `${this.url} did not answer with JSON`, {
        hint: "is this the address of a StacyVM server?",
      });
    }
    return decode(shape, value) as Operations[K]["reply"];
  }

  /** The same, when the answer is a stream: it is there, and it is not an error. */
  async open<K extends keyof Operations>(key: K, input: CallInput<K> = {}): Promise<Response> {
    const space = key.indexOf(" ");
    const method = key.slice(0, space);
    const url = this.#address(key.slice(space + 1), input);
    const headers: Record<string, string> = { ...this.#headers, ...input.headers };
    let body: Payload | undefined = input.raw;
    const shape = operations[key].body;
    if (shape !== undefined && input.body !== undefined) {
      headers["content-type"] = "application/json";
      body = JSON.stringify(encode(shape, input.body));
    } else if (body !== undefined) headers["content-type"] ??= "application/octet-stream";
    // The server then says that it is at work: Node's fetch gives up after five minutes without a word.
    const limit = input.timeoutMs ?? this.#timeoutMs;
    if ((limit === 0 || limit > PATIENT_MS) && !this.#browser) headers.prefer = "processing";
    const init: RequestInit & { duplex?: "half" } = { method, headers };
    if (body !== undefined) init.body = body;
    const streaming = body instanceof ReadableStream && !this.#browser;
    if (streaming) init.duplex = "half";
    else if (body instanceof ReadableStream) init.body = await new Response(body).blob();
    const idempotent = !streaming && IDEMPOTENT.has(method);
    return this.#attempts(url, init, input, idempotent).catch((error: unknown) => {
      if (streaming || !this.#findAnew(error)) throw error;
      const { "x-api-key": found } = this.#headers;
      const renewed = { ...init, headers: { ...headers, ...(found === undefined ? {} : { "x-api-key": found }) } };
      return this.#attempts(url, renewed, input, idempotent);
    });
  }

  /** The key that was found is another server's by now: this one has left its own. */
  #findAnew(error: unknown): boolean {
    if (!this.#found || !(error instanceof StacyError) || error.status !== 401) return false;
    const key = localKey(this.url);
    if (key === undefined || key === this.#headers["x-api-key"]) return false;
    this.#headers["x-api-key"] = key;
    return true;
  }

  async #attempts(
    url: string,
    init: RequestInit,
    { signal, timeoutMs = this.#timeoutMs }: CallOptions,
    idempotent: boolean,
  ): Promise<Response> {
    for (let attempt = 0; ; attempt++) {
      if (signal?.aborted) throw this.#broken(signal.reason, signal);
      const limit = new AbortController();
      const timer = timeoutMs > 0 ? setTimeout(() => limit.abort(), timeoutMs) : undefined;
      let wait = 100 * 2 ** attempt;
      try {
        const response = await this.#fetch(url, {
          ...init,
          signal: signal === undefined ? limit.signal : AbortSignal.any([signal, limit.signal]),
        });
        if (response.ok) return response;
        const limited = response.status === 429 && response.headers.get("x-ratelimit-remaining") === "0";
        // What a rate limit turned away was never begun.
        const again = limited || (idempotent && TEMPORARY.has(response.status));
        if (!again || attempt >= this.#retries) throw await problem(response);
        await response.body?.cancel();
        wait = Math.min(10_000, Number(response.headers.get("retry-after") ?? 0) * 1000 || wait);
      } catch (error) {
        if (error instanceof StacyError) throw error;
        if (signal?.aborted) throw this.#broken(error, signal);
        if (limit.signal.aborted) {
          throw new TimeoutError("TIMEOUT", `${this.url} did not answer within ${timeoutMs} ms`, { cause: error });
        }
        // A POST may have reached the server: once more could mean twice.
        if (!idempotent || attempt >= this.#retries) throw this.#broken(error, signal);
      } finally {
        clearTimeout(timer);
      }
      await pause(wait, signal);
    }
  }

  #address(
    path: string,
    input: { params?: Record<string, string | number>; query?: Record<string, Primitive> },
  ): string {
    const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => percentEncoded(String(input.params?.[name] ?? "")));
    const text = Object.entries(input.query ?? {})
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => `${percentEncoded(name)}=${percentEncoded(String(value))}`)
      .join("&");
    return `${this.url}/api/v1${filled}${text === "" ? "" : `?${text}`}`;
  }

  /** A request below the sandbox's port, with the key. */
  fetchPath(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    for (const [name, value] of Object.entries(this.#headers)) headers.set(name, value);
    return this.#fetch(`${this.url}/api/v1${path}`, { ...init, headers }).catch((error: unknown) => {
      throw this.#broken(error, init.signal ?? undefined);
    });
  }

  /** An open WebSocket. @throws ConnectionError when it was refused */
  socket(path: string, params: Record<string, string | number>, signal?: AbortSignal): Promise<WebSocketLike> {
    const Constructor = this.#webSocket;
    if (Constructor === undefined) {
      throw new StacyError("NOT_SUPPORTED", "this runtime has no WebSocket", { hint: "pass one as `webSocket`" });
    }
    const url = this.#address(path, { params }).replace(/^http/, "ws");
    const socket = new Constructor(url, this.#socketOptions() as never);
    socket.binaryType = "arraybuffer";
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        reject(this.#broken(signal?.reason, signal));
        socket.close();
      };
      signal?.addEventListener("abort", abort, { once: true });
      if (signal?.aborted) abort();
      const fail = (event: { message?: string } = {}): void => {
        signal?.removeEventListener("abort", abort);
        void this.#refusal(path, params, event.message).then(reject);
      };
      socket.onerror = fail as never;
      socket.onclose = fail as never;
      socket.onopen = (() => {
        signal?.removeEventListener("abort", abort);
        socket.onerror = null;
        socket.onclose = null;
        resolve(socket);
      }) as never;
    });
  }

  /** The key as a header, or in a browser as the name of a protocol, since that is all that it lets us say. */
  #socketOptions(): unknown {
    const key = this.#headers["x-api-key"];
    if (!this.#browser) return { headers: this.#headers };
    return key === undefined ? [] : ["stacyvm", `stacyvm.key.${base64url(key)}`];
  }

  /** A refused upgrade shows no status in the standard's WebSocket: an ordinary request to the same address does. */
  async #refusal(
    path: string,
    params: Record<string, string | number>,
    message = "the connection was refused",
  ): Promise<StacyError> {
    try {
      const response = await this.#fetch(this.#address(path, { params }), { headers: this.#headers });
      const text = await response.text();
      if (response.status >= 400 && !text.includes("this is a WebSocket endpoint")) {
        return errorOf(response.status, parse(text), response.headers.get("x-request-id") ?? undefined);
      }
      return new ConnectionError("CONNECTION", `${this.url}: ${message}`);
    } catch (error) {
      return this.#broken(error);
    }
  }

  #broken(error: unknown, signal?: AbortSignal): StacyError {
    if (error instanceof StacyError) return error;
    if (signal?.aborted) {
      const { reason } = signal;
      if (reason instanceof StacyError) return reason;
      if ((reason as Error | undefined)?.name === "TimeoutError") {
        return new TimeoutError("TIMEOUT", "the time for this call is over", { cause: reason });
      }
      return new CancelledError("CANCELLED", "cancelled", { cause: reason });
    }
    const { cause } = (error ?? {}) as { cause?: { code?: string; message?: string } };
    const why = cause?.message || cause?.code || (error instanceof Error ? error.message : String(error));
    return new ConnectionError("CONNECTION", `no connection to ${this.url}: ${why}`, {
      cause: error,
      hint: "is the server running? `stacyvm serve` starts one",
    });
  }
}

/** @throws StacyError when it cannot be read: another key would be somebody else's */
function fromFile(): string | undefined {
  try {
    return keyOfFile();
  } catch (cause) {
    throw new StacyError("BAD_REQUEST", `STACYVM_API_KEY_FILE: cannot read the key: ${(cause as Error).message}`, {
      cause,
    });
  }
}

async function problem(response: Response): Promise<StacyError> {
  const text = await response.text().catch(() => "");
  return errorOf(response.status, parse(text), response.headers.get("x-request-id") ?? undefined);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const finish = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal?.addEventListener("abort", finish, { once: true });
  });
}

function base64url(text: string): string {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Names of files are bytes: one that is not UTF-8 is a lone surrogate in a string (U+DC80 to U+DCFF), and itself in a URL. */
function percentEncoded(text: string): string {
  let encoded = "";
  for (const character of text) {
    const byte = (character.codePointAt(0) ?? 0) - 0xdc00;
    encoded += byte >= 0x80 && byte <= 0xff ? `%${byte.toString(16)}` : encodeURIComponent(character);
  }
  return encoded;
}
