/** The agent's client over one session: each method of the contract as calls. */
import { Duplex, Readable } from "node:stream";
import type { AgentStream } from "../host/agent-stream.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import { withTimeLimit } from "../host/time-limit.ts";
import type {
  Agent,
  Command,
  ExecOptions,
  ExecResult,
  FileChange,
  FileStat,
  GuestInfo,
  HelloInfo,
  Identity,
  ProcessInfo,
  ReadOptions,
  WriteOptions,
} from "./agent.ts";
import { RunningCommand } from "./command.ts";
import {
  execFields,
  fileChange,
  fileStat,
  followFields,
  guestInfo,
  helloInfo,
  identityFields,
  pathFields,
  processId,
  processInfo,
  readFields,
  writeFields,
} from "./methods.ts";
import { type CollectedOutput, OutputBudget } from "./output-budget.ts";
import { FieldReader, FieldWriter, MAX_PAYLOAD, Method, Tag } from "./protocol.ts";
import { type Call, type CallOptions, Session, type SessionOptions } from "./session.ts";

const DEFAULT_LIMIT_BYTES = 64 * 1024 * 1024;
/** A larger file is read as a stream. */
const FILE_LIMIT_BYTES = 256 * 1024 * 1024;
/** A listing or a search that is larger than this is an error, not a memory problem of the host. */
const LIST_LIMIT_BYTES = 64 * 1024 * 1024;
/** The agent keeps far fewer commands. */
const MAX_PROCESSES = 4096;
/** How long calls that do no work in the guest may take. */
const QUICK_MS = 30_000;

/**
 * Opens a session. The stream belongs to it, also when this fails.
 * @throws StacyError `timeout`, `cancelled`, `disconnected`, or what the guest reports about the identity
 */
export async function connectAgent(open: AgentStream, options: SessionOptions = {}): Promise<Agent> {
  const { session, hello } = await Session.open(open, options);
  return new AgentClient(session, hello);
}

/** A channel is opened so often until its greeting is answered. */
const OPENINGS = 3;

/**
 * Connects and opens a session; where the channel breaks before the greeting is answered, once more. What an earlier connection has
 * left in a saved machine's queues is answered with a reset, and under a new monitor, which numbers its connections from the
 * start, that can hit the first new one.
 * @throws StacyError as `connectAgent` and `connect`
 */
export async function openAgent(connect: () => Promise<AgentStream>, options: SessionOptions = {}): Promise<Agent> {
  for (let opening = 1; ; opening++) {
    try {
      return await connectAgent(await connect(), options);
    } catch (thrown) {
      const broken = thrown instanceof StacyError && thrown.code === "disconnected";
      if (!broken || opening === OPENINGS || options.signal?.aborted === true) throw thrown;
    }
  }
}

class AgentClient implements Agent {
  readonly closed: Promise<Error>;
  readonly #session: Session;
  #hello: HelloInfo;

  constructor(session: Session, hello: HelloInfo) {
    this.#session = session;
    this.#hello = hello;
    this.closed = session.closed;
  }

  get hello(): HelloInfo {
    return this.#hello;
  }

