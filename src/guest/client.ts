/** The agent's client over one session: each method of the contract as calls. */
import { Duplex, Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import type { AgentStream } from "../host/agent-stream.ts";
import { GUEST_BOUNDS } from "../host/bounds.ts";
import { nameText } from "../host/byte-name.ts";
import { asStacyError, StacyError } from "../host/error.ts";
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
  Intercepted,
  MountedVolume,
  MountOptions,
  ProcessInfo,
  ReadOptions,
  WriteOptions,
} from "./agent.ts";
import { inTime } from "./answer-limit.ts";
import { ByteCollector, CollectBudget, collectBytes, collectFields, sortedUnique } from "./collect.ts";
import { RunningCommand } from "./command.ts";
import { exerciseArgv, isExercise } from "./exercise.ts";
import {
  destination,
  execFields,
  fileChange,
  fileStat,
  followFields,
  guestInfo,
  helloInfo,
  identityFields,
  markFields,
  NS_PER_MS,
  pathFields,
  processId,
  processInfo,
  readFields,
  writeFields,
} from "./methods.ts";
import { type CollectedOutput, OutputBudget } from "./output-budget.ts";
import { OutputTimes } from "./output-times.ts";
import { FieldReader, FieldWriter, MAX_PAYLOAD, Method, Tag } from "./protocol.ts";
import { type Call, type CallOptions, Greeting, Session, type SessionOptions } from "./session.ts";

export interface AgentOptions extends SessionOptions {
  /** Who the guest is from now on. */
  identity?: Identity | undefined;
}

/**
 * Opens a session. The stream belongs to it, also when this fails.
 * @param greeting has been sent already where the stream says so
 * @throws StacyError `timeout`, `cancelled`, `disconnected`, or what the guest reports about the identity
 */
export async function connectAgent(
  open: AgentStream,
  { identity, ...options }: AgentOptions = {},
  greeting = greetingOf(identity),
): Promise<Agent> {
  const { session, hello } = await Session.open(open, greeting, options);
  const agent = new AgentClient(session, hello);
  // What makes a clone an individual was in the greeting; nothing runs before the rest is there too. Where it waited for the guest, in a
  // port while a kernel booted, it has told an old time.
  const late = greeting.ageMs > STALE_CLOCK_MS;
  if (identity === undefined || (greeting.whole && !late)) return agent;
  try {
    await agent.identify({ ...identity, thaw: false });
  } catch (error) {
    await agent.close();
    throw error;
  }
  return agent;
}

/** A greeting is one frame, in which an identity has room but for a large environment. */
function greetingOf(identity: Identity | undefined): Greeting {
  const large = identity !== undefined && identityFields(identity).finish().length > HELLO_BYTES;
  return large ? new Greeting({ ...identity, env: {} }, false) : new Greeting(identity);
}

/** By so much a guest's clock may be behind, ms; telling it again costs a round trip. */
export const STALE_CLOCK_MS = 250;

/** Of an identity in the greeting; the frame has room for a little more. */
const HELLO_BYTES = 60_000;

/**
 * A channel is opened again until its greeting is answered, after these pauses, ms. The last ones are for a machine that has just gone on
 * after a save: its driver resets what was open when it comes to that, and takes what was opened meanwhile along.
 */
const AGAIN_AFTER_MS = [0, 0, 50, 200, 500];

/**
 * Connects and opens a session; where the channel breaks before the greeting is answered, again. What an earlier connection has
 * left in a saved machine's queues is answered with a reset, and under a new monitor, which numbers its connections from the
 * start, that can hit the first new one.
 * @throws StacyError as `connectAgent` and `connect`
 */
export async function openAgent(
  connect: (greeting: () => Uint8Array) => Promise<AgentStream>,
  options: AgentOptions = {},
): Promise<Agent> {
  for (const pauses = AGAIN_AFTER_MS.values(); ; ) {
    try {
      const greeting = greetingOf(options.identity);
      return await connectAgent(await connect(() => greeting.frame()), options, greeting);
    } catch (thrown) {
      const broken = thrown instanceof StacyError && thrown.code === "disconnected";
      const pause = pauses.next().value;
      if (!broken || pause === undefined) throw thrown;
      const { signal } = options;
      if (pause > 0) await delay(pause, undefined, signal === undefined ? {} : { signal }).catch(() => {});
      if (signal?.aborted === true) throw thrown;
    }
  }
}

