/**
 * What each method takes and answers, in tags of protocol.ts (`?` optional, `*` repeated), and the functions that
 * build and read those fields. END of every method begins with STATUS; a failure adds MESSAGE and ERRNO.
 *
 *     method     OPEN                                              host then sends   agent answers
 *     EXEC       ARGV* ENV* CWD? USER? TIMEOUT_MS? SIGNAL?         DATA = stdin,     EVENT PROCESS_ID PID; DATA stdout and
 *                GRACE_MS? STDIN? PTY{ROWS COLS TERM?}?            FIN; CTRL SIGNAL  stderr; END EXIT_CODE REASON SIGNAL?
 *                RING_BYTES? KEEP? DETACHED? UNTIL_CLOSED? NOTE?   GROUP? or ROWS
 *                                                                  COLS
 *     ATTACH     PROCESS_ID TIMES?                                 as EXEC           EVENT PROCESS_ID PID OUTPUT; EVENT LOST?; then
 *                                                                                    as EXEC, with TIMES behind EVENT* TIME OFFSET
 *     PROCESSES                                                                      EVENT* PROCESS{PROCESS_ID PID COMMAND
 *                                                                                    START_TIME RUNNING DETACHED NOTE? EXIT_CODE? REASON? SIGNAL?}
 *     SIGNAL     PROCESS_ID SIGNAL GROUP?
 *     READ       PATH OFFSET? LENGTH? FOLLOW=1                                          EVENT <stat>; DATA
 *     WRITE      PATH MODE? OFFSET? APPEND? ATOMIC? EXCLUSIVE?     DATA, FIN         END SIZE
 *                PARENTS? USER? FOLLOW=1
 *     STAT       PATH FOLLOW=1 PREFIX?                                               END <stat>
 *     LIST       PATH RECURSIVE? DEPTH? FOLLOW=0 PREFIX?                             DATA = ENTRY{<stat>}*
 *     GLOB       PATTERN CWD?                                                        DATA = PATH*
 *     MOVE       PATH TO
 *     COPY       PATH TO RECURSIVE? FOLLOW=0
 *     CHMOD      PATH MODE RECURSIVE? FOLLOW=1
 *     MARK       PATH PREFIX ATTRIBUTE*: with that prefix                              END: the file has these and no others
 *     DELETE     PATH RECURSIVE?
 *     MKDIR      PATH PARENTS? MODE?
 *     TAR_OUT    PATH FOLLOW=0, or LAYER: what the root differs                      DATA = the archive
 *                from the base in, as an image's layer
 *     TAR_IN     PATH LAYER? BENEATH?                              DATA, FIN         END
 *     WATCH      PATH RECURSIVE?                                                     EVENT (empty: it watches), then
 *                                                                                    EVENT* CHANGE PATH TO?; ends by CANCEL
 *     TUNNEL     PORT HOST?                                        DATA, FIN         EVENT (empty: connected); DATA, FIN; END
 *     ACCEPT     PORT                                              DATA, FIN         EVENT (empty: here it is); then as TUNNEL
 *     INTERCEPT                                                    DATA, FIN         EVENT HOST PORT; then as TUNNEL
 *     DATAGRAMS                                                    DATA = answers    DATA = questions
 *     INFO                                                                           END KERNEL CPUS LOAD MEMORY_* DISK_*
 *                                                                                    CPU_NS NOW MINOR_FAULTS UPTIME COMMANDS
 *     SYNC, SHUTDOWN, FREEZE, THAW, EXERCISE                                         END
 *     MOUNT      SLOT SIZE PATH NAME READ_ONLY? PROBE?                               END
 *     STILL      writes to volumes wait until THAW, 60 s at most                     END: what was written is on their disks
 *     UNMOUNT    SLOT PATH NAME FORCE?                                               END: what was written is on its disk
 *     REMOUNT    SLOT PATH NAME                                                      END: nothing can be written to it
 *     SHARE      PATH READ_ONLY? TIMEOUT_MS?                                         END UID GID: whom the host's files belong to
 *     SERVE      PATH                                              DATA = answers    EVENT (empty: from now on); DATA = FUSE requests
 *     UNSHARE    PATH*: those that stay                                              END
 *     IDENTITY   IDENTITY{...}                                                       END as HELLO_ACK
 *     CONSOLE                                                                        DATA = the kernel's log
 *
 *     <stat> = PATH KIND SIZE MODE UID GID MTIME_S MTIME_NS NLINK INODE TARGET? ATTRIBUTE*, where PREFIX was given
 */
