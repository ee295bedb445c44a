/**
 * The wire format between host and guest agent, version 1. Three implementations keep to this page: this file, the Linux
 * agent (agent/src/protocol.rs) and the bare guest (guests/bare). The vectors in test/vectors/ are checked by all.
 *
 * One byte stream per machine (vsock port 1024 under Firecracker, virtio-serial port `agent` under QEMU) carries frames.
 * All integers are little-endian.
 *
 *      0       1       2       3       4               8               12              16              20
 *      +-------+-------+-------+-------+---------------+---------------+---------------+---------------+----
 *      | magic | type  | chan  | flags | stream        | length        | sequence      | check         | payload ...
 *      | 0xA7  |       |       |       |               | 0..65536      |               |               |
 *      +-------+-------+-------+-------+---------------+---------------+---------------+---------------+----
 *                                                                        payload ... | trailer (4 bytes) |
 *                                                                        ------------+-------------------+
 *
 *   magic     0xA7
 *   type      see `FrameType`
 *   chan      DATA: 0 = body or stdin, 1 = stdout, 2 = stderr. Otherwise 0.
 *   flags     bit 0 FIN: no more DATA in this direction of this stream (half-close). Other bits must be 0.
 *   stream    0 = the connection itself; else the number of the call. The host numbers its calls from 1 upward and never
 *             uses a number twice in a session.
 *   length    of the payload in bytes, at most 65,536
 *   sequence  counts the frames of this direction, from 0 with HELLO or HELLO_ACK, wrapping at 2^32. A gap is an error.
 *   check     CRC-32 (zlib's polynomial) of the 16 bytes before it
 *   trailer   the complement of `check`: a frame that was cut and continued with other bytes does not pass
 *
 * SESSION. The host opens a session with HELLO (sequence 0, a fresh 16-byte nonce) and takes nothing but the HELLO_ACK
 * with that nonce as its beginning. A HELLO may come at any time, also in the middle of a session: the agent then forgets
 * every stream of the old session (commands go on running and can be attached to again), drops all output that it had not
 * sent yet and answers HELLO_ACK with sequence 0. Nothing else is valid before the first HELLO. Under Firecracker it may be sent together with
 * the request for the connection: it waits there until the guest has taken it.
 *
 * RESYNCHRONISING. Over vsock each connection is new and clean. A virtio-serial port has no connections: a frame that the
 * last host process did not finish may be stuck in front, and bytes meant for it may come out. So a host that is not sure
 * sends a filler of 65,560 zero bytes before HELLO: it completes any half frame, whose trailer then does not fit. A
 * receiver that meets a bad header or trailer is out of step: it HUNTS, that is, it drops bytes until 20 of them are a
 * valid header of type HELLO (the agent) or HELLO_ACK (the host) with sequence 0. The host hunts from the start. A payload
 * that imitates a HELLO_ACK does not know the nonce. In step, a host treats any violation as the end of the connection.
 *
 * CALLS. OPEN starts call `stream`: payload = method (u16), then fields. The agent answers with any number of DATA and
 * EVENT frames and always exactly one END, the last frame of the stream, whose fields begin with STATUS. The host may send
 * DATA (and FIN), CTRL (fields, for example a signal or a terminal size) and CANCEL, which makes the agent stop the work
 * and END it as cancelled. DATA, CTRL, CREDIT or CANCEL for a stream that has ended are ignored: they crossed the END.
 *
 * A call whose fields do not fit into one frame (a command with long arguments) says FIELDS_LENGTH: that many bytes of further fields,
 * 8 MiB at most, are the first DATA of the stream, in frames of their own, and the call begins when they are there.
 *
 * FLOW CONTROL is per stream and direction, counted in DATA payload bytes (all channels together). The right to send starts
 * at 262,144 bytes (`INITIAL_CREDIT`) and grows by each CREDIT frame (payload: u32). Sending more than the right is an
 * error. EVENT, CTRL and END need no credit and are small. A receiver grants again when its consumer has taken the bytes,
 * and may grant more than was taken to a stream that carries much.
 *
 * ACCEPT hands the host a connection that a program of the guest opens to 127.0.0.1:PORT, the reverse of TUNNEL. The agent
 * listens there from the first such call on. The calls wait in order; an empty EVENT says that a call has its connection, and
 * from then on the stream is a tunnel's. What comes while no call waits stays in the kernel's backlog, also from one session
 * to the next. One port at a time: another one is BUSY while calls wait, and otherwise takes the place of the former. An
 * identity that names another SANDBOX_ID closes the port and ends the calls that wait as cancelled.
 *
 * INTERCEPT is ACCEPT for connections to any address and port, while the identity has NETWORK. Its EVENT says HOST (4 or 16 bytes)
 * and PORT that the program asked for. DATAGRAMS takes what programs send without a connection, UDP and ICMP echo, to any address but
 * their own, and its answers go back to them; DATA of both directions is a row of datagrams. A newer call takes the place of the former.
 *
 *      0        2      3      4               20     22              38     40
 *      +--------+------+------+---------------+------+---------------+------+----
 *      | length | kind | 0    | guest address | port | other address | port | payload ...
 *      +--------+------+------+---------------+------+---------------+------+----
 *
 *   length    of the payload in bytes, at most 16,384
 *   kind      0 UDP, 1 ICMP echo; from the host also 2 UDP refused, 3 echo refused (to which the program's own payload is given back)
 *   address   of IPv6, or of IPv4 behind ::ffff:
 *   payload   of an echo: identifier, number and data; its ports are 0
 *
 * KEEP-ALIVE. PING (any payload up to 64 bytes) is answered with PONG of the same payload, in both directions. An agent
 * whose host is silent does nothing: idle it makes no wake-ups. A host asks so before it gives a call up: a guest that is slow answers,
 * and a channel over which nothing comes for 10 s is closed with the call (answer-limit.ts). The next one opens another.
 *
 * LOADING. Loading a snapshot under Firecracker makes the guest's vsock driver reset all connections, which it does some time
 * after the machine has gone on: a connection that was opened meanwhile goes with them, and the host is not told. So the host opens
 * one more connection, to port 1025, before each save, waits for the one byte that the agent sends on it, and keeps it open through the
 * save: the sentinel. It dies by the same reset. While it lives (5 s at most) the agent reads nothing from a new connection. So an
 * answer to HELLO means that this connection will not be taken away by the load. The host sends PINGs behind its HELLO while it
 * has no answer, after 5 ms (of a guest that was slow to take the connection, after four times as long as that took, 500 ms at most)
 * and then in doubled steps: to a connection that the reset has taken, the guest's kernel answers with
 * a reset of its own, and the host connects anew. The saved machine itself, when it goes on, gets the same reset; the host leaves its
 * end of the sentinel open until then. One whose daemon died meanwhile gets a sentinel from the next daemon, for a second, before its
 * HELLO. A guest whose agent has no port 1025 is saved without one, a golden machine is not.
 *
 * FAULT (stream 0, fields STATUS and MESSAGE) says why the sender gives up the session; the agent then hunts.
 *
 * FIELDS. Structured payloads are a sequence of fields: tag (u8), length (u32), value. Numbers are 1, 2, 4 or 8 bytes
 * unsigned; text is UTF-8, paths and arguments are bytes without NUL (as text: host/byte-name.ts). A tag may repeat where its table says so (lists).
 * Unknown tags are skipped: that is how the format grows. A length that passes the end is an error.
 */