class AgentClient implements Agent {
  readonly closed: Promise<Error>;
  readonly #session: Session;
  readonly #budget = new CollectBudget();
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
    return inTime(this.#session, this.#session.ping(), GUEST_BOUNDS.quickMs, (silent) => {
      if (silent) this.#session.silent();
      return new StacyError("timeout", `the guest did not answer a ping in ${GUEST_BOUNDS.quickMs} ms`);
    });
  }

  async identify(identity: Identity, options: Limited = {}): Promise<HelloInfo> {
    const fields = new FieldWriter().fields(Tag.IDENTITY, identityFields(identity));
    this.#hello = helloInfo(await this.#simple(Method.IDENTITY, fields, { ...QUICK, ...options }));
    return this.#hello;
  }

  async start(options: ExecOptions): Promise<Command> {
    if (options.argv.length === 0) throw new StacyError("invalid", "a command needs at least one argument");
    const body = options.stdin instanceof Uint8Array ? options.stdin : undefined;
    const graceMs = options.graceMs ?? DEFAULT_GRACE_MS;
    const cancelMs = graceMs + GUEST_BOUNDS.cancelMs;
    // Enforced in the guest; this is for one that does not.
    const limitMs = options.timeoutMs ? options.timeoutMs + cancelMs : undefined;
    return this.#follow(
      Method.EXEC,
      { fields: execFields(options), signal: options.signal, body, bodyTaken: options.stdinTaken, cancelMs, limitMs },
      true,
    );
  }

  attach(id: string, { times, signal }: { times?: boolean; signal?: AbortSignal } = {}): Promise<Command> {
    const fields = new FieldWriter().u64(Tag.PROCESS_ID, processId(id)).flag(Tag.TIMES, times);
    return this.#follow(Method.ATTACH, { fields, signal }, false);
  }

  async #follow(method: number, options: CallOptions, owner: boolean): Promise<Command> {
    const started = Promise.withResolvers<FieldReader>();
    let lost = 0;
    const times = new OutputTimes();
    const call = this.#session.call(method, {
      ...options,
      onEvent: (event) => {
        if (event.bytes(Tag.PROCESS_ID) !== undefined) started.resolve(event);
        lost += event.number(Tag.LOST) ?? 0;
        const time = event.bigint(Tag.TIME);
        if (time !== undefined) times.add(event.number(Tag.OFFSET) ?? 0, Number(time / NS_PER_MS));
      },
    });
    call.ended.then(
      () => started.reject(new StacyError("protocol", "the guest ended a command that it had not started")),
      started.reject,
    );
    const event = await this.#first(call, started.promise);
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
    return new RunningCommand(call, event, { takeLost, times, detach });
  }

  async exec(options: ExecOptions & { output?: CollectedOutput }): Promise<ExecResult> {
    const command = await this.start({ ...options, stdin: options.stdin === true ? false : (options.stdin ?? false) });
    using own = new OutputBudget(GUEST_BOUNDS.outputBytes, GUEST_BOUNDS.outputBytes).open();
    const output = options.output ?? own;
    const parts = { stdout: new ByteCollector(), stderr: new ByteCollector() };
    let truncated = false;
    for await (const event of command.output()) {
      if (event.type === "lost") {
        truncated = true;
        continue;
      }
      const data = event.data.subarray(0, output.take(event.data.length));
      truncated ||= data.length < event.data.length;
      parts[event.type].push(data);
    }
    const exit = await command.exited;
    return { ...exit, stdout: parts.stdout.finish(), stderr: parts.stderr.finish(), truncated };
  }

  async processes(options: Signalled = {}): Promise<ProcessInfo[]> {
    const list: ProcessInfo[] = [];
    let size = 0;
    const onEvent = (event: FieldReader) => {
      for (const value of event.all(Tag.PROCESS)) {
        size += value.length + GUEST_BOUNDS.entryOverheadBytes;
        if (list.length === GUEST_BOUNDS.processes || size > GUEST_BOUNDS.processBytes)
          throw new StacyError("protocol", "the guest lists too many commands");
        list.push(processInfo(new FieldReader(value)));
      }
    };
    await this.#simple(Method.PROCESSES, undefined, { ...QUICK, ...options, onEvent });
    return list.filter((each) => !isExercise(each));
  }

  async signal(id: string, signal: number): Promise<void> {
    const fields = new FieldWriter().u64(Tag.PROCESS_ID, processId(id)).u8(Tag.SIGNAL, signal);
    await this.#simple(Method.SIGNAL, fields, QUICK);
  }

  async readFile(path: string, options: ReadOptions = {}): Promise<Buffer> {
    const call = this.#session.call(Method.READ, { fields: readFields(path, options), signal: options.signal });
    return collectBytes(call, options.limitBytes ?? GUEST_BOUNDS.fileBytes, this.#budget);
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
    const event = await this.#first(call, first.promise);
    try {
      return { stat: fileStat(event), stream: readable(call) };
    } catch (thrown) {
      call.cancel();
      throw thrown;
    }
  }

  async writeFile(
    path: string,
    data: Uint8Array | AsyncIterable<Uint8Array>,
    options: WriteOptions = {},
  ): Promise<void> {
    const fields = writeFields(path, options);
    if (data instanceof Uint8Array) {
      await this.#simple(Method.WRITE, fields, { body: data, signal: options.signal, limitMs: GUEST_BOUNDS.treeMs });
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
        await call.inTime(call.send(chunk), GUEST_BOUNDS.fileMs); // a part that the guest must take in time
      }
      if (!call.done) await call.inTime(call.send(new Uint8Array(0), true), GUEST_BOUNDS.fileMs);
    } catch (thrown) {
      if (!call.done) {
        call.cancel();
        await call.ended.catch(() => {});
        throw asStacyError(thrown);
      }
    }
    await call.inTime(call.ended, GUEST_BOUNDS.treeMs);
  }

  /** The event that a call begins with. */
  #first<T>(call: Call, event: Promise<T>): Promise<T> {
    return call.inTime(event, GUEST_BOUNDS.fileMs);
  }

  async stat(path: string, options: { follow?: boolean; attributes?: string } & Signalled = {}): Promise<FileStat> {
    const fields = followFields(path, options).text(Tag.PREFIX, options.attributes);
    return fileStat(await this.#simple(Method.STAT, fields, file(options)));
  }

  async list(
    path: string,
    options: { recursive?: boolean; depth?: number; follow?: boolean; attributes?: string } & Signalled = {},
  ): Promise<FileStat[]> {
    const fields = followFields(path, options)
      .flag(Tag.RECURSIVE, options.recursive)
      .u16(Tag.DEPTH, options.depth)
      .text(Tag.PREFIX, options.attributes);
    const call = this.#session.call(Method.LIST, { fields, ...tree(options) });
    return collectFields(call, Tag.ENTRY, (value) => fileStat(new FieldReader(value)), this.#budget);
  }

  async glob(pattern: string, cwd?: string, options: Signalled = {}): Promise<string[]> {
    const fields = new FieldWriter().text(Tag.PATTERN, pattern).text(Tag.CWD, cwd);
    const call = this.#session.call(Method.GLOB, { fields, ...tree(options) });
    // Two alternatives of a pattern may name the same file.
    return sortedUnique(await collectFields(call, Tag.PATH, nameText, this.#budget));
  }

  async move(from: string, to: string, options: Signalled = {}): Promise<void> {
    await this.#simple(Method.MOVE, pathFields(from, to), tree(options));
  }

  async copy(
    from: string,
    to: string,
    options: { recursive?: boolean; follow?: boolean } & Signalled = {},
  ): Promise<void> {
    const fields = followFields(from, options, to).flag(Tag.RECURSIVE, options.recursive);
    await this.#simple(Method.COPY, fields, tree(options));
  }

  async chmod(
    path: string,
    mode: number,
    options: { recursive?: boolean; follow?: boolean } & Signalled = {},
  ): Promise<void> {
    const fields = followFields(path, options).u32(Tag.MODE, mode).flag(Tag.RECURSIVE, options.recursive);
    await this.#simple(Method.CHMOD, fields, tree(options));
  }

  async mark(
    path: string,
    prefix: string,
    attributes: Readonly<Record<string, string>>,
    options: Signalled = {},
  ): Promise<void> {
    await this.#simple(Method.MARK, markFields(path, prefix, attributes), file(options));
  }

  async remove(path: string, options: { recursive?: boolean } & Signalled = {}): Promise<void> {
    await this.#simple(Method.DELETE, pathFields(path).flag(Tag.RECURSIVE, options.recursive), tree(options));
  }

  async mkdir(path: string, options: { parents?: boolean; mode?: number } & Signalled = {}): Promise<void> {
    const fields = pathFields(path).flag(Tag.PARENTS, options.parents).u32(Tag.MODE, options.mode);
    await this.#simple(Method.MKDIR, fields, file(options));
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
    await this.#first(call, first.promise);
    return readable(call);
  }

  async tarIn(
    path: string,
    tar: AsyncIterable<Uint8Array>,
    options: { layer?: boolean; beneath?: boolean; signal?: AbortSignal } = {},
  ): Promise<void> {
    const fields = pathFields(path).flag(Tag.LAYER, options.layer).flag(Tag.BENEATH, options.beneath);
    await this.#upload(Method.TAR_IN, fields, tar, options.signal);
  }

  async *watch(
    path: string,
    options: { recursive?: boolean; signal?: AbortSignal; ready?: () => void } = {},
  ): AsyncGenerator<{ change: FileChange; path: string; to?: string }> {
    const queue: { change: FileChange; path: string; to?: string; cost: number }[] = [];
    let queued = 0;
    let wake: (() => void) | undefined;
    const ring = () => {
      wake?.();
      wake = undefined;
    };
    const call = this.#session.call(Method.WATCH, {
      fields: pathFields(path).flag(Tag.RECURSIVE, options.recursive),
      signal: options.signal,
      onEvent: (event) => {
        // The first one, without a change, says that the watch has begun.
        options.ready?.();
        if (event.bytes(Tag.CHANGE) !== undefined) {
          const change = fileChange(event);
          const cost = 2 * (change.path.length + (change.to?.length ?? 0)) + GUEST_BOUNDS.entryOverheadBytes;
          // A consumer that does not keep up learns that it has missed some, at constant memory.
          if (queued + cost <= GUEST_BOUNDS.watchBytes) queue.push({ ...change, cost });
          else if (queue.at(-1)?.change !== "overflow") queue.push({ change: "overflow", path, cost: 0 });
          else return;
          queued += queue.at(-1)?.cost ?? 0;
        }
        ring();
      },
    });
    call.ended.then(ring, ring);
    try {
      for (;;) {
        const next = queue.shift();
        if (next !== undefined) {
          const { cost, ...change } = next;
          queued -= cost;
          yield change;
        } else if (call.done) {
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

  async intercept(options: { signal?: AbortSignal } = {}): Promise<Intercepted> {
    let wanted: { address: string; port: number } | undefined;
    const connection = await this.#connection(Method.INTERCEPT, {
      signal: options.signal,
      patient: true,
      onEvent: (fields) => {
        wanted ??= destination(fields);
      },
    });
    if (wanted !== undefined) return { connection, ...wanted };
    connection.destroy();
    throw new StacyError("protocol", "the guest handed a connection over without its address");
  }

  async datagrams(options: { signal?: AbortSignal } = {}): Promise<Duplex> {
    return tunnelStream(this.#session.call(Method.DATAGRAMS, { signal: options.signal, patient: true }));
  }

  async #connection(method: number, options: CallOptions): Promise<Duplex> {
    const connected = Promise.withResolvers<void>();
    const call = this.#session.call(method, {
      ...options,
      onEvent: (fields) => {
        options.onEvent?.(fields);
        // One that crossed our CANCEL is closed by it.
        if (options.signal?.aborted !== true) connected.resolve();
      },
    });
    call.ended.then(() => connected.resolve(), connected.reject);
    await connected.promise;
    return tunnelStream(call);
  }

  async info(): Promise<GuestInfo> {
    return guestInfo(await this.#simple(Method.INFO, undefined, QUICK));
  }

  async sync(): Promise<void> {
    await this.#simple(Method.SYNC, undefined, tree({}));
  }

  async freeze(options: Limited = {}): Promise<void> {
    await this.#simple(Method.FREEZE, undefined, { ...QUICK, ...options });
  }

  async thaw(options: Limited = {}): Promise<void> {
    await this.#simple(Method.THAW, undefined, { ...QUICK, ...options });
  }

  async mount({ name, slot, bytes, path, readOnly, probe }: MountOptions): Promise<void> {
    const fields = new FieldWriter().u8(Tag.SLOT, slot).u64(Tag.SIZE, bytes).text(Tag.PATH, path).text(Tag.NAME, name);
    await this.#simple(Method.MOUNT, fields.flag(Tag.READ_ONLY, readOnly).flag(Tag.PROBE, probe), tree({}));
  }

  async unmount({ name, slot, path }: MountedVolume, options: { force?: boolean } = {}): Promise<void> {
    const fields = new FieldWriter().u8(Tag.SLOT, slot).text(Tag.PATH, path).text(Tag.NAME, name);
    await this.#simple(Method.UNMOUNT, fields.flag(Tag.FORCE, options.force), tree({}));
  }

  async onlyRead({ name, slot, path }: MountedVolume): Promise<void> {
    const fields = new FieldWriter().u8(Tag.SLOT, slot).text(Tag.PATH, path).text(Tag.NAME, name);
    await this.#simple(Method.REMOUNT, fields, tree({}));
  }

  async share(directory: {
    path: string;
    readOnly: boolean;
    withinMs?: number;
  }): Promise<{ uid: number; gid: number }> {
    const { path, readOnly, withinMs = 0 } = directory;
    const fields = pathFields(path).flag(Tag.READ_ONLY, readOnly).u32(Tag.TIMEOUT_MS, withinMs);
    const owner = await this.#simple(Method.SHARE, fields, tree({}));
    return { uid: owner.number(Tag.UID) ?? 0, gid: owner.number(Tag.GID) ?? 0 };
  }

  async serve(path: string, { signal }: Signalled = {}): Promise<Duplex> {
    return this.#connection(Method.SERVE, { fields: pathFields(path), signal, patient: true });
  }

  async unshare(keep: readonly string[]): Promise<void> {
    const fields = new FieldWriter();
    for (const path of keep) fields.text(Tag.PATH, path);
    await this.#simple(Method.UNSHARE, fields, tree({}));
  }

  async still(options: Limited = {}): Promise<void> {
    await this.#simple(Method.STILL, undefined, { ...tree({}), ...options });
  }

  async exercise(): Promise<void> {
    // The real calls, because under emulation each path is slow exactly once, the channel's and the client's included.
    if (this.#hello.guest === "linux") {
      await this.exec({ argv: exerciseArgv("/bin/sh"), timeoutMs: GUEST_BOUNDS.quickMs }).catch((error) => {
        if (asStacyError(error).code !== "not-found") throw error;
      });
      await this.writeFile("/run/stacyvm/exercised", Buffer.from("exercised"));
      await this.readFile("/run/stacyvm/exercised");
      await this.remove("/run/stacyvm/exercised");
    }
    await this.#simple(Method.EXERCISE, undefined, QUICK);
  }

  async console(): Promise<Buffer> {
    return collectBytes(this.#session.call(Method.CONSOLE, QUICK), GUEST_BOUNDS.consoleBytes, this.#budget);
  }

  async shutdown(): Promise<void> {
    try {
      await this.#simple(Method.SHUTDOWN, undefined, QUICK);
    } catch (thrown) {
      // The guest may be gone before its answer was out.
      if (asStacyError(thrown).code !== "disconnected") throw thrown;
    }
  }

  standsStill(still: boolean): void {
    this.#session.still = still;
  }

  async close(why?: StacyError): Promise<void> {
    this.#session.end(why ?? new StacyError("disconnected", "the sandbox's channel was closed"));
  }

  #simple(method: number, fields?: FieldWriter, options: CallOptions = {}): Promise<FieldReader> {
    return this.#session.call(method, { ...options, ...(fields === undefined ? {} : { fields }) }).ended;
  }
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
    // One piece at a time: what waits, waits in the call, where many small pieces cost little.
    readableHighWaterMark: 1,
    writableHighWaterMark: MAX_PAYLOAD,
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
      if (error !== null || !this.writableFinished) call.cancel();
      else if (!this.readableEnded) call.linger();
      call.discard();
      callback(error);
    },
  });
  return duplex;
}

interface Limited {
  limitMs?: number;
}

interface Signalled {
  signal?: AbortSignal | undefined;
}

/** The agent's own, of a command that is to end (protocol.ts, GRACE_MS). */
const DEFAULT_GRACE_MS = 2_000;

/** Calls that do no work in the guest. */
const QUICK: CallOptions = { limitMs: GUEST_BOUNDS.quickMs };

function file({ signal }: Signalled): CallOptions {
  return { signal, limitMs: GUEST_BOUNDS.fileMs };
}

function tree({ signal }: Signalled): CallOptions {
  return { signal, limitMs: GUEST_BOUNDS.treeMs };
}
