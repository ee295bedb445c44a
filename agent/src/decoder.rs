//! Frames out of a byte stream, whatever it carries: in step it checks every frame, out of step it hunts for a hello.

use crate::buffers::{Buffer, Bytes};
use crate::protocol::{kind, Header, HEADER, MAX_FRAME, TRAILER};

/// Why the stream lost step. The decoder hunts from here on.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Violation {
    Header,
    Sequence,
    Trailer,
}

impl Violation {
    pub fn text(self) -> &'static str {
        match self {
            Violation::Header => "bad frame header",
            Violation::Sequence => "gap in the frame sequence",
            Violation::Trailer => "bad frame trailer",
        }
    }
}

/// A payload that is at least this long is passed on with the buffer that it lies in.
pub const LARGE: usize = 32 * 1024;

pub struct Decoder {
    buf: Buffer,
    start: usize,
    end: usize,
    /// The sequence that the next frame must have; `None`: hunting.
    expect: Option<u32>,
    hello: u8,
}

impl Decoder {
    /// `hello`: the frame type that begins a session in this direction.
    pub fn new(hello: u8) -> Decoder {
        Decoder { buf: Buffer::new(), start: 0, end: 0, expect: None, hello }
    }

    pub fn for_agent() -> Decoder {
        Decoder::new(kind::HELLO)
    }

    pub fn hunt(&mut self) {
        self.expect = None;
    }

    /// Forgets everything received: the next byte is the first of a new connection.
    pub fn reset(&mut self) {
        self.start = 0;
        self.end = 0;
        self.expect = None;
    }

    /// Where the next read may put bytes; never empty after `next` returned `Ok(None)`.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.buf.len() - self.start < MAX_FRAME {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let end = self.end;
        self.buf.get_mut(end..).unwrap_or(&mut [])
    }

    pub fn filled(&mut self, n: usize) {
        self.end = (self.end + n).min(self.buf.len());
    }

    /// The next frame and where its payload is, for `payload`. The payload stays valid until `space` is called.
    pub fn next(&mut self) -> Result<Option<(Header, core::ops::Range<usize>)>, Violation> {
        loop {
            let have = &self.buf[self.start..self.end];
            let expect = match self.expect {
                Some(expect) => expect,
                None => {
                    match self.find_hello(have) {
                        Ok(skip) => {
                            self.start += skip;
                            self.expect = Some(0);
                            0
                        }
                        Err(skip) => {
                            self.start += skip;
                            return Ok(None);
                        }
                    }
                }
            };
            let have = &self.buf[self.start..self.end];
            if have.len() < HEADER {
                return Ok(None);
            }
            let header = match Header::parse(have) {
                Some(h) => h,
                None => return Err(self.lost(0, Violation::Header)),
            };
            let is_hello = header.kind == self.hello && header.sequence == 0;
            if header.sequence != expect && !is_hello {
                return Err(self.lost(0, Violation::Sequence));
            }
            let total = HEADER + header.length + TRAILER;
            if have.len() < total {
                return Ok(None);
            }
            let trailer = &have[HEADER + header.length..total];
            if trailer != (!header.check).to_le_bytes() {
                return Err(self.lost(total, Violation::Trailer));
            }
            let payload = self.start + HEADER..self.start + HEADER + header.length;
            self.start += total;
            self.expect = Some(header.sequence.wrapping_add(1));
            return Ok(Some((header, payload)));
        }
    }

    pub fn payload(&self, range: core::ops::Range<usize>) -> &[u8] {
        self.buf.get(range).unwrap_or(&[])
    }

    /// Takes the buffer out while a frame in it is worked on, so that the work may use the decoder's owner.
    pub fn lend(&mut self) -> Buffer {
        std::mem::replace(&mut self.buf, Buffer::none())
    }

    pub fn give_back(&mut self, buffer: Buffer) {
        self.buf = buffer;
    }

    /// The payload that `next` has just told of, as a thing of its own.
    pub fn take(&mut self, payload: core::ops::Range<usize>) -> Bytes {
        if payload.len() < LARGE {
            return Bytes::from(self.payload(payload));
        }
        let mut fresh = Buffer::new();
        let rest = self.end - self.start;
        fresh[..rest].copy_from_slice(&self.buf[self.start..self.end]);
        self.start = 0;
        self.end = rest;
        Bytes::Part(std::mem::replace(&mut self.buf, fresh), payload)
    }

    fn lost(&mut self, skip: usize, why: Violation) -> Violation {
        self.start += skip;
        self.expect = None;
        why
    }

    /// `Ok(n)`: a hello's header begins after n bytes. `Err(n)`: none yet, n bytes can be dropped.
    fn find_hello(&self, have: &[u8]) -> Result<usize, usize> {
        let mut at = 0;
        while have.len() - at >= HEADER {
            match Header::parse(&have[at..]) {
                Some(h) if h.kind == self.hello && h.sequence == 0 => return Ok(at),
                _ => at += 1,
            }
        }
        Err(at)
    }
}