import { crc32 } from "node:zlib";
import { GUEST_BOUNDS } from "../host/bounds.ts";
import { nameBytes, nameText } from "../host/byte-name.ts";
import { StacyError } from "../host/error.ts";

export const PROTOCOL_VERSION = 1;
/** The agent's port under vsock. */
export const AGENT_PORT = 1024;
export const MAGIC = 0xa7;
export const HEADER_BYTES = 20;
export const TRAILER_BYTES = 4;
export const MAX_PAYLOAD = 65_536;
export const FILLER_BYTES = MAX_PAYLOAD + HEADER_BYTES + TRAILER_BYTES;
export const INITIAL_CREDIT = 262_144;
export const FIELD_HEAD_BYTES = 5;

export const FrameType = {
  HELLO: 1,
  HELLO_ACK: 2,
  OPEN: 3,
  DATA: 4,
  CREDIT: 5,
  EVENT: 6,
  END: 7,
  CTRL: 8,
  CANCEL: 9,
  PING: 10,
  PONG: 11,
  FAULT: 12,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

export const FLAG_FIN = 1;
export const Channel = { BODY: 0, STDOUT: 1, STDERR: 2 } as const;

/** STATUS of END and FAULT. */
export const Status = {
  OK: 0,
  NOT_FOUND: 1,
  IS_DIRECTORY: 2,
  NOT_DIRECTORY: 3,
  PERMISSION: 4,
  NO_SPACE: 5,
  EXISTS: 6,
  INVALID: 7,
  NOT_SUPPORTED: 8,
  CANCELLED: 9,
  LIMIT: 10,
  IO: 11,
  TIMEOUT: 12,
  NO_PROCESS: 13,
  REFUSED: 14,
  BUSY: 15,
  NOT_EMPTY: 16,
  PROTOCOL: 17,
  TOO_LARGE: 18,
} as const;

/** Methods of OPEN. The tags that each takes and answers are in the tables of guest/methods.ts. */
export const Method = {
  EXEC: 1,
  ATTACH: 2,
  PROCESSES: 3,
  SIGNAL: 4,
  READ: 16,
  WRITE: 17,
  STAT: 18,
  LIST: 19,
  GLOB: 20,
  MOVE: 21,
  COPY: 22,
  CHMOD: 23,
  DELETE: 24,
  MKDIR: 25,
  TAR_OUT: 26,
  TAR_IN: 27,
  WATCH: 28,
  MARK: 29,
  TUNNEL: 48,
  ACCEPT: 49,
  INTERCEPT: 50,
  DATAGRAMS: 52,
  INFO: 64,
  SYNC: 65,
  SHUTDOWN: 66,
  IDENTITY: 67,
  FREEZE: 68,
  THAW: 69,
  EXERCISE: 70,
  CONSOLE: 71,
  MOUNT: 72,
  STILL: 73,
  UNMOUNT: 74,
  REMOUNT: 75,
  SHARE: 76,
  SERVE: 77,
  UNSHARE: 78,
} as const;

/** Tags are global: one number means the same in every payload. */
export const Tag = {
  // session
  VERSION_MIN: 1, // u16, HELLO
  VERSION_MAX: 2, // u16, HELLO
  VERSION: 3, // u16, HELLO_ACK: the one chosen
  NONCE: 4, // 16 bytes
  IDENTITY: 5, // fields, HELLO and IDENTITY: what makes a clone an individual; see below
  AGENT: 6, // text, HELLO_ACK: agent name and version
  GUEST: 7, // text, HELLO_ACK: "linux" or "bare"
  GENERATION: 8, // u64, HELLO_ACK: how many identities were applied since boot
  UPTIME: 9, // u64 ns, HELLO_ACK: the guest's monotonic clock
  // identity (all optional; each is applied when present)
  CLOCK: 10, // u64 ns since 1970, the host's wall clock at the moment of writing
  ENTROPY: 11, // 32..256 bytes, credited to the kernel's generator, which is then reseeded
  HOSTNAME: 12, // text
  SANDBOX_ID: 13, // text
  MACHINE_ID: 14, // 32 hex digits, /etc/machine-id
  BOOT_ID: 15, // UUID, what /proc/sys/kernel/random/boot_id shows
  ENV: 16, // "K=V", repeated. In IDENTITY: the default environment of all commands (replaces the former one). In EXEC: added to it
  CWD: 17, // path. In IDENTITY: the default working directory
  USER: 18, // name, uid, name:group or uid:gid. In IDENTITY: the default user
  TIMEZONE: 19, // text
  DNS: 20, // text, repeated: lines for resolv.conf
  THAW_AFTER: 21, // u8 1: thaw what FREEZE froze once the identity is applied (fork, suspend)
  NETWORK: 22, // u8 1: connections to any address are taken for INTERCEPT, and questions for names; else both are refused
  // results
  STATUS: 32, // u8, first field of END
  MESSAGE: 33, // text
  ERRNO: 34, // u16, the guest kernel's number
  // processes
  ARGV: 48, // bytes, repeated
  TIMEOUT_MS: 49, // u32; 0 or absent: none
  GRACE_MS: 50, // u32 between the stop signal and KILL; default 2,000
  STDIN: 51, // u8 1: a stream follows; absent: /dev/null
  PTY: 52, // fields ROWS, COLS, TERM: a terminal; output is one stream, STDOUT
  ROWS: 53, // u16
  COLS: 54, // u16
  TERM: 55, // text
  PID: 56, // u32
  PROCESS_ID: 57, // u64, the agent's own number of a command, never reused
  EXIT_CODE: 58, // u8
  SIGNAL: 59, // u8: sent (SIGNAL, CTRL), to send when it must end (EXEC; default TERM) or received (END)
  REASON: 60, // u8: 0 exited by itself, 1 timeout, 2 cancelled, 3 out of memory
  COMMAND: 61, // text
  START_TIME: 62, // u64 ns since 1970
  RUNNING: 63, // u8
  RING_BYTES: 64, // u32, recent output kept for ATTACH; default 1 MiB
  PROCESS: 65, // fields, repeated
  KEEP: 66, // u8 1: the command outlives CANCEL-less loss of the session (default 1)
  LOST: 67, // u64, bytes that the ring had already dropped
  GROUP: 68, // u8 1: signal the whole process group (default 1)
  FIELDS_LENGTH: 69, // u32, OPEN: so many bytes of further fields come as the first DATA
  TIMES: 70, // u8 1: say when what follows was written
  TIME: 71, // u64 ns since 1970: when the output from OFFSET on was written, to 10 ms
  OUTPUT: 72, // u64, bytes that a command has written so far
  NOTE: 75, // text of the host's, at most 4 KiB, kept beside a command and given back with PROCESSES
  UNTIL_CLOSED: 74, // u8 1: the output is over when nobody holds it open any more, however long after the command's end
  DETACHED: 73, // u8 1: started to go on without anybody who follows it
  // files
  PATH: 80, // path
  TO: 81, // path
  MODE: 82, // u32, permission bits
  OFFSET: 83, // u64
  LENGTH: 84, // u64
  SIZE: 85, // u64
  MTIME: 86, // u64 ns since 1970, of agents that knew no other times
  KIND: 87, // u8: 1 file, 2 directory, 3 symlink, 4 other
  UID: 88, // u32
  GID: 89, // u32
  TARGET: 90, // path, of a symlink
  ENTRY: 91, // fields, repeated
  RECURSIVE: 92, // u8
  DEPTH: 93, // u16
  FOLLOW: 94, // u8: follow symlinks (1) or not (0); the default is in the method's table
  PARENTS: 95, // u8 1: create parent directories
  APPEND: 96, // u8
  ATOMIC: 97, // u8 1: write beside and rename
  PATTERN: 98, // text
  EXCLUSIVE: 99, // u8 1: fail with EXISTS
  CHANGE: 100, // u8: 1 create, 2 modify, 3 delete, 4 rename, 5 overflow
  NLINK: 101, // u32
  INODE: 102, // u64
  MTIME_S: 104, // u64, s since 1970, negative as two's complement
  MTIME_NS: 105, // u32, ns that are added to it
  PREFIX: 106, // bytes: of extended attributes those whose names begin so
  ATTRIBUTE: 107, // name, NUL, value of an extended attribute, repeated
  LAYER: 103, // u8 1: a layer of a container image; `.wh.` names delete
  // tunnel and system
  PORT: 112, // u16
  HOST: 113, // text, default 127.0.0.1
  MEMORY_TOTAL: 114, // u64 bytes
  MEMORY_FREE: 115, // u64 bytes, available
  DISK_TOTAL: 116, // u64 bytes
  DISK_FREE: 117, // u64 bytes
  CPUS: 118, // u16
  LOAD: 119, // u32, load average x 1000
  MINOR_FAULTS: 120, // u64, of the agent itself
  NOW: 121, // u64 ns since 1970, the guest's wall clock
  KERNEL: 122, // text
  CPU_NS: 123, // u64, busy time of all CPUs
  COMMANDS: 124, // u16, that run, or have left something running
  // volumes
  SLOT: 125, // u8, which of the machine's spare disks, from 0
  READ_ONLY: 126, // u8
  PROBE: 127, // u8 1: nobody has told the guest's kernel of the disk's size; its driver must look anew
  NAME: 128, // text, for errors
  FORCE: 129, // u8 1: whatever holds it loses it
  BENEATH: 130, // u8 1: where a file is mounted on a name, the one below it is written
  // bare guest only
  BLOCK_DRIVE: 240, // u8
  BLOCK_SECTOR: 241, // u64
} as const;

/** A frame as it is on the wire, decoded. `payload` may be a view of a larger buffer: copy it to keep it. */
export interface Frame {
  type: number;
  channel: number;
  flags: number;
  stream: number;
  payload: Uint8Array;
}

/** The bytes of one frame. @param sequence the sender's frame counter, modulo 2^32 */
export function encodeFrame(frame: Frame, sequence: number): Buffer {
  const { payload } = frame;
  if (payload.length > MAX_PAYLOAD)
    throw new RangeError(`payload of ${payload.length} bytes, the limit is ${MAX_PAYLOAD}`);
  const out = Buffer.allocUnsafe(HEADER_BYTES + payload.length + TRAILER_BYTES);
  out[0] = MAGIC;
  out[1] = frame.type;
  out[2] = frame.channel;
  out[3] = frame.flags;
  out.writeUInt32LE(frame.stream, 4);
  out.writeUInt32LE(payload.length, 8);
  out.writeUInt32LE(sequence >>> 0, 12);
  const check = crc32(out.subarray(0, 16));
  out.writeUInt32LE(check, 16);
  out.set(payload, HEADER_BYTES);
  out.writeUInt32LE(~check >>> 0, HEADER_BYTES + payload.length);
  return out;
}

/** Builds a payload of fields. */
export class FieldWriter {
  readonly #parts: Uint8Array[] = [];

  bytes(tag: number, value: Uint8Array): this {
    const head = Buffer.allocUnsafe(5);
    head[0] = tag;
    head.writeUInt32LE(value.length, 1);
    this.#parts.push(head, value);
    return this;
  }

  text(tag: number, value: string | undefined): this {
    return value === undefined ? this : this.bytes(tag, nameBytes(value));
  }

  u8(tag: number, value: number | undefined): this {
    return value === undefined ? this : this.bytes(tag, Uint8Array.of(value));
  }

  u16(tag: number, value: number | undefined): this {
    if (value === undefined) return this;
    const b = Buffer.allocUnsafe(2);
    b.writeUInt16LE(value);
    return this.bytes(tag, b);
  }

  u32(tag: number, value: number | undefined): this {
    if (value === undefined) return this;
    const b = Buffer.allocUnsafe(4);
    b.writeUInt32LE(value);
    return this.bytes(tag, b);
  }

  u64(tag: number, value: bigint | number | undefined): this {
    if (value === undefined) return this;
    const b = Buffer.allocUnsafe(8);
    b.writeBigUInt64LE(BigInt(value));
    return this.bytes(tag, b);
  }

  flag(tag: number, value: boolean | undefined): this {
    return value === true ? this.u8(tag, 1) : this;
  }

  fields(tag: number, value: FieldWriter): this {
    return this.bytes(tag, value.finish());
  }

  finish(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

/**
 * Reads a payload of fields. Values are views of the payload. Nothing is kept per field: a frame may hold thousands.
 * @throws StacyError `protocol`
 */
export class FieldReader {
  readonly #view: Buffer;

  constructor(payload: Uint8Array) {
    const view = Buffer.from(payload.buffer, payload.byteOffset, payload.length);
    let count = 0;
    for (let at = 0; at < view.length; ) {
      if (view.length - at < FIELD_HEAD_BYTES) throw new StacyError("protocol", "a field is cut off");
      const length = view.readUInt32LE(at + 1);
      if (length > view.length - at - FIELD_HEAD_BYTES)
        throw new StacyError("protocol", `field ${view.readUInt8(at)} passes the end of its frame`);
      if (++count > GUEST_BOUNDS.fields) throw new StacyError("protocol", "too many fields in one frame");
      at += FIELD_HEAD_BYTES + length;
    }
    this.#view = view;
  }

  all(tag: number): Buffer[] {
    const values: Buffer[] = [];
    for (let at = this.#find(tag, 0); at !== undefined; at = this.#find(tag, this.#end(at)))
      values.push(this.#value(at));
    return values;
  }

  bytes(tag: number): Buffer | undefined {
    const at = this.#find(tag, 0);
    return at === undefined ? undefined : this.#value(at);
  }

  #find(tag: number, from: number): number | undefined {
    for (let at = from; at < this.#view.length; at = this.#end(at)) if (this.#view[at] === tag) return at;
    return undefined;
  }

  #end(at: number): number {
    return at + FIELD_HEAD_BYTES + this.#view.readUInt32LE(at + 1);
  }

  #value(at: number): Buffer {
    return this.#view.subarray(at + FIELD_HEAD_BYTES, this.#end(at));
  }

  text(tag: number): string | undefined {
    const bytes = this.bytes(tag);
    return bytes === undefined ? undefined : nameText(bytes);
  }

  bigint(tag: number): bigint | undefined {
    const b = this.bytes(tag);
    if (b === undefined) return undefined;
    if (b.length === 8) return b.readBigUInt64LE();
    if (b.length === 4) return BigInt(b.readUInt32LE());
    if (b.length === 2) return BigInt(b.readUInt16LE());
    if (b.length === 1) return BigInt(b.readUInt8());
    throw new StacyError("protocol", `field ${tag} is not a number: ${b.length} bytes`);
  }

  /** What is beyond 2^53 is the largest safe integer: a file's size may be claimed, and must not break arithmetic or headers. */
  number(tag: number): number | undefined {
    const value = this.bigint(tag);
    if (value === undefined) return undefined;
    return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value);
  }

  flag(tag: number): boolean {
    return (this.number(tag) ?? 0) !== 0;
  }

  fields(tag: number): FieldReader[] {
    return this.all(tag).map((value) => new FieldReader(value));
  }
}
