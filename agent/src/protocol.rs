//! The wire format between host and guest agent, version 1, as the agent keeps it. The same page opens
//! `src/guest/protocol.ts`; the vectors in `test/vectors/` are checked by both.
//!
//! One byte stream carries frames. All integers are little-endian.
//!
//! ```text
//!  0       1       2       3       4               8               12              16              20
//!  +-------+-------+-------+-------+---------------+---------------+---------------+---------------+----
//!  | magic | type  | chan  | flags | stream        | length        | sequence      | check         | payload ...
//!  | 0xA7  |       |       |       |               | 0..65536      |               |               |
//!  +-------+-------+-------+-------+---------------+---------------+---------------+---------------+----
//!                                                                    payload ... | trailer (4 bytes) |
//! ```
//!
//! - `chan`: of DATA 0 = body or stdin, 1 = stdout, 2 = stderr; otherwise 0.
//! - `flags`: bit 0 FIN, no more DATA in this direction of this stream; other bits 0.
//! - `stream`: 0 = the connection; else the number of a call, given by the host, never used twice in a session.
//! - `sequence`: counts the frames of one direction from 0 (HELLO, HELLO_ACK), wrapping. A gap is a violation.
//! - `check`: CRC-32 (zlib) of the 16 bytes before it; `trailer`: its complement, so a cut frame does not pass.
//!
//! HELLO may come at any time and begins a new session: streams of the old one are forgotten, output not yet sent is
//! dropped. Out of step (bad header, bad trailer, gap) the agent hunts: it drops bytes until 20 of them are a valid
//! header of type HELLO with sequence 0.
//!
//! ACCEPT hands the host a connection that a program of the guest opens to `127.0.0.1:PORT`. Such calls wait in order; an
//! empty EVENT says that the call has its connection, and from then on the stream is a tunnel's. What comes while no call
//! waits stays in the kernel's backlog, also from one session to the next; an identity of another sandbox closes the port.
//! INTERCEPT does the same for connections to any address, while the identity has NETWORK: its EVENT says HOST (4 or 16 bytes) and
//! PORT that the program asked for. DATAGRAMS takes UDP and ICMP echo to any address (format: datagrams.rs).
//!
//! Structured payloads are fields: tag (u8), length (u32), value. Numbers are 1, 2, 4 or 8 bytes. Unknown tags are
//! skipped.

pub const VERSION: u16 = 1;
pub const PORT: u32 = 1024;
/// Where the host's sentinel connects (sentinel.rs).
pub const SENTINEL_PORT: u32 = 1025;
pub const MAGIC: u8 = 0xA7;
pub const HEADER: usize = 20;
pub const TRAILER: usize = 4;
pub const MAX_PAYLOAD: usize = 65_536;
pub const MAX_FRAME: usize = HEADER + MAX_PAYLOAD + TRAILER;
pub const INITIAL_CREDIT: u64 = 262_144;
/// What a stream that carries much may have under way beyond the usual: keeps the channel full.
pub const EXTRA_CREDIT: usize = 786_432;
/// Credit is given back in pieces of at least this many bytes: each costs a frame, and the host has enough left meanwhile.
pub const GRANT_STEP: usize = 98_304;
pub const WIDE_GRANT_STEP: usize = 393_216;
pub const MAX_PING: usize = 64;

pub const FLAG_FIN: u8 = 1;

pub mod kind {
    pub const HELLO: u8 = 1;
    pub const HELLO_ACK: u8 = 2;
    pub const OPEN: u8 = 3;
    pub const DATA: u8 = 4;
    pub const CREDIT: u8 = 5;
    pub const EVENT: u8 = 6;
    pub const END: u8 = 7;
    pub const CTRL: u8 = 8;
    pub const CANCEL: u8 = 9;
    pub const PING: u8 = 10;
    pub const PONG: u8 = 11;
    pub const FAULT: u8 = 12;
}

pub mod channel {
    pub const BODY: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
}