import { StacyError } from "../host/error.ts";
import type {
  ExecOptions,
  ExitStatus,
  FileChange,
  FileStat,
  GuestInfo,
  HelloInfo,
  Identity,
  ProcessInfo,
  ReadOptions,
  WriteOptions,
} from "./agent.ts";
import { type FieldReader, FieldWriter, Tag } from "./protocol.ts";

export const NS_PER_MS = 1_000_000n;
/** Where the agent takes questions for names (agent/src/intercept.rs). */
const NAME_SERVER = "127.0.0.53";

/** The host's wall clock is read here, at the last moment. */
export function identityFields(identity: Identity): FieldWriter {
  if (identity.entropy.length < 32) throw new StacyError("invalid", "an identity needs at least 32 bytes of entropy");
  const fields = new FieldWriter()
    .bytes(Tag.ENTROPY, identity.entropy.subarray(0, 256))
    .text(Tag.HOSTNAME, identity.hostname)
    .text(Tag.SANDBOX_ID, identity.sandboxId)
    .text(Tag.MACHINE_ID, identity.machineId)
    .text(Tag.BOOT_ID, identity.bootId);
  environment(fields, identity.env);
  fields.text(Tag.CWD, identity.cwd).text(Tag.USER, identity.user);
  const dns = identity.network === true ? [NAME_SERVER] : (identity.dns ?? []);
  for (const server of dns) fields.text(Tag.DNS, /^[0-9a-f.:]+$/i.test(server) ? `nameserver ${server}` : server);
  fields.flag(Tag.NETWORK, identity.network);
  return fields.flag(Tag.THAW_AFTER, identity.thaw).u64(Tag.CLOCK, BigInt(Date.now()) * NS_PER_MS);
}

function environment(fields: FieldWriter, env: Record<string, string> | undefined): void {
  for (const [name, value] of Object.entries(env ?? {})) {
    if (name === "" || name.includes("=") || name.includes("\0") || value.includes("\0"))
      throw new StacyError("invalid", `not a valid environment variable: ${JSON.stringify(name)}`);
    fields.text(Tag.ENV, `${name}=${value}`);
  }
}

export function helloInfo(fields: FieldReader): HelloInfo {
  return {
    protocol: need(fields, Tag.VERSION),
    agent: fields.text(Tag.AGENT) ?? "",
    guest: fields.text(Tag.GUEST) === "bare" ? "bare" : "linux",
    generation: fields.number(Tag.GENERATION) ?? 0,
    uptimeNs: fields.bigint(Tag.UPTIME) ?? 0n,
  };
}

export function execFields(options: ExecOptions): FieldWriter {
  const fields = new FieldWriter();
  for (const argument of options.argv) fields.text(Tag.ARGV, argument);
  environment(fields, options.env);
  fields
    .text(Tag.CWD, options.cwd)
    .text(Tag.USER, options.user)
    .u32(Tag.TIMEOUT_MS, limited(options.timeoutMs))
    .u8(Tag.SIGNAL, options.stopSignal)
    .u32(Tag.GRACE_MS, limited(options.graceMs))
    .flag(Tag.STDIN, options.stdin !== undefined && options.stdin !== false)
    .u32(Tag.RING_BYTES, limited(options.ringBytes))
    .flag(Tag.DETACHED, options.detached)
    .flag(Tag.UNTIL_CLOSED, options.untilClosed)
    .text(Tag.NOTE, options.note);
  if (options.pty !== undefined) fields.fields(Tag.PTY, sizeFields(options.pty).text(Tag.TERM, options.pty.term));
  return fields;
}

