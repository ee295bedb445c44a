/**
 * What comes from outside (guests, registries, archives, clients' archives) is bounded in bytes, in number, in time and in the work
 * that the event loop does for it at a stretch. This is the one place for these numbers; every decoder takes them from here, and
 * docs/security.md lists them (a test holds the two equal).
 */

const KIB = 1024;
const MIB = 1024 * KIB;

/** One guest, on its channel. */
export const GUEST_BOUNDS = {
  /** For a guest's program to take what was sent to it before its connection's end, and to close its side, ms. */
  lingerMs: 5_000,
  /** Connections that wait for that at once; of others is cut what was not taken. */
  lingering: 256,
  /** Work on a guest's frames before others have their turn, ms. */
  turnMs: 1,
  /** What comes before the answer to a greeting: the rest of an earlier session's calls. */
  huntBytes: 16 * MIB,
  /** Fields in one frame. */
  fields: 4096,
  /** What a call may ask in fields, bytes: above what Linux takes as arguments and environment (2 MiB). */
  requestBytes: 4 * MIB,
  /** Bytes of the words of a guest's error. */
  errorBytes: 1 * KIB,
  /** A file that is read whole, bytes; larger ones are streams. */
  fileBytes: 256 * MIB,
  /** Output that is collected for one command, stdout and stderr together, bytes. */
  outputBytes: 64 * MIB,
  /** Everything that is being collected for calls to one guest at a time, bytes. */
  collectedBytes: 512 * MIB,
  /** Entries of one listing or search. */
  listEntries: 100_000,
  /** Bytes of one listing or search. */
  listBytes: 32 * MIB,
  /** What an entry costs beside its bytes. */
  entryOverheadBytes: 256,
  /** The kernel's log, bytes. */
  consoleBytes: 4 * MIB,
  /** Commands that it lists, and the bytes of that list. */
  processes: 4096,
  processBytes: 4 * MIB,
  /** Changes that a watch keeps for a consumer that does not keep up, bytes. */
  watchBytes: 4 * MIB,
  /** Bytes on their way to a guest that does not read: bodies wait at the first, the session ends at the second. */
  outHighBytes: 1 * MIB,
  outLimitBytes: 64 * MIB,
  /** Calls that do no work in the guest, ms. */
  quickMs: 30_000,
  /** One operation on one file, ms. */
  fileMs: 60_000,
  /** An operation on a tree: a search, a listing, a copy, ms. */
  treeMs: 10 * 60_000,
  /** Input of which a program takes nothing, ms, where a client sends it in a request. */
  inputMs: 60_000,
  /** All such input that waits, and all bodies of requests that are read whole, bytes, of which one owner has half at most; of each call the first are not counted. */
  inputBytes: 256 * MIB,
  inputFreeBytes: 64 * KIB,
  /** From a CANCEL to the end of a call that is not a command, ms. */
  cancelMs: 10_000,
  /** From a question, before a limit is over, to the end of a channel over which nothing at all came since, ms. */
  answerMs: 10_000,
  /** Calls whose END is missing after that time; one more is the end of the session. */
  lostCalls: 256,
} as const;

/** A machine's monitor, which its guest may have taken over. */
export const MONITOR_BOUNDS = {
  /** Of QEMU's monitor, one line; of Firecracker's API, one answer. */
  answerBytes: 64 * KIB,
  /** Its words for what it refuses. */
  errorBytes: 1 * KIB,
  /** What it saves beside the memory: devices, some 60 KB as a rule. No file that it writes in QEMU's cell or the jailer's jail grows beyond memory and this, or its disk. */
  stateBytes: 64 * MIB,
} as const;

/** JSON that this process reads. */
export const JSON_BOUNDS = {
  /** Lists and objects within one another: far more than any document has, and far below what overflows the parser. */
  levels: 1_000,
  /** What a client sends: lists, objects, and commas, which is what takes time to read. Of protobuf: fields. */
  clientValues: 200_000,
} as const;

/** `console.log` of a machine, which its guest writes, and `vmm.log`: cut when it passes `mostBytes`, looked at every `everyMs`. */
export const CONSOLE_BOUNDS = {
  mostBytes: 1 * MIB,
  keptBytes: 256 * KIB,
  everyMs: 2_000,
} as const;

/** What the programs of one sandbox send to hosts without a connection. */
export const DATAGRAM_BOUNDS = {
  /** UDP that waits while names are looked up, or for room in a socket, bytes; and as much again of echoes that wait for an answer. */
  heldBytes: 256 * KIB,
  /** What one that waits costs beside its bytes. */
  overheadBytes: 256,
  /** Hosts that are being asked for an echo, or were a second ago. */
  echoHosts: 8,
  /** Processes that ask for one, of all sandboxes together; one sandbox has no more than are free. */
  pings: 16,
} as const;

/** A machine's disk and saved memory, which its guest lays out as it likes. */
export const DISK_BOUNDS = {
  /** Places with data that are remembered of one file; of more, neighbours count as one, with the zeros between them. */
  extents: 1_024,
  /** Holes below that are read and written with what is around them, bytes: a call for each piece costs more. */
  holeBytes: 64 * KIB,
  /** What is read, looked through and hashed at a stretch, bytes. */
  turnBytes: 256 * KIB,
  /** Pieces of one disk that are written at a time. */
  writes: 64,
} as const;