pub mod status {
    pub const OK: u8 = 0;
    pub const NOT_FOUND: u8 = 1;
    pub const IS_DIRECTORY: u8 = 2;
    pub const NOT_DIRECTORY: u8 = 3;
    pub const PERMISSION: u8 = 4;
    pub const NO_SPACE: u8 = 5;
    pub const EXISTS: u8 = 6;
    pub const INVALID: u8 = 7;
    pub const NOT_SUPPORTED: u8 = 8;
    pub const CANCELLED: u8 = 9;
    pub const LIMIT: u8 = 10;
    pub const IO: u8 = 11;
    pub const TIMEOUT: u8 = 12;
    pub const NO_PROCESS: u8 = 13;
    pub const REFUSED: u8 = 14;
    pub const BUSY: u8 = 15;
    pub const NOT_EMPTY: u8 = 16;
    pub const PROTOCOL: u8 = 17;
    pub const TOO_LARGE: u8 = 18;
}

pub mod method {
    pub const EXEC: u16 = 1;
    pub const ATTACH: u16 = 2;
    pub const PROCESSES: u16 = 3;
    pub const SIGNAL: u16 = 4;
    pub const READ: u16 = 16;
    pub const WRITE: u16 = 17;
    pub const STAT: u16 = 18;
    pub const LIST: u16 = 19;
    pub const GLOB: u16 = 20;
    pub const MOVE: u16 = 21;
    pub const COPY: u16 = 22;
    pub const CHMOD: u16 = 23;
    pub const DELETE: u16 = 24;
    pub const MKDIR: u16 = 25;
    pub const TAR_OUT: u16 = 26;
    pub const TAR_IN: u16 = 27;
    pub const WATCH: u16 = 28;
    pub const MARK: u16 = 29;
    pub const TUNNEL: u16 = 48;
    pub const ACCEPT: u16 = 49;
    pub const INTERCEPT: u16 = 50;
    pub const DATAGRAMS: u16 = 52;
    pub const INFO: u16 = 64;
    pub const SYNC: u16 = 65;
    pub const SHUTDOWN: u16 = 66;
    pub const IDENTITY: u16 = 67;
    pub const FREEZE: u16 = 68;
    pub const THAW: u16 = 69;
    pub const EXERCISE: u16 = 70;
    pub const CONSOLE: u16 = 71;
    pub const MOUNT: u16 = 72;
    pub const STILL: u16 = 73;
    pub const UNMOUNT: u16 = 74;
    pub const REMOUNT: u16 = 75;
    pub const SHARE: u16 = 76;
    pub const SERVE: u16 = 77;
    pub const UNSHARE: u16 = 78;
}