/** A duration or a size as a u32: too much is the most. */
function limited(value: number | undefined): number | undefined {
  return value === undefined ? undefined : Math.min(Math.max(0, Math.ceil(value)), 0xffff_ffff);
}

export function sizeFields(size: { rows: number; cols: number }): FieldWriter {
  return new FieldWriter().u16(Tag.ROWS, clampSize(size.rows)).u16(Tag.COLS, clampSize(size.cols));
}

function clampSize(value: number): number {
  return Math.min(Math.max(1, Math.trunc(value)), 0xffff);
}

const REASONS: Record<number, ExitStatus["reason"]> = { 1: "timeout", 2: "cancelled", 3: "out-of-memory" };

export function exitStatus(fields: FieldReader): ExitStatus {
  const signal = fields.number(Tag.SIGNAL);
  const reason = fields.number(Tag.REASON) ?? 0;
  return {
    exitCode: need(fields, Tag.EXIT_CODE),
    ...(signal === undefined ? {} : { signal }),
    reason: REASONS[reason] ?? "exited",
  };
}

export function processInfo(fields: FieldReader): ProcessInfo {
  const running = fields.flag(Tag.RUNNING);
  const note = fields.text(Tag.NOTE);
  return {
    id: (fields.bigint(Tag.PROCESS_ID) ?? 0n).toString(),
    pid: need(fields, Tag.PID),
    command: fields.text(Tag.COMMAND) ?? "",
    startedAt: Number((fields.bigint(Tag.START_TIME) ?? 0n) / NS_PER_MS),
    running,
    ...(note === undefined ? {} : { note }),
    ...(fields.number(Tag.DETACHED) === undefined ? {} : { detached: fields.flag(Tag.DETACHED) }),
    ...(running ? {} : { exit: exitStatus(fields) }),
  };
}

export function processId(id: string): bigint {
  if (!/^\d{1,19}$/.test(id)) throw new StacyError("invalid", `not the id of a command: ${JSON.stringify(id)}`);
  return BigInt(id);
}

export function pathFields(path: string, to?: string): FieldWriter {
  for (const p of [path, to]) {
    if (p === "" || p?.includes("\0")) throw new StacyError("invalid", `not a valid path: ${JSON.stringify(p)}`);
  }
  return new FieldWriter().text(Tag.PATH, path).text(Tag.TO, to);
}

/** FOLLOW is only said where the caller decided: each method has its own default. */
export function followFields(path: string, options: { follow?: boolean }, to?: string): FieldWriter {
  const { follow } = options;
  return pathFields(path, to).u8(Tag.FOLLOW, follow === undefined ? undefined : Number(follow));
}

export function readFields(path: string, options: ReadOptions): FieldWriter {
  return followFields(path, options).u64(Tag.OFFSET, options.offset).u64(Tag.LENGTH, options.length);
}

export function writeFields(path: string, options: WriteOptions): FieldWriter {
  const atomic = options.atomic ?? (options.append !== true && options.offset === undefined);
  return followFields(path, options)
    .u32(Tag.MODE, options.mode)
    .u64(Tag.OFFSET, options.offset)
    .flag(Tag.APPEND, options.append)
    .flag(Tag.ATOMIC, atomic)
    .flag(Tag.EXCLUSIVE, options.exclusive)
    .flag(Tag.PARENTS, true);
}

const KINDS = { 1: "file", 2: "directory", 3: "symlink", 4: "other" } as const;

export function fileStat(fields: FieldReader): FileStat {
  const target = fields.text(Tag.TARGET);
  return {
    path: fields.text(Tag.PATH) ?? "",
    kind: KINDS[need(fields, Tag.KIND) as keyof typeof KINDS] ?? "other",
    size: need(fields, Tag.SIZE),
    mode: fields.number(Tag.MODE) ?? 0,
    uid: fields.number(Tag.UID) ?? 0,
    gid: fields.number(Tag.GID) ?? 0,
    mtimeMs: mtimeMs(fields),
    ...(target === undefined ? {} : { target }),
    ...attributesOf(fields.all(Tag.ATTRIBUTE)),
  };
}

