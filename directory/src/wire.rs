//! FUSE's messages (linux/fuse.h, 7.34), as far as they are used: little-endian numbers at fixed places.

/// Of data in one WRITE or READ. The agent's answer to INIT says the same (agent/src/fuse.rs).
pub const MAX_IO: usize = 256 * 1024;
pub const IN_HEADER: usize = 40;
pub const OUT_HEADER: usize = 16;
/// The longest message that a guest may send.
pub const MAX_MESSAGE: usize = IN_HEADER + 4096 + MAX_IO;

pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    /// Not FUSE's: what a helper before this one has told the guest's kernel (`restore` in serve.rs).
    pub const RESTORE: u32 = 0x5354_4143;
}

/// What is left of a message's body.
pub struct Body<'a>(pub &'a [u8]);

/// The message ends too early, or a name in it is none.
pub const BAD: i32 = libc::EINVAL;

impl<'a> Body<'a> {
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], i32> {
        if length > self.0.len() {
            return Err(BAD);
        }
        let (head, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(head)
    }

    pub fn u16(&mut self) -> Result<u16, i32> {
        let mut bytes = [0; 2];
        bytes.copy_from_slice(self.take(2)?);
        Ok(u16::from_le_bytes(bytes))
    }

    pub fn u32(&mut self) -> Result<u32, i32> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    pub fn u64(&mut self) -> Result<u64, i32> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    pub fn skip(&mut self, length: usize) -> Result<(), i32> {
        self.take(length).map(|_| ())
    }

    /// Up to a zero byte, which is taken too.
    pub fn text(&mut self) -> Result<&'a [u8], i32> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(BAD)?;
        let text = self.take(end)?;
        self.skip(1)?;
        Ok(text)
    }

    /// Of one entry of a directory: nothing that leads anywhere else.
    pub fn name(&mut self) -> Result<&'a [u8], i32> {
        let name = self.text()?;
        if name.len() > 255 {
            return Err(libc::ENAMETOOLONG);
        }
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            return Err(BAD);
        }
        Ok(name)
    }
}

pub struct Header {
    pub length: usize,
    pub opcode: u32,
    pub unique: u64,
    pub node: u64,
}

impl Header {
    /// `None` for bytes that begin no message: where the next one begins is not known then.
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        let mut body = Body(bytes);
        let length = body.u32().ok()? as usize;
        let header = Header { length, opcode: body.u32().ok()?, unique: body.u64().ok()?, node: body.u64().ok()? };
        (IN_HEADER..=MAX_MESSAGE).contains(&length).then(|| header)
    }

    /// Whether the answer tells of names.
    pub fn looks(&self) -> bool {
        matches!(self.opcode, opcode::LOOKUP | opcode::READDIRPLUS)
    }
}

/// One answer, put together from its header on.
pub struct Answer(Vec<u8>);

impl Answer {
    pub fn new() -> Answer {
        Answer(vec![0; OUT_HEADER])
    }
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    /// Bytes of the body so far.
    pub fn len(&self) -> usize {
        self.0.len() - OUT_HEADER
    }
    /// Room for `length` bytes, of which `fill` says how many it has filled.
    pub fn fill(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> Result<usize, i32>) -> Result<(), i32> {
        let start = self.0.len();
        self.0.resize(start + length, 0);
        let filled = fill(&mut self.0[start..])?;
        self.0.truncate(start + filled.min(length));
        Ok(())
    }
    pub fn finish(mut self, unique: u64) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0[8..16].copy_from_slice(&unique.to_le_bytes());
        self.0
    }
    pub fn failure(unique: u64, errno: i32) -> Vec<u8> {
        let mut answer = Answer::new().finish(unique);
        answer[4..8].copy_from_slice(&(-errno).to_le_bytes());
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for bad in [&b"..\0"[..], b".\0", b"\0", b"a/b\0", b"/\0", b"no end", b""] {
            assert!(Body(bad).name().is_err(), "{:?}", bad);
        }
        assert_eq!(Body(&[&[b'n'; 256][..], b"\0"].concat()).name(), Err(libc::ENAMETOOLONG));
        assert_eq!(Body(b"..a\0rest").name(), Ok(&b"..a"[..]));
    }

    #[test]
    fn a_message_has_a_length_that_it_can_have() {
        let with = |length: u32| Header::parse(&[&length.to_le_bytes()[..], &[0; 36]].concat()).is_some();
        assert!(!with(39) && with(40) && with(MAX_MESSAGE as u32) && !with(MAX_MESSAGE as u32 + 1));
    }
}