/// One number means the same in every payload.
pub mod tag {
    pub const VERSION_MIN: u8 = 1;
    pub const VERSION_MAX: u8 = 2;
    pub const VERSION: u8 = 3;
    pub const NONCE: u8 = 4;
    pub const IDENTITY: u8 = 5;
    pub const AGENT: u8 = 6;
    pub const GUEST: u8 = 7;
    pub const GENERATION: u8 = 8;
    pub const UPTIME: u8 = 9;
    pub const CLOCK: u8 = 10;
    pub const ENTROPY: u8 = 11;
    pub const HOSTNAME: u8 = 12;
    pub const SANDBOX_ID: u8 = 13;
    pub const MACHINE_ID: u8 = 14;
    pub const BOOT_ID: u8 = 15;
    pub const ENV: u8 = 16;
    pub const CWD: u8 = 17;
    pub const USER: u8 = 18;
    pub const TIMEZONE: u8 = 19;
    pub const DNS: u8 = 20;
    pub const THAW_AFTER: u8 = 21;
    pub const NETWORK: u8 = 22;
    pub const STATUS: u8 = 32;
    pub const MESSAGE: u8 = 33;
    pub const ERRNO: u8 = 34;
    pub const ARGV: u8 = 48;
    pub const TIMEOUT_MS: u8 = 49;
    pub const GRACE_MS: u8 = 50;
    pub const STDIN: u8 = 51;
    pub const PTY: u8 = 52;
    pub const ROWS: u8 = 53;
    pub const COLS: u8 = 54;
    pub const TERM: u8 = 55;
    pub const PID: u8 = 56;
    pub const PROCESS_ID: u8 = 57;
    pub const EXIT_CODE: u8 = 58;
    pub const SIGNAL: u8 = 59;
    pub const REASON: u8 = 60;
    pub const COMMAND: u8 = 61;
    pub const START_TIME: u8 = 62;
    pub const RUNNING: u8 = 63;
    pub const RING_BYTES: u8 = 64;
    pub const PROCESS: u8 = 65;
    pub const KEEP: u8 = 66;
    pub const LOST: u8 = 67;
    pub const GROUP: u8 = 68;
    pub const FIELDS_LENGTH: u8 = 69;
    pub const TIMES: u8 = 70;
    pub const TIME: u8 = 71;
    pub const OUTPUT: u8 = 72;
    pub const DETACHED: u8 = 73;
    pub const UNTIL_CLOSED: u8 = 74;
    pub const NOTE: u8 = 75;
    pub const PATH: u8 = 80;
    pub const TO: u8 = 81;
    pub const MODE: u8 = 82;
    pub const OFFSET: u8 = 83;
    pub const LENGTH: u8 = 84;
    pub const SIZE: u8 = 85;
    pub const KIND: u8 = 87;
    pub const UID: u8 = 88;
    pub const GID: u8 = 89;
    pub const TARGET: u8 = 90;
    pub const ENTRY: u8 = 91;
    pub const RECURSIVE: u8 = 92;
    pub const DEPTH: u8 = 93;
    pub const FOLLOW: u8 = 94;
    pub const PARENTS: u8 = 95;
    pub const APPEND: u8 = 96;
    pub const ATOMIC: u8 = 97;
    pub const PATTERN: u8 = 98;
    pub const EXCLUSIVE: u8 = 99;
    pub const CHANGE: u8 = 100;
    pub const NLINK: u8 = 101;
    pub const INODE: u8 = 102;
    pub const LAYER: u8 = 103;
    pub const MTIME_S: u8 = 104;
    pub const MTIME_NS: u8 = 105;
    pub const PREFIX: u8 = 106;
    pub const ATTRIBUTE: u8 = 107;
    pub const PORT: u8 = 112;
    pub const HOST: u8 = 113;
    pub const MEMORY_TOTAL: u8 = 114;
    pub const MEMORY_FREE: u8 = 115;
    pub const DISK_TOTAL: u8 = 116;
    pub const DISK_FREE: u8 = 117;
    pub const CPUS: u8 = 118;
    pub const LOAD: u8 = 119;
    pub const MINOR_FAULTS: u8 = 120;
    pub const NOW: u8 = 121;
    pub const KERNEL: u8 = 122;
    pub const CPU_NS: u8 = 123;
    pub const COMMANDS: u8 = 124;
    pub const SLOT: u8 = 125;
    pub const READ_ONLY: u8 = 126;
    pub const PROBE: u8 = 127;
    pub const NAME: u8 = 128;
    pub const FORCE: u8 = 129;
    pub const BENEATH: u8 = 130;
}

const fn crc_table() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut k = 0;
        while k < 8 {
            c = if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 };
            k += 1;
        }
        table[i] = c;
        i += 1;
    }
    table
}

static CRC: [u32; 256] = crc_table();

pub fn crc32(bytes: &[u8]) -> u32 {
    let mut c = !0u32;
    for &b in bytes {
        c = CRC[((c ^ u32::from(b)) & 0xff) as usize] ^ (c >> 8);
    }
    !c
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: u8,
    pub channel: u8,
    pub flags: u8,
    pub stream: u32,
    pub length: usize,
    pub sequence: u32,
    pub check: u32,
}

fn le32(b: &[u8]) -> u32 {
    match b {
        [a, b, c, d, ..] => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => 0,
    }
}

impl Header {
    /// The header in the first 20 bytes, if they are one.
    pub fn parse(b: &[u8]) -> Option<Header> {
        if b.len() < HEADER || b[0] != MAGIC {
            return None;
        }
        let check = le32(&b[16..]);
        let length = le32(&b[8..]) as usize;
        if length > MAX_PAYLOAD || b[3] & !FLAG_FIN != 0 || b[2] > 2 || crc32(&b[..16]) != check {
            return None;
        }
        if b[1] != kind::DATA && (b[2] != 0 || b[3] != 0) {
            return None;
        }
        Some(Header {
            kind: b[1],
            channel: b[2],
            flags: b[3],
            stream: le32(&b[4..]),
            length,
            sequence: le32(&b[12..]),
            check,
        })
    }
}