/** What programs wrote into them is text by agreement alone. */
function attributesOf(told: readonly Buffer[]): Pick<FileStat, "attributes"> {
  if (told.length === 0) return {};
  const pairs = told.map((each) => {
    const cut = each.indexOf(0);
    if (cut < 0) throw new StacyError("protocol", "an attribute without a value");
    return [each.toString("utf8", 0, cut), each.toString("utf8", cut + 1)] as const;
  });
  return { attributes: Object.fromEntries(pairs) };
}

/** @param attributes their names begin with `prefix`. @throws StacyError `invalid` */
export function markFields(path: string, prefix: string, attributes: Readonly<Record<string, string>>): FieldWriter {
  const fields = pathFields(path).text(Tag.PREFIX, prefix);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.includes("\0")) throw new StacyError("invalid", `not the name of an attribute: ${JSON.stringify(name)}`);
    fields.bytes(Tag.ATTRIBUTE, Buffer.from(`${name}\0${value}`));
  }
  return fields;
}

/** To the microsecond, which is what a number of ms has room for. */
function mtimeMs(fields: FieldReader): number {
  const seconds = fields.bigint(Tag.MTIME_S);
  if (seconds === undefined) return Number((fields.bigint(Tag.MTIME) ?? 0n) / 1000n) / 1000;
  const micros = Math.floor((fields.number(Tag.MTIME_NS) ?? 0) / 1000);
  return (Number(BigInt.asIntN(64, seconds)) * 1_000_000 + micros) / 1000;
}

const CHANGES: Record<number, FileChange> = { 1: "create", 2: "modify", 3: "delete", 4: "rename", 5: "overflow" };

export function fileChange(fields: FieldReader): { change: FileChange; path: string; to?: string } {
  const to = fields.text(Tag.TO);
  return {
    change: CHANGES[need(fields, Tag.CHANGE)] ?? "overflow",
    path: fields.text(Tag.PATH) ?? "",
    ...(to === undefined ? {} : { to }),
  };
}

/** Where a program wanted to connect to. @throws StacyError `protocol` */
export function destination(fields: FieldReader): { address: string; port: number } {
  const bytes = fields.bytes(Tag.HOST);
  const port = need(fields, Tag.PORT);
  if (bytes?.length === 4) return { address: bytes.join("."), port };
  if (bytes?.length !== 16) throw new StacyError("protocol", "the guest's answer lacks an address");
  const groups = Array.from({ length: 8 }, (_, at) => bytes.readUInt16BE(2 * at).toString(16));
  return { address: new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1), port };
}

export function guestInfo(fields: FieldReader): GuestInfo {
  return {
    kernel: fields.text(Tag.KERNEL) ?? "",
    cpus: fields.number(Tag.CPUS) ?? 0,
    load: (fields.number(Tag.LOAD) ?? 0) / 1000,
    memoryTotalBytes: fields.number(Tag.MEMORY_TOTAL) ?? 0,
    memoryAvailableBytes: fields.number(Tag.MEMORY_FREE) ?? 0,
    diskTotalBytes: fields.number(Tag.DISK_TOTAL) ?? 0,
    diskFreeBytes: fields.number(Tag.DISK_FREE) ?? 0,
    cpuNs: fields.bigint(Tag.CPU_NS) ?? 0n,
    nowMs: Number((fields.bigint(Tag.NOW) ?? 0n) / NS_PER_MS),
    minorFaults: fields.number(Tag.MINOR_FAULTS) ?? 0,
    commands: fields.number(Tag.COMMANDS) ?? 0,
  };
}

function need(fields: FieldReader, tag: number): number {
  const value = fields.number(tag);
  if (value === undefined) throw new StacyError("protocol", `the guest's answer lacks field ${tag}`);
  return value;
}
