/** Files in a sandbox: text, bytes, streams, directories as tar, and changes as they happen. */
import type { FileInfo } from "./generated.ts";
import { bytesOf, serverSent } from "./streams.ts";
import { type CallOptions, LONG, type Payload, type Transport } from "./transport.ts";

export interface WriteOptions extends CallOptions {
  /** Permission bits; default 0o644. */
  mode?: number | undefined;
  append?: boolean | undefined;
  /** Fail when it is there. */
  exclusive?: boolean | undefined;
}

export interface FileChange {
  change: string;
  path: string;
  /** Where it went, of a move. */
  to?: string | undefined;
}

export class Files {
  readonly #transport: Transport;
  readonly #id: string;

  constructor(transport: Transport, id: string) {
    this.#transport = transport;
    this.#id = id;
  }

  /** Writes a whole file; its directories are made. A reader sees the old content or the new. */
  async write(
    path: string,
    data: string | Uint8Array | ReadableStream<Uint8Array>,
    options: WriteOptions = {},
  ): Promise<void> {
    const { mode, append, exclusive, ...call } = options;
    await this.#transport.call("PUT /sandboxes/{id}/files", {
      params: { id: this.#id },
      query: { path, mode: octal(mode), append, exclusive },
      raw: data as Payload,
      ...LONG,
      ...call,
    });
  }

  /** As UTF-8 text. */
  async read(path: string, options: CallOptions = {}): Promise<string> {
    return new TextDecoder().decode(await this.readBytes(path, options));
  }

  async readBytes(path: string, options: CallOptions & { offset?: number; length?: number } = {}): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const part of bytesOf(await this.readStream(path, options))) {
      parts.push(part);
      size += part.length;
    }
    const all = new Uint8Array(size);
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }

  /** Of any size; the reader sets the pace. */
  async readStream(
    path: string,
    options: CallOptions & { offset?: number; length?: number } = {},
  ): Promise<ReadableStream<Uint8Array>> {
    const { offset, length, ...call } = options;
    const headers: Record<string, string> = {};
    if (offset !== undefined || length !== undefined) {
      const start = offset ?? 0;
      headers.range = `bytes=${start}-${length === undefined ? "" : start + length - 1}`;
    }
    const response = await this.#transport.open("GET /sandboxes/{id}/files", {
      params: { id: this.#id },
      query: { path },
      headers,
      ...LONG,
      ...call,
    });
    return response.body ?? new Blob([]).stream();
  }

  list(path = "/", options: CallOptions & { recursive?: boolean; depth?: number } = {}): Promise<FileInfo[]> {
    const { recursive, depth, ...call } = options;
    return this.#transport.call("GET /sandboxes/{id}/files/list", {
      params: { id: this.#id },
      query: { path, recursive: recursive || undefined, depth },
      ...call,
    });
  }

  stat(path: string, options: CallOptions = {}): Promise<FileInfo> {
    return this.#transport.call("GET /sandboxes/{id}/files/stat", {
      params: { id: this.#id },
      query: { path },
      ...options,
    });
  }

  /** @throws nothing for what is missing: then it is `false` */
  async exists(path: string, options: CallOptions = {}): Promise<boolean> {
    try {
      await this.stat(path, options);
      return true;
    } catch (error) {
      if ((error as { status?: number }).status === 404) return false;
      throw error;
    }
  }

  glob(pattern: string, options: CallOptions = {}): Promise<string[]> {
    return this.#transport.call("GET /sandboxes/{id}/files/glob", {
      params: { id: this.#id },
      query: { pattern },
      ...options,
    });
  }

  async remove(path: string, options: CallOptions & { recursive?: boolean } = {}): Promise<void> {
    const { recursive, ...call } = options;
    await this.#transport.call("DELETE /sandboxes/{id}/files", {
      params: { id: this.#id },
      query: { path, recursive: recursive || undefined },
      ...call,
    });
  }

  async move(from: string, to: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.call("POST /sandboxes/{id}/files/move", {
      params: { id: this.#id },
      body: { oldPath: from, newPath: to },
      ...options,
    });
  }

  async copy(from: string, to: string, options: CallOptions & { recursive?: boolean } = {}): Promise<void> {
    const { recursive, ...call } = options;
    await this.#transport.call("POST /sandboxes/{id}/files/copy", {
      params: { id: this.#id },
      body: { oldPath: from, newPath: to, recursive },
      ...call,
    });
  }

  async chmod(path: string, mode: number, options: CallOptions & { recursive?: boolean } = {}): Promise<void> {
    const { recursive, ...call } = options;
    await this.#transport.call("POST /sandboxes/{id}/files/chmod", {
      params: { id: this.#id },
      body: { path, mode: octal(mode) ?? "", recursive },
      ...call,
    });
  }

  /** With its parents. */
  async mkdir(path: string, options: CallOptions & { mode?: number } = {}): Promise<void> {
    const { mode, ...call } = options;
    await this.#transport.call("POST /sandboxes/{id}/files/mkdir", {
      params: { id: this.#id },
      body: { path, mode: octal(mode) },
      ...call,
    });
  }

  /**
   * A directory as a tar stream. The sandbox made it, so it is not to be trusted: whoever unpacks it must not follow the links in it. `stacyvm cp`
   * does not; GNU tar does not either, into an empty directory.
   */
  async readArchive(path: string, options: CallOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const response = await this.#transport.open("GET /sandboxes/{id}/files/archive", {
      params: { id: this.#id },
      query: { path },
      ...LONG,
      ...options,
    });
    return response.body ?? new Blob([]).stream();
  }

  /** Unpacks a tar stream below a directory. */
  async writeArchive(
    path: string,
    tar: Uint8Array | ReadableStream<Uint8Array>,
    options: CallOptions = {},
  ): Promise<void> {
    await this.#transport.call("PUT /sandboxes/{id}/files/archive", {
      params: { id: this.#id },
      query: { path },
      raw: tar as Payload,
      headers: { "content-type": "application/x-tar" },
      ...LONG,
      ...options,
    });
  }

  /** Changes below a path, until the loop is left or the signal is aborted. */
  async *watch(path: string, options: { recursive?: boolean; signal?: AbortSignal } = {}): AsyncGenerator<FileChange> {
    const response = await this.#transport.open("GET /sandboxes/{id}/files/watch", {
      params: { id: this.#id },
      query: { path, recursive: options.recursive || undefined },
      ...LONG,
      signal: options.signal,
    });
    try {
      for await (const event of serverSent(response.body)) yield event as unknown as FileChange;
    } catch (error) {
      if (!options.signal?.aborted) throw error;
    }
  }
}

function octal(mode: number | undefined): string | undefined {
  return mode === undefined ? undefined : mode.toString(8).padStart(4, "0");
}