  ping(): Promise<void> {
    return quick(this.#session.ping(), "ping");
  }

  async identify(identity: Identity): Promise<HelloInfo> {
    const fields = new FieldWriter().fields(Tag.IDENTITY, identityFields(identity));
    this.#hello = helloInfo(await quick(this.#simple(Method.IDENTITY, fields), "identity"));
    return this.#hello;
  }

  async start(options: ExecOptions): Promise<Command> {
    if (options.argv.length === 0) throw new StacyError("invalid", "a command needs at least one argument");
    const body = options.stdin instanceof Uint8Array ? options.stdin : undefined;
    return this.#follow(Method.EXEC, execFields(options), options.signal, body, true);
  }

  attach(id: string, options: { signal?: AbortSignal } = {}): Promise<Command> {
    const fields = new FieldWriter().u64(Tag.PROCESS_ID, processId(id));
    return this.#follow(Method.ATTACH, fields, options.signal, undefined, false);
  }

  async #follow(
    method: number,
    fields: FieldWriter,
    signal: AbortSignal | undefined,
    body: Uint8Array | undefined,
    owner: boolean,
  ): Promise<Command> {
    const started = Promise.withResolvers<FieldReader>();
    let lost = 0;
    const call = this.#session.call(method, {
      fields,
      signal,
      ...(body === undefined ? {} : { body }),
      onEvent: (event) => {
        if (event.bytes(Tag.PROCESS_ID) !== undefined) started.resolve(event);
        lost += event.number(Tag.LOST) ?? 0;
      },
    });
    call.ended.then(
      () => started.reject(new StacyError("protocol", "the guest ended a command that it had not started")),
      started.reject,
    );
    const event = await started.promise;
    const takeLost = () => {
      const bytes = lost;
      lost = 0;
      return bytes;
    };
    // A follower that goes away by CANCEL would end a command that it has started; a control frame leaves it running.
    const detach = async () => {
      if (owner) call.control(new FieldWriter().u8(Tag.KEEP, 1));
      else call.cancel();
      call.discard();
      await call.ended.catch(() => {});
    };
    return new RunningCommand(call, event, takeLost, detach);
  }

  async exec(options: ExecOptions & { output?: CollectedOutput }): Promise<ExecResult> {
    const command = await this.start({ ...options, stdin: options.stdin === true ? false : (options.stdin ?? false) });
    using own = new OutputBudget(DEFAULT_LIMIT_BYTES, DEFAULT_LIMIT_BYTES).open();
    const output = options.output ?? own;
    const parts: { stdout: Buffer[]; stderr: Buffer[] } = { stdout: [], stderr: [] };
    let truncated = false;
    for await (const event of command.output()) {
      if (event.type === "lost") {
        truncated = true;
        continue;
      }
      const data = event.data.subarray(0, output.take(event.data.length));
      truncated ||= data.length < event.data.length;
      // A copy, where the chunk is small: it would keep the whole buffer that it came in.
      if (data.length > 0) parts[event.type].push(data.length < 4096 ? Buffer.from(data) : data);
    }
    const exit = await command.exited;
    return { ...exit, stdout: Buffer.concat(parts.stdout), stderr: Buffer.concat(parts.stderr), truncated };
  }

  async processes(): Promise<ProcessInfo[]> {
    const list: ProcessInfo[] = [];
    const onEvent = (event: FieldReader) => {
      for (const process of event.fields(Tag.PROCESS)) list.push(processInfo(process));
      if (list.length > MAX_PROCESSES) throw new StacyError("protocol", "the guest lists too many commands");
    };
    await quick(this.#simple(Method.PROCESSES, undefined, { onEvent }), "processes");
    return list;
  }

  async signal(id: string, signal: number): Promise<void> {
    const fields = new FieldWriter().u64(Tag.PROCESS_ID, processId(id)).u8(Tag.SIGNAL, signal);
    await quick(this.#simple(Method.SIGNAL, fields), "signal");
  }

  async readFile(path: string, options: ReadOptions = {}): Promise<Buffer> {
    const call = this.#session.call(Method.READ, { fields: readFields(path, options), signal: options.signal });
    return collect(call, options.limitBytes ?? FILE_LIMIT_BYTES);
  }

  async readStream(path: string, options: ReadOptions = {}): Promise<{ stat: FileStat; stream: Readable }> {
    const first = Promise.withResolvers<FieldReader>();
    const call = this.#session.call(Method.READ, {
      fields: readFields(path, options),
      signal: options.signal,
      onEvent: first.resolve,
    });
    call.widen();
    call.ended.catch(first.reject);
    const stat = fileStat(await first.promise);
    return { stat, stream: readable(call) };
  }

  async writeFile(
    path: string,
    data: Uint8Array | AsyncIterable<Uint8Array>,
    options: WriteOptions = {},
  ): Promise<void> {
    const fields = writeFields(path, options);
    if (data instanceof Uint8Array) {
      await this.#simple(Method.WRITE, fields, { body: data, signal: options.signal });
      return;
    }
    await this.#upload(Method.WRITE, fields, data, options.signal);
  }

  /** Sends a body as it comes and waits for the end. A source that fails cancels the call. */
  async #upload(
    method: number,
    fields: FieldWriter,
    source: AsyncIterable<Uint8Array>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const call = this.#session.call(method, { fields, signal });
    try {
      for await (const chunk of source) {
        if (call.done) break;
        await call.send(chunk);
      }
      if (!call.done) await call.send(new Uint8Array(0), true);
    } catch (thrown) {
      if (!call.done) {
        call.cancel();
        await call.ended.catch(() => {});
        throw asStacyError(thrown);
      }
    }
    await call.ended;
  }

  async stat(path: string, options: { follow?: boolean } = {}): Promise<FileStat> {
    return fileStat(await this.#simple(Method.STAT, followFields(path, options)));
  }

  async list(
    path: string,
    options: { recursive?: boolean; depth?: number; follow?: boolean } = {},
  ): Promise<FileStat[]> {
    const fields = followFields(path, options).flag(Tag.RECURSIVE, options.recursive).u16(Tag.DEPTH, options.depth);
    const body = await collect(this.#session.call(Method.LIST, { fields }), LIST_LIMIT_BYTES);
    return new FieldReader(body).fields(Tag.ENTRY).map(fileStat);
  }

  async glob(pattern: string, cwd?: string): Promise<string[]> {
    const fields = new FieldWriter().text(Tag.PATTERN, pattern).text(Tag.CWD, cwd);
    const body = await collect(this.#session.call(Method.GLOB, { fields }), LIST_LIMIT_BYTES);
    // Two alternatives of a pattern may name the same file.
    return [...new Set(new FieldReader(body).all(Tag.PATH).map((path) => path.toString("utf8")))].sort();
  }

  async move(from: string, to: string): Promise<void> {
    await this.#simple(Method.MOVE, pathFields(from, to));
  }

  async copy(from: string, to: string, options: { recursive?: boolean; follow?: boolean } = {}): Promise<void> {
    await this.#simple(Method.COPY, followFields(from, options, to).flag(Tag.RECURSIVE, options.recursive));
  }

  async chmod(path: string, mode: number, options: { recursive?: boolean; follow?: boolean } = {}): Promise<void> {
    const fields = followFields(path, options).u32(Tag.MODE, mode).flag(Tag.RECURSIVE, options.recursive);
    await this.#simple(Method.CHMOD, fields);
  }

  async remove(path: string, options: { recursive?: boolean } = {}): Promise<void> {
    await this.#simple(Method.DELETE, pathFields(path).flag(Tag.RECURSIVE, options.recursive));
  }

  async mkdir(path: string, options: { parents?: boolean; mode?: number } = {}): Promise<void> {
    await this.#simple(Method.MKDIR, pathFields(path).flag(Tag.PARENTS, options.parents).u32(Tag.MODE, options.mode));
  }

  tarOut(path: string, options: { follow?: boolean; signal?: AbortSignal } = {}): Promise<Readable> {
    return this.#archive(followFields(path, options), options.signal);
  }

  changes(options: { signal?: AbortSignal } = {}): Promise<Readable> {
    return this.#archive(pathFields("/").flag(Tag.LAYER, true), options.signal);
  }

  async #archive(fields: FieldWriter, signal: AbortSignal | undefined): Promise<Readable> {
    const first = Promise.withResolvers<FieldReader>();
    const call = this.#session.call(Method.TAR_OUT, {
      fields,
      signal,
      onEvent: first.resolve,
    });
    call.widen();
    call.ended.then(first.resolve, first.reject);
    await first.promise;
    return readable(call);
  }

  async tarIn(
    path: string,
    tar: AsyncIterable<Uint8Array>,
    options: { layer?: boolean; signal?: AbortSignal } = {},
  ): Promise<void> {
    await this.#upload(Method.TAR_IN, pathFields(path).flag(Tag.LAYER, options.layer), tar, options.signal);
  }

  async *watch(
    path: string,
    options: { recursive?: boolean; signal?: AbortSignal } = {},
  ): AsyncGenerator<{ change: FileChange; path: string; to?: string }> {
    const queue: { change: FileChange; path: string; to?: string }[] = [];
    let wake: (() => void) | undefined;
    const ring = () => {
      wake?.();
      wake = undefined;
    };
    const call = this.#session.call(Method.WATCH, {
      fields: pathFields(path).flag(Tag.RECURSIVE, options.recursive),
      signal: options.signal,
      onEvent: (event) => {
        if (event.bytes(Tag.CHANGE) !== undefined) {
          // A consumer that does not keep up learns that it has missed some, at constant memory.
          if (queue.length < WATCH_LIMIT) queue.push(fileChange(event));
          else if (queue.length === WATCH_LIMIT) queue.push({ change: "overflow", path });
        }
        ring();
      },
    });
    call.ended.then(ring, ring);
    try {
      for (;;) {
        const next = queue.shift();
        if (next !== undefined) yield next;
        else if (call.done) {
          await call.ended;
          return;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } catch (thrown) {
      if (options.signal?.aborted && asStacyError(thrown).code === "cancelled") return;
      throw thrown;
    } finally {
      call.cancel();
    }
  }

  async tunnel(port: number, options: { host?: string; signal?: AbortSignal } = {}): Promise<Duplex> {
    const fields = new FieldWriter().u16(Tag.PORT, port).text(Tag.HOST, options.host);
    return this.#connection(Method.TUNNEL, { fields, signal: options.signal });
  }

  async accept(port: number, options: { signal?: AbortSignal } = {}): Promise<Duplex> {
    const fields = new FieldWriter().u16(Tag.PORT, port);
    return this.#connection(Method.ACCEPT, { fields, signal: options.signal, patient: true });
  }

  async #connection(method: number, options: CallOptions): Promise<Duplex> {
    const connected = Promise.withResolvers<void>();
    const call = this.#session.call(method, {
      ...options,
      onEvent: () => {
        // One that crossed our CANCEL is closed by it.
        if (options.signal?.aborted !== true) connected.resolve();
      },
    });
    call.ended.then(() => connected.resolve(), connected.reject);
    await connected.promise;
    return tunnelStream(call);
  }

  async info(): Promise<GuestInfo> {
    return guestInfo(await quick(this.#simple(Method.INFO), "info"));
  }

  async sync(): Promise<void> {
    await this.#simple(Method.SYNC);
  }

  async freeze(): Promise<void> {
    await quick(this.#simple(Method.FREEZE), "freeze");
  }

  async thaw(): Promise<void> {
    await quick(this.#simple(Method.THAW), "thaw");
  }

  async exercise(): Promise<void> {
    // The real calls, because under emulation each path is slow exactly once, the channel's and the client's included.
    if (this.#hello.guest === "linux") {
      await this.exec({ argv: ["/bin/sh", "-c", "echo exercised"], timeoutMs: QUICK_MS }).catch((error) => {
        if (asStacyError(error).code !== "not-found") throw error;
      });
      await this.writeFile("/run/stacyvm/exercised", Buffer.from("exercised"));
      await this.readFile("/run/stacyvm/exercised");
      await this.remove("/run/stacyvm/exercised");
    }
    await quick(this.#simple(Method.EXERCISE), "exercise");
  }

  async console(): Promise<Buffer> {
    return collect(this.#session.call(Method.CONSOLE), LIST_LIMIT_BYTES);
  }

  async shutdown(): Promise<void> {
    try {
      await quick(this.#simple(Method.SHUTDOWN), "shutdown");
    } catch (thrown) {
      // The guest may be gone before its answer was out.
      if (asStacyError(thrown).code !== "disconnected") throw thrown;
    }
  }

  async close(): Promise<void> {
    this.#session.end(
      new StacyError("disconnected", "the sandbox's channel was closed: it was ended, or its server stops"),
    );
  }

  #simple(method: number, fields?: FieldWriter, options: CallOptions = {}): Promise<FieldReader> {
    return this.#session.call(method, { ...options, ...(fields === undefined ? {} : { fields }) }).ended;
  }
}

const WATCH_LIMIT = 65_536;

/** All of a body. @throws StacyError `limit` */
async function collect(call: Call, limitBytes: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const { data } of call.chunks()) {
    size += data.length;
    if (size > limitBytes) {
      call.cancel();
      throw new StacyError("limit", `the answer passes ${limitBytes} bytes`);
    }
    parts.push(data);
  }
  return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
}

/** A body as a Node stream; destroying it cancels the call. */
function readable(call: Call): Readable {
  return Readable.from(
    (async function* () {
      try {
        for await (const { data } of call.chunks()) yield data;
      } finally {
        call.cancel();
      }
    })(),
    { objectMode: false, highWaterMark: MAX_PAYLOAD },
  );
}

function tunnelStream(call: Call): Duplex {
  const chunks = call.chunks({ untilFin: true });
  const duplex = new Duplex({
    highWaterMark: MAX_PAYLOAD,
    read() {
      chunks.next().then(
        ({ done, value }) => this.push(done ? null : value.data),
        (error: Error) => this.destroy(error),
      );
    },
    write(data: Buffer, _encoding, callback) {
      call.send(data).then(() => callback(), callback);
    },
    final(callback) {
      call.send(new Uint8Array(0), true).then(
        () => callback(),
        (error: Error) => callback(call.done ? null : error),
      );
    },
    destroy(error, callback) {
      // Closed by both sides it ends by itself, once the guest's program has taken all that we sent.
      if (error !== null || !this.readableEnded || !this.writableFinished) call.cancel();
      call.discard();
      callback(error);
    },
  });
  return duplex;
}

/** A guest that goes silent must not hold a caller for ever. */
function quick<T>(work: Promise<T>, what: string): Promise<T> {
  return withTimeLimit(
    work,
    QUICK_MS,
    () => new StacyError("timeout", `the guest did not answer \`${what}\` in ${QUICK_MS} ms`),
  );
}
