/**
 * One session on one byte stream: numbered calls, their credit, keep-alive, and the end of everything when the stream
 * breaks or the guest breaks the rules. What the calls mean is in client.ts.
 */
import { randomBytes } from "node:crypto";
import type { Duplex } from "node:stream";
import type { AgentStream } from "../host/agent-stream.ts";
import { GUEST_BOUNDS } from "../host/bounds.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import { turns } from "../host/turns.ts";
import type { HelloInfo, Identity } from "./agent.ts";
import { AnswerLimit, inTime } from "./answer-limit.ts";
import { Backlog } from "./backlog.ts";
import { FrameDecoder } from "./frame-decoder.ts";
import { helloInfo, identityFields } from "./methods.ts";
import {
  Channel,
  encodeFrame,
  FILLER_BYTES,
  FieldReader,
  FieldWriter,
  FLAG_FIN,
  type Frame,
  FrameType,
  INITIAL_CREDIT,
  MAX_PAYLOAD,
  PROTOCOL_VERSION,
  Tag,
} from "./protocol.ts";
import { failureOf } from "./status.ts";

/** What a stream that carries much may have under way beyond the usual: keeps the channel full. */
const EXTRA_CREDIT = 768 * 1024;
/** Credit is given back in halves of what may be under way: each costs the guest an interrupt. */
const GRANT_STEP = INITIAL_CREDIT / 2;
const WIDE_GRANT_STEP = (INITIAL_CREDIT + EXTRA_CREDIT) / 2;
const PING_BYTES = 8;
/**
 * While the greeting is not answered, the guest is asked again and again, after this time (ms) and then in doubled steps: a load's
 * reset takes a connection away without a word (protocol.ts, LOADING), and the next packet is what brings the news.
 */
const FIRST_ASK_MS = 5;
/** A guest that is slow to take a connection is slow to answer on it, and each question is work for it: so many times what it took. */
const ASK_AFTER_OPENING = 4;
const LONGEST_ASK_MS = 500;
/** With calls under way and nothing heard for so long, the guest is asked; as long again without an answer is the end. */
const SILENCE_MS = 30_000;

export interface Chunk {
  channel: number;
  data: Buffer;
}

export interface CallOptions {
  /** Fields after the method. */
  fields?: FieldWriter;
  /** Body that fits into the OPEN's own write; closes the body. */
  body?: Uint8Array | undefined;
  /** Nothing of the body waits any more: all was sent, or the call has ended. */
  bodyTaken?: (() => void) | undefined;
  onEvent?: (fields: FieldReader) => void;
  signal?: AbortSignal | undefined;
  /** Until its first event it only waits: the guest may be silent for as long as it likes, and `signal` ends only the waiting. */
  patient?: boolean;
  /** The whole call may take this long, ms; then it fails with `timeout`. Default: no limit of its own. */
  limitMs?: number | undefined;
  /** From CANCEL to END, ms. Default `GUEST_BOUNDS.cancelMs`. */
  cancelMs?: number | undefined;
}

/** One call under way. */
export class Call {
  readonly id: number;
  /** The fields of END. Rejects with the guest's failure, or `disconnected`. Handled: nobody has to wait for it. */
  readonly ended: Promise<FieldReader>;
  readonly #session: Session;
  readonly #onEvent: ((fields: FieldReader) => void) | undefined;
  readonly #settle: { resolve: (fields: FieldReader) => void; reject: (error: Error) => void };
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = () => this.cancel();
  #done = false;
  #failure: Error | undefined;
  readonly #backlog = new Backlog();
  #wake: (() => void) | undefined;
  /** Bytes that the guest may still send. */
  #window = INITIAL_CREDIT;
  /** Bytes taken by the consumer and not granted again yet. */
  #taken = 0;
  /** Bytes that we may still send. */
  #credit = INITIAL_CREDIT;
  #creditWaiters: (() => void)[] = [];
  /** When the last of it came. */
  #creditAt = 0;
  #sending: Promise<void> = Promise.resolve();
  #finSent = false;
  #finReceived = false;
  #patient: boolean;
  readonly #cancelMs: number;
  /** The call's own limit, and after a CANCEL the one for its END. */
  #limit: AnswerLimit | undefined;
  #cancelled = false;