/** What drivers of the code interpreter, and programs of the guest in their place, say. */
export const INTERPRETER_BOUNDS = {
  /** One event: a picture in base64 and what belongs to it, bytes. */
  eventBytes: 16 * MIB,
  /** Of it outside of its strings, bytes, and the quotes in all: what takes time to read. */
  structureBytes: 1 * MIB,
  quotes: 400_000,
} as const;

/** What one owner may leave in the server: it is kept in memory until it is removed. */
export const OWNER_BOUNDS = {
  templates: 500,
  secrets: 500,
  /** Names and values of a sandbox's metadata together. */
  metadataBytes: 64 * KIB,
} as const;

/** What E2B's clients are given of a guest, beside what its calls are bounded to. */
export const E2B_BOUNDS = {
  /** A call that carries no input of a process: arguments and environment, as much as a guest's call may ask. */
  callBytes: 4 * MIB,
  /** A message with input of a process. In JSON it is base64, which takes a while to read: a client sends more in several. */
  inputBytes: 16 * MIB,
  /** Files in one form, and how many of them are written at a time. */
  formFiles: 10_000,
  formAtOnce: 8,
  /** Entries of one directory, and its links, each of which is looked up. */
  entries: 20_000,
  links: 2_000,
  /** The image's users and groups, bytes of each file. */
  userBytes: 128 * KIB,
  /** Of them the first so many lines. */
  users: 4_096,
  /** Changes that all watchers of one sandbox keep for clients that come for them, bytes. */
  watchedBytes: 4 * MIB,
  /** Logs of all builds of one owner that are remembered, bytes. */
  logBytes: 16 * MIB,
  /** Archives of one owner's templates that are kept; their bytes together are a build's (`contentBytes`). */
  templateFiles: 10_000,
} as const;

/** One registry, its token server and the hosts that it sends us to. */
export const REGISTRY_BOUNDS = {
  /** Of the body of an error; the rest is not read. */
  errorBytes: 16 * KIB,
  /** A manifest or a configuration, and a token. */
  documentBytes: 4 * MIB,
  tokenBytes: 1 * MIB,
  /** Images of an index or an archive, layers of one, and entries of any other list or table in these documents. */
  images: 10_000,
  layers: 1_000,
  documentEntries: 10_000,
  /** A document or a token as a whole, ms. */
  documentMs: 2 * 60_000,
  /** A layer that comes more slowly on the average, after the first minute, is given up; bytes a second. */
  leastBytesPerSecond: 4 * KIB,
  redirects: 5,
} as const;

/** An archive of an image or of a build's files, beside the bytes of its content (`images.max_image_bytes`, `images.max_image_entries`). */
export const ARCHIVE_BOUNDS = {
  /** Of names, targets of links and attributes, which are kept in memory. */
  nameBytes: 256 * MIB,
  /**
   * What the files of one image take in memory while its disk is made, or a quarter of what Node may have where that is less: each so
   * much beside its names, each attribute so much beside its bytes.
   */
  treeBytes: 512 * MIB,
  entryBytes: 512,
  attributeBytes: 256,
  /** Disks of images that are made at a time; one owner has half of them. */
  disksAtOnce: 2,
} as const;

/** What a build is told to do, and the files that it may copy. */
export const BUILD_BOUNDS = {
  /** Of the files: names, those of directories that none of them names too, and their content. */
  entries: 1_000_000,
  /**
   * What all builds that run at a time keep of names, those of images that they copy from too, or a quarter of what Node may have where
   * that is less; one owner has half at most. Each name costs so much beside its letters.
   */
  nameBytes: 512 * MIB,
  entryBytes: 512,
  /** Files that one copy means, however many links lead to them. */
  copied: 500_000,
  contentBytes: 16 * 1024 * MIB,
  /** Directories in one another. */
  depth: 256,
  planBytes: 256 * KIB,
  /** The same of our own form: reading YAML takes its time. */
  declarativeBytes: 64 * KIB,
  /** Characters that a Dockerfile's variables become and its steps repeat, and places that its patterns are held against. */
  work: 4 * MIB,
  stages: 256,
  /** Of a stage. */
  steps: 1_000,
  ignoreRules: 10_000,
  /** Of a rule of what is ignored, and of a name that is copied. */
  patternWildcards: 64,
  /** Of one that has a wildcard: what it is held against costs up to so much for each letter. */
  patternLetters: 512,
  /** Of a file's path, as Linux has it. */
  pathLetters: 4_096,
} as const;

/** A tree that is copied out of a sandbox to this host. */
export const UNPACK_BOUNDS = {
  entries: 1_000_000,
  /** Of names and targets, which are kept until the end. */
  nameBytes: 256 * MIB,
  /** Directories in one another. */
  depth: 256,
} as const;

/** Another node of the fleet, of which this one trusts what it says, and not how much of it. */
export const FLEET_BOUNDS = {
  /** A question: the pieces of an offered machine are in it, 120 bytes for each 256 KiB of data. */
  questionBytes: 64 * MIB,
} as const;