/// A header, and the trailer that goes with it.
pub fn ends(kind: u8, channel: u8, flags: u8, stream: u32, sequence: u32, length: usize) -> ([u8; HEADER], [u8; TRAILER]) {
    debug_assert!(length <= MAX_PAYLOAD);
    let mut head = [0u8; HEADER];
    head[0] = MAGIC;
    head[1] = kind;
    head[2] = channel;
    head[3] = flags;
    head[4..8].copy_from_slice(&stream.to_le_bytes());
    head[8..12].copy_from_slice(&(length as u32).to_le_bytes());
    head[12..16].copy_from_slice(&sequence.to_le_bytes());
    let check = crc32(&head[..16]);
    head[16..].copy_from_slice(&check.to_le_bytes());
    (head, (!check).to_le_bytes())
}

/// Appends one frame. `payload` must not pass `MAX_PAYLOAD`.
pub fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u8, flags: u8, stream: u32, sequence: u32, payload: &[u8]) {
    let (head, trailer) = ends(kind, channel, flags, stream, sequence, payload.len());
    out.reserve(HEADER + payload.len() + TRAILER);
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
    out.extend_from_slice(&trailer);
}

/// Builds a payload of fields.
#[derive(Default, Clone)]
pub struct Fields(pub Vec<u8>);

impl Fields {
    pub fn new() -> Fields {
        Fields(Vec::new())
    }
    pub fn bytes(&mut self, tag: u8, value: &[u8]) -> &mut Fields {
        self.0.push(tag);
        self.0.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.0.extend_from_slice(value);
        self
    }
    pub fn u8(&mut self, tag: u8, value: u8) -> &mut Fields {
        self.bytes(tag, &[value])
    }
    pub fn u16(&mut self, tag: u8, value: u16) -> &mut Fields {
        self.bytes(tag, &value.to_le_bytes())
    }
    pub fn u32(&mut self, tag: u8, value: u32) -> &mut Fields {
        self.bytes(tag, &value.to_le_bytes())
    }
    pub fn u64(&mut self, tag: u8, value: u64) -> &mut Fields {
        self.bytes(tag, &value.to_le_bytes())
    }
}

/// A field passes the end of its payload.
#[derive(Debug, PartialEq, Eq)]
pub struct BadFields;

/// Walks a payload of fields without copying.
#[derive(Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Checks the whole payload first, so that later look-ups cannot fail.
    pub fn new(payload: &'a [u8]) -> Result<Reader<'a>, BadFields> {
        let mut rest = payload;
        while !rest.is_empty() {
            if rest.len() < 5 {
                return Err(BadFields);
            }
            let length = le32(&rest[1..]) as usize;
            rest = rest.get(5..).and_then(|r| r.get(length..)).ok_or(BadFields)?;
        }
        Ok(Reader(payload))
    }

    pub fn to_vec(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    pub fn all(&self, tag: u8) -> impl Iterator<Item = &'a [u8]> {
        Walk(self.0).filter(move |(t, _)| *t == tag).map(|(_, v)| v)
    }

    pub fn walk(&self) -> impl Iterator<Item = (u8, &'a [u8])> {
        Walk(self.0)
    }

    pub fn bytes(&self, tag: u8) -> Option<&'a [u8]> {
        self.all(tag).next()
    }

    /// `None` also for a value that is not a number of 1, 2, 4 or 8 bytes.
    pub fn number(&self, tag: u8) -> Option<u64> {
        number(self.bytes(tag)?)
    }

    pub fn flag(&self, tag: u8) -> bool {
        self.number(tag).unwrap_or(0) != 0
    }
}

pub fn number(b: &[u8]) -> Option<u64> {
    if !matches!(b.len(), 1 | 2 | 4 | 8) {
        return None;
    }
    let mut wide = [0u8; 8];
    wide[..b.len()].copy_from_slice(b);
    Some(u64::from_le_bytes(wide))
}

struct Walk<'a>(&'a [u8]);

impl<'a> Iterator for Walk<'a> {
    type Item = (u8, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.0.split_first()?;
        let value = rest.get(4..)?.get(..le32(rest) as usize)?;
        self.0 = &rest[4 + value.len()..];
        Some((tag, value))
    }
}