  constructor(session: Session, id: number, options: CallOptions) {
    this.#session = session;
    this.id = id;
    this.#onEvent = options.onEvent;
    this.#signal = options.signal;
    this.#patient = options.patient ?? false;
    this.#cancelMs = options.cancelMs ?? GUEST_BOUNDS.cancelMs;
    const { limitMs } = options;
    if (limitMs !== undefined) {
      const failure = (): StacyError => new StacyError("timeout", `the guest did not answer in ${limitMs} ms`);
      this.#limit = new AnswerLimit(session, limitMs, (silent) => this.drop(failure(), silent));
    }
    const { promise, resolve, reject } = Promise.withResolvers<FieldReader>();
    this.ended = promise;
    this.#settle = { resolve, reject };
    promise.catch(() => {});
    this.#signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  get done(): boolean {
    return this.#done;
  }

  /** @internal Nothing is expected of the guest yet. */
  get patient(): boolean {
    return this.#patient;
  }

  /**
   * What comes, in order, until END. The failure of the call is thrown at the end. Granting follows the consumer.
   * @param options.untilFin ends at the guest's half-close already (a tunnel, whose END waits for ours too)
   */
  async *chunks(options: { untilFin?: boolean } = {}): AsyncGenerator<Chunk> {
    let given = false;
    try {
      for (;;) {
        const chunk = this.#backlog.shift();
        if (chunk !== undefined) {
          yield chunk;
          this.#consumed(chunk.data.length);
        } else if (options.untilFin === true && this.#finReceived && !this.#done) {
          given = true;
          return;
        } else if (this.#done) {
          given = true;
          if (this.#failure !== undefined) throw this.#failure;
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      // The consumer left early: what still comes is dropped, so that the guest does not wait for it.
      if (!given) this.discard();
    }
  }

  /** Drops output from now on and goes on granting. */
  discard(): void {
    this.#consumed(this.#backlog.clear());
    this.#discarding = true;
  }
  #discarding = false;

  /** Lets the guest send more at a time: done by itself for streams that turn out to carry much. */
  widen(): void {
    if (this.#wide) return;
    this.#wide = true;
    this.#grant(EXTRA_CREDIT);
  }
  #wide = false;

  #consumed(bytes: number): void {
    this.#taken += bytes;
    if (this.#taken < (this.#wide ? WIDE_GRANT_STEP : GRANT_STEP)) return;
    const grant = this.#taken;
    this.#taken = 0;
    this.#grant(this.#wide ? grant : grant + EXTRA_CREDIT);
    this.#wide = true;
  }

  #grant(bytes: number): void {
    if (this.#done) return;
    this.#window += bytes;
    this.#session.send({ type: FrameType.CREDIT, stream: this.id, payload: u32(bytes) });
  }

  /**
   * Sends body bytes as the guest takes them, in the order of the calls. Rejects when the call has ended.
   * @param withinMs of what it takes nothing of for so long the rest is given up: StacyError `timeout`. The call goes on
   */
  send(data: Uint8Array, fin = false, withinMs?: number): Promise<void> {
    const since = performance.now();
    const sent = this.#sending.then(() =>
      this.#sendNow(data, fin, withinMs === undefined ? undefined : { ms: withinMs, since }),
    );
    this.#sending = sent.catch(() => {});
    return sent;
  }

  async #sendNow(data: Uint8Array, fin: boolean, limit?: { ms: number; since: number }): Promise<void> {
    let at = 0;
    while (at < data.length || (fin && !this.#finSent)) {
      if (this.#done) throw this.#failure ?? new StacyError("conflict", "the call has ended");
      if (this.#finSent) throw new StacyError("conflict", "the input is closed already");
      const size = Math.min(data.length - at, MAX_PAYLOAD, this.#credit);
      if (size === 0 && at < data.length) {
        if (!(await this.#moreCredit(limit))) {
          const taken = `${at} of ${data.length} bytes of the input were taken`;
          throw new StacyError("timeout", `${taken}, and for ${(limit?.ms ?? 0) / 1000} s none`, {
            phase: "input",
            remedy: "the program does not read its standard input; send the rest when it does",
          });
        }
        continue;
      }
      if (this.#session.crowded) {
        await this.#session.drained();
        continue;
      }
      const last = at + size === data.length;
      this.#data(data.subarray(at, at + size), fin && last);
      at += size;
    }
  }

  /** @returns whether it came, or the call's end, before the limit */
  async #moreCredit(limit?: { ms: number; since: number }): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const wake = (): void => resolve(true);
    let timer: NodeJS.Timeout | undefined;
    if (limit !== undefined) {
      const left = limit.ms - (performance.now() - Math.max(limit.since, this.#creditAt));
      timer = setTimeout(resolve, Math.max(0, left), false);
    }
    this.#creditWaiters.push(wake);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#creditWaiters = this.#creditWaiters.filter((each) => each !== wake);
    }
  }

  #data(payload: Uint8Array, fin: boolean): void {
    this.#credit -= payload.length;
    if (fin) this.#finSent = true;
    this.#session.send({ type: FrameType.DATA, flags: fin ? FLAG_FIN : 0, stream: this.id, payload });
  }

  control(fields: FieldWriter): void {
    if (!this.#done) this.#session.send({ type: FrameType.CTRL, stream: this.id, payload: fields.finish() });
  }

  /** Asks the guest to stop and to END it as cancelled; one that does not is left to itself. */
  cancel(): void {
    if (this.#done || this.#cancelled) return;
    this.#cancelled = true;
    this.#session.send({ type: FrameType.CANCEL, stream: this.id, payload: new Uint8Array(0) });
    this.#limit?.clear();
    const failure = (): StacyError => new StacyError("cancelled", "cancelled; the guest did not confirm it");
    this.#limit = new AnswerLimit(this.#session, this.#cancelMs, (silent) => this.drop(failure(), silent));
  }

  /** All was sent, and its end: the guest's program has some time to take it and to close its side, as the kernel gives a socket of its own. */
  linger(): void {
    if (this.#done || this.#cancelled) return;
    if (this.#session.lingering >= GUEST_BOUNDS.lingering) {
      this.cancel();
      return;
    }
    this.#session.lingering += 1;
    this.#limit?.clear();
    this.#limit = new AnswerLimit(this.#session, GUEST_BOUNDS.lingerMs, () => this.cancel());
    const over = (): void => {
      this.#session.lingering -= 1;
    };
    this.ended.then(over, over);
  }

  /** What the guest must do in so many ms, or the call is given up. */
  inTime<T>(work: Promise<T>, ms: number): Promise<T> {
    return inTime(this.#session, work, ms, (silent) => {
      const failure = new StacyError("timeout", `the guest did not go on for ${ms / 1000} s`);
      this.drop(failure, silent);
      return failure;
    });
  }

  /** Fails at once; whatever the guest still says about it is dropped. @param silent so is the channel: it goes too */
  drop(failure: Error, silent = false): void {
    if (this.#done) return;
    if (!this.#cancelled) this.#session.send({ type: FrameType.CANCEL, stream: this.id, payload: new Uint8Array(0) });
    this.finish(failure);
    this.#backlog.clear();
    this.#session.dropped(this);
    if (silent) this.#session.silent();
  }

  /** @internal A frame of this call. @throws StacyError `protocol` */
  receive(frame: Frame): void {
    switch (frame.type) {
      case FrameType.DATA: {
        const data = Buffer.from(frame.payload.buffer, frame.payload.byteOffset, frame.payload.length);
        this.#window -= data.length;
        if (this.#window < 0) throw new StacyError("protocol", "the guest sent more than it was allowed to");
        if ((frame.flags & FLAG_FIN) !== 0) {
          this.#finReceived = true;
          this.#ring();
        }
        if (data.length === 0) return;
        if (this.#discarding) {
          this.#consumed(data.length);
          return;
        }
        this.#backlog.push(frame.channel, data);
        this.#ring();
        return;
      }
      case FrameType.EVENT:
        if (this.#patient) {
          this.#patient = false;
          this.#signal?.removeEventListener("abort", this.#onAbort);
          this.#session.watch();
        }
        this.#onEvent?.(new FieldReader(frame.payload));
        return;
      case FrameType.CREDIT:
        if (frame.payload.length !== 4) throw new StacyError("protocol", "the guest sent a bad credit");
        this.#credit += Buffer.from(frame.payload).readUInt32LE();
        this.#creditAt = performance.now();
        for (const wake of this.#creditWaiters.splice(0)) wake();
        return;
      case FrameType.END: {
        const fields = new FieldReader(frame.payload);
        if (fields.number(Tag.STATUS) === undefined)
          throw new StacyError("protocol", "the guest sent a result without a status");
        const failure = failureOf(fields);
        this.finish(failure);
        if (failure === undefined) this.#settle.resolve(fields);
        return;
      }
      default:
        throw new StacyError("protocol", `the guest sent a frame of type ${frame.type} in a call`);
    }
  }

  /** @internal Nothing more comes. */
  finish(failure: Error | undefined): void {
    if (this.#done) return;
    this.#done = true;
    this.#failure = failure;
    this.#limit?.clear();
    this.#signal?.removeEventListener("abort", this.#onAbort);
    if (failure !== undefined) this.#settle.reject(failure);
    this.#ring();
    for (const wake of this.#creditWaiters.splice(0)) wake();
  }

  #ring(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

/** The beginning of one session: HELLO with a nonce of its own, which its answer must carry. */
export class Greeting {
  readonly nonce: Buffer = randomBytes(16);
  /** False: a part of the identity had no room, and comes behind it. */
  readonly whole: boolean;
  readonly #identity: Identity | undefined;
  #madeAt = 0;

  constructor(identity?: Identity, whole = true) {
    this.#identity = identity;
    this.whole = whole;
  }

  /** Made when it is sent: an identity tells the time. */
  frame(): Buffer {
    this.#madeAt = performance.now();
    const fields = new FieldWriter()
      .u16(Tag.VERSION_MIN, PROTOCOL_VERSION)
      .u16(Tag.VERSION_MAX, PROTOCOL_VERSION)
      .bytes(Tag.NONCE, this.nonce);
    if (this.#identity !== undefined) fields.fields(Tag.IDENTITY, identityFields(this.#identity));
    return encodeFrame({ type: FrameType.HELLO, channel: 0, flags: 0, stream: 0, payload: fields.finish() }, 0);
  }

  /** How old the time is that it tells, ms. */
  get ageMs(): number {
    return performance.now() - this.#madeAt;
  }
}

export interface SessionOptions {
  /** For the whole handshake, ms. */
  timeoutMs?: number;
  signal?: AbortSignal | undefined;
}

export class Session {
  /** Settles with the reason when the session is over. Never rejects. */
  readonly closed: Promise<Error>;
  readonly #stream: Duplex;
  readonly #decoder = new FrameDecoder();
  readonly #calls = new Map<number, Call>();
  /** @internal Calls whose last bytes the guest's programs have not taken yet. */
  lingering = 0;
  /** Calls that we gave up, whose END has not come. */
  readonly #dropped = new Set<number>();
  readonly #close: (reason: Error) => void;
  /** The greeting was 0. */
  #sequence = 1;
  #nextCall = 1;
  #over: Error | undefined;
  readonly #nonce: Buffer;
  #onHello: ((fields: FieldReader) => void) | undefined;
  /** Bytes that came before the answer to the greeting. */
  #hunted = 0;
  #pings: { id: string; resolve: () => void; reject: (error: Error) => void }[] = [];
  #pingCount = 0n;
  #drain: PromiseWithResolvers<void> | undefined;
  #silence: NodeJS.Timeout | undefined;
  /** Calls that something is expected of the guest for. */
  #watched = 0;
  /** Bytes or frames came since the last look. */
  #heard = false;
  #asked = false;
  /** Times that something of it was read. */
  #arrivals = 0;
  #still = false;
  /** A question that is under way. */
  #asking: Promise<void> | undefined;

  private constructor(stream: Duplex, nonce: Buffer) {
    this.#stream = stream;
    this.#nonce = nonce;
    const { promise, resolve } = Promise.withResolvers<Error>();
    this.closed = promise;
    this.#close = resolve;
    stream.on("data", (chunk: Buffer) => this.#received(chunk));
    stream.on("drain", () => this.#drained());
    stream.on("error", (error) =>
      this.end(new StacyError("disconnected", "the agent's channel broke", { cause: error })),
    );
    stream.on("end", () => this.end(new StacyError("disconnected", "the agent's channel was closed")));
    stream.on("close", () => this.end(new StacyError("disconnected", "the agent's channel was closed")));
  }

  /** The handshake: one round trip. The stream belongs to the session, also when it fails. */
  static async open(
    open: AgentStream,
    greeting: Greeting,
    options: SessionOptions = {},
  ): Promise<{ session: Session; hello: HelloInfo }> {
    const session = new Session(open.stream, greeting.nonce);
    const { promise, resolve, reject } = Promise.withResolvers<FieldReader>();
    const timeoutMs = options.timeoutMs ?? 10_000;
    const timer = setTimeout(
      () => reject(new StacyError("timeout", `the agent did not answer within ${timeoutMs} ms`)),
      timeoutMs,
    );
    const onAbort = () => reject(abortError(options.signal, "connecting to the agent"));
    options.signal?.addEventListener("abort", onAbort, { once: true });
    if (options.signal?.aborted) onAbort();
    session.closed.then(reject);
    session.#onHello = resolve;
    let asking: NodeJS.Timeout | undefined;
    const ask = (afterMs: number): void => {
      asking = setTimeout(() => {
        session.ping().catch(() => {});
        ask(Math.min(2 * afterMs, LONGEST_ASK_MS));
      }, afterMs);
    };
    try {
      if (!open.clean) open.stream.write(Buffer.alloc(FILLER_BYTES));
      if (open.greeted !== true) open.stream.write(greeting.frame());
      // A port that is not clean has no connections that could be lost.
      if (open.clean) ask(Math.min(LONGEST_ASK_MS, Math.max(FIRST_ASK_MS, ASK_AFTER_OPENING * (open.tookMs ?? 0))));
      const fields = await promise;
      const failure = failureOf(fields);
      if (failure !== undefined) throw failure;
      return { session, hello: helloInfo(fields) };
    } catch (thrown) {
      const error = asStacyError(thrown, "disconnected").inPhase("agent");
      session.end(error);
      throw error;
    } finally {
      clearTimeout(timer);
      clearTimeout(asking);
      options.signal?.removeEventListener("abort", onAbort);
    }
  }

  #received(chunk: Buffer): void {
    if (this.#over !== undefined) return;
    this.#heard = true;
    if (this.#onHello !== undefined) {
      this.#hunted += chunk.length;
      if (this.#hunted > GUEST_BOUNDS.huntBytes) {
        this.end(new StacyError("protocol", `the guest sent ${this.#hunted} bytes without answering the greeting`));
        return;
      }
    }
    this.#decoder.feed(chunk);
    if (!this.#turn()) return;
    // More than a turn's work: this guest waits for its next one, and nothing more is read from it until then.
    this.#stream.pause();
    turns.add(() => {
      if (this.#turn()) return true;
      if (this.#over === undefined) this.#stream.resume();
      return false;
    });
  }

  /** @returns whether frames are left */
  #turn(): boolean {
    this.#arrivals += 1;
    const until = performance.now() + GUEST_BOUNDS.turnMs;
    try {
      do {
        if (this.#over !== undefined) return false;
        const frame = this.#decoder.take();
        if (frame !== undefined) this.#frame(frame);
        else if (!this.#decoder.unfinished) return false;
      } while (performance.now() < until);
      return true;
    } catch (thrown) {
      this.end(asStacyError(thrown, "protocol"));
      return false;
    }
  }

  #frame(frame: Frame): void {
    if (this.#over !== undefined) return;
    if (this.#onHello !== undefined) {
      if (frame.type !== FrameType.HELLO_ACK) return;
      let fields: FieldReader;
      try {
        fields = new FieldReader(frame.payload);
      } catch {
        this.#decoder.hunt();
        return;
      }
      if (!fields.bytes(Tag.NONCE)?.equals(this.#nonce)) {
        this.#decoder.hunt();
        return;
      }
      this.#decoder.strict();
      this.#onHello(fields);
      this.#onHello = undefined;
      return;
    }
    switch (frame.type) {
      case FrameType.PING:
        if (frame.payload.length > 64) throw new StacyError("protocol", "the guest sent a ping that is too long");
        if (this.#stream.writableLength > 2 * GUEST_BOUNDS.outHighBytes)
          throw new StacyError("protocol", "the guest does not read the answers to its pings");
        this.send({ type: FrameType.PONG, stream: 0, payload: frame.payload });
        return;
      case FrameType.PONG: {
        const id = Buffer.from(frame.payload).toString("hex");
        const at = this.#pings.findIndex((ping) => ping.id === id);
        if (at >= 0) for (const ping of this.#pings.splice(at, 1)) ping.resolve();
        return;
      }
      case FrameType.FAULT: {
        const failure = failureOf(new FieldReader(frame.payload));
        throw new StacyError("protocol", `the guest gave up the session: ${failure?.message ?? "no reason given"}`);
      }
      default: {
        const call = this.#calls.get(frame.stream);
        if (call === undefined && this.#dropped.has(frame.stream)) {
          if (frame.type === FrameType.END) this.#dropped.delete(frame.stream);
          return;
        }
        if (call === undefined)
          throw new StacyError("protocol", `the guest sent a frame for call ${frame.stream}, which is not open`);
        call.receive(frame);
        if (call.done) this.#forget(call);
      }
    }
  }

  /** @internal */
  dropped(call: Call): void {
    if (this.#over !== undefined) return;
    this.#forget(call);
    this.#dropped.add(call.id);
    if (this.#dropped.size > GUEST_BOUNDS.lostCalls)
      this.end(new StacyError("protocol", "the guest does not end its calls"));
  }

  #forget(call: Call): void {
    this.#calls.delete(call.id);
    if (call.patient || --this.#watched > 0) return;
    clearInterval(this.#silence);
    this.#silence = undefined;
  }

  /**
   * @internal One more call that a guest which hangs must not hold for ever. Without such calls there is no timer, and the
   * guest is left alone.
   */
  watch(): void {
    this.#watched++;
    if (this.#silence !== undefined) return;
    this.#heard = true;
    this.#asked = false;
    this.#silence = setInterval(() => {
      const { heard, asked } = { heard: this.#heard || this.#still, asked: this.#asked };
      this.#heard = false;
      this.#asked = !heard;
      if (heard) return;
      if (asked) this.end(new StacyError("disconnected", `the guest did not answer for ${(2 * SILENCE_MS) / 1000} s`));
      else this.ping().catch(() => {});
    }, SILENCE_MS);
    this.#silence.unref();
  }

  /** Starts a call. @throws StacyError when the session is over or the signal is aborted */
  call(method: number, options: CallOptions = {}): Call {
    if (this.#over !== undefined) throw this.#over;
    if (options.signal?.aborted) throw abortError(options.signal, "the call, before it began");
    const call = new Call(this, this.#nextCall++, options);
    this.#calls.set(call.id, call);
    if (!call.patient) this.watch();
    const head = Buffer.alloc(2);
    head.writeUInt16LE(method);
    const fields = options.fields?.finish() ?? Buffer.alloc(0);
    if (fields.length > GUEST_BOUNDS.requestBytes) {
      this.#forget(call);
      const error = new StacyError(
        "too-large",
        `a request of ${fields.length} bytes, the limit is ${GUEST_BOUNDS.requestBytes}`,
        { remedy: "pass long input as a file or as standard input" },
      );
      call.finish(error);
      throw error;
    }
    const fits = head.length + fields.length <= MAX_PAYLOAD;
    const first = fits ? fields : new FieldWriter().u32(Tag.FIELDS_LENGTH, fields.length).finish();
    this.#stream.cork();
    this.send({ type: FrameType.OPEN, stream: call.id, payload: Buffer.concat([head, first]) });
    if (!fits) call.send(fields).catch(() => {});
    if (options.body !== undefined)
      call
        .send(options.body, true)
        .catch(() => {})
        .finally(options.bodyTaken);
    // The body's first frames are sent in microtasks, and shall go out in the same write.
    process.nextTick(() => this.#stream.uncork());
    return call;
  }

  /** @internal */
  send(frame: { type: number; flags?: number; stream: number; payload: Uint8Array }): void {
    if (this.#over !== undefined) return;
    const { type, flags = 0, stream, payload } = frame;
    this.#stream.write(encodeFrame({ type, channel: Channel.BODY, flags, stream, payload }, this.#sequence));
    this.#sequence = (this.#sequence + 1) >>> 0;
    if (this.#stream.writableLength > GUEST_BOUNDS.outLimitBytes)
      this.end(new StacyError("protocol", "the guest does not read what it is sent"));
  }

  /** @internal More waits to be written than bodies may add to. */
  get crowded(): boolean {
    return this.#over === undefined && this.#stream.writableLength > GUEST_BOUNDS.outHighBytes;
  }

  /** @internal Resolves when what waited is written, or the session is over. */
  drained(): Promise<void> {
    this.#drain ??= Promise.withResolvers<void>();
    return this.#drain.promise;
  }

  #drained(): void {
    this.#drain?.resolve();
    this.#drain = undefined;
  }

  async ping(): Promise<void> {
    if (this.#over !== undefined) throw this.#over;
    const payload = Buffer.alloc(PING_BYTES);
    payload.writeBigUInt64LE(this.#pingCount++);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#pings.push({ id: payload.toString("hex"), resolve, reject });
    this.send({ type: FrameType.PING, stream: 0, payload });
    return promise;
  }

  /** Asks the guest whether it is there. @returns whether nothing at all has come since, though it could have */
  question(): () => boolean {
    const before = this.#arrivals;
    this.#asking ??= this.ping()
      .catch(() => {})
      .finally(() => {
        this.#asking = undefined;
      });
    return () => this.#arrivals === before && !this.#still;
  }

  /** While the machine stands still its guest may be silent, and has its time anew when it goes on. */
  set still(still: boolean) {
    this.#still = still;
    this.#heard = true;
    this.#arrivals += 1;
  }

  /** @internal A question was not answered in its time. */
  silent(): void {
    this.end(new StacyError("disconnected", "the guest did not answer over this channel"));
  }

  /** Ends the session: everything under way fails with `reason` at once. Idempotent. */
  end(reason: Error): void {
    if (this.#over !== undefined) return;
    this.#over = reason;
    this.#stream.destroy();
    // Late errors of a stream that is given up mean nothing.
    this.#stream.on("error", () => {});
    for (const call of this.#calls.values()) call.finish(reason);
    this.#calls.clear();
    for (const ping of this.#pings.splice(0)) ping.reject(reason);
    clearInterval(this.#silence);
    this.#drained();
    this.#close(reason);
  }
}

/** Why a signal was aborted: a limit that has passed is no cancellation. */
function abortError(signal: AbortSignal | undefined, what: string): StacyError {
  const reason: unknown = signal?.reason;
  if (reason instanceof StacyError) return reason;
  const late = reason instanceof DOMException && reason.name === "TimeoutError";
  return late
    ? new StacyError("timeout", `the guest did not answer in time: ${what}`, {
        remedy: "try again; if it lasts, end the sandbox",
      })
    : new StacyError("cancelled", `cancelled: ${what}`);
}

function u32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
