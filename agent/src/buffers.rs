//! Large buffers that are used again and again, since fresh memory costs page faults and zeroing; and bytes that are passed on
//! in them without being copied.

use crate::protocol::{HEADER, MAX_FRAME, MAX_PAYLOAD, TRAILER};
use std::ops::{Deref, DerefMut, Range};
use std::sync::Mutex;

/// Room for one whole frame and some of what one read may bring after it.
pub const SIZE: usize = MAX_FRAME + 8192;
/// The payload of a frame of 64 KiB. A virtio-serial port takes 32 KiB at a time, and each time costs an exit to the host.
pub const PIECE: usize = MAX_PAYLOAD - HEADER - TRAILER;
/// More than these are given back to the system.
const KEPT: usize = 12;

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// `SIZE` bytes with any content.
pub struct Buffer(Vec<u8>);

impl Buffer {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Buffer {
        let spare = SPARE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
        Buffer(spare.unwrap_or_else(|| vec![0; SIZE]))
    }

    /// Holds the place of one that is lent.
    pub const fn none() -> Buffer {
        Buffer(Vec::new())
    }

    /// Where the payload of a frame is put, so that its header and trailer have their places around it.
    pub fn payload(&mut self) -> &mut [u8] {
        self.0.get_mut(HEADER..HEADER + MAX_PAYLOAD).unwrap_or(&mut [])
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let mut spare = SPARE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if spare.len() < KEPT {
            spare.push(std::mem::take(&mut self.0));
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Bytes with an owner: few of their own, or a part of a buffer.
pub enum Bytes {
    Own(Vec<u8>),
    Part(Buffer, Range<usize>),
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Own(bytes) => bytes,
            Bytes::Part(buffer, range) => buffer.get(range.clone()).unwrap_or(&[]),
        }
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Bytes {
        Bytes::Own(bytes.to_vec())
    }
}
