//! Bytes from the host on their way to a program, which takes them in its own time: into a pipe, a terminal or a socket.

use crate::buffers::Bytes;
use crate::sys;
use std::collections::VecDeque;

#[derive(Default)]
pub struct Queue {
    /// Bytes and the stream that they came on.
    pieces: VecDeque<(u32, Bytes)>,
    /// Of the first piece, what is written.
    offset: usize,
}

/// Streams, and the bytes that each is rid of.
pub type Taken = Vec<(u32, usize)>;

impl Queue {
    pub fn push(&mut self, stream: u32, bytes: Bytes) {
        if !bytes.is_empty() {
            self.pieces.push_back((stream, bytes));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Writes all of it, or until the first error: EAGAIN when no more is taken now.
    pub fn write(&mut self, fd: i32) -> (Taken, Result<(), i32>) {
        let mut taken = Taken::new();
        while !self.pieces.is_empty() {
            // All at once: the reader wakes at the first byte, and each wake-up is a change of processes.
            let parts = self.pieces.iter().take(sys::MAX_PARTS).enumerate();
            let parts = parts.map(|(i, (_, bytes))| bytes.get(if i == 0 { self.offset } else { 0 }..).unwrap_or(&[]));
            match sys::write_parts(fd, parts) {
                Ok(n) => self.advance(n, &mut taken),
                Err(errno) => return (taken, Err(errno)),
            }
        }
        (taken, Ok(()))
    }

    /// Drops what nobody takes any more.
    pub fn clear(&mut self, taken: &mut Taken) {
        let rest = self.pieces.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() - self.offset;
        self.advance(rest, taken);
    }

    fn advance(&mut self, mut bytes: usize, taken: &mut Taken) {
        while let Some((stream, front)) = self.pieces.front() {
            let n = bytes.min(front.len() - self.offset);
            match taken.last_mut() {
                Some(last) if last.0 == *stream => last.1 += n,
                _ => taken.push((*stream, n)),
            }
            self.offset += n;
            bytes -= n;
            if self.offset < front.len() {
                return;
            }
            self.pieces.pop_front();
            self.offset = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_full_pipe_does_not_take_stays_and_each_stream_is_told_its_own() {
        let (read, write) = sys::pipe().unwrap();
        sys::set_nonblocking(write.raw()).unwrap();
        let mut queue = Queue::default();
        let mut sent = Vec::new();
        for i in 0..40u32 {
            let piece = vec![i as u8; 5000];
            sent.extend_from_slice(&piece);
            queue.push(1 + i / 20, Bytes::Own(piece));
            queue.push(9, Bytes::Own(Vec::new()));
        }
        let (mut taken, mut received) = (Vec::new(), Vec::new());
        let mut buffer = [0; 7000];
        loop {
            let (some, result) = queue.write(write.raw());
            taken.extend(some);
            if result.is_ok() {
                break;
            }
            assert_eq!(result, Err(libc::EAGAIN));
            let n = sys::read(read.raw(), &mut buffer).unwrap();
            received.extend_from_slice(&buffer[..n]);
        }
        assert!(queue.is_empty());
        drop(write);
        while let Some(n) = sys::read(read.raw(), &mut buffer).ok().filter(|n| *n > 0) {
            received.extend_from_slice(&buffer[..n]);
        }
        assert!(received == sent);
        let of = |stream| taken.iter().filter(|t| t.0 == stream).map(|t| t.1).sum::<usize>();
        assert_eq!((of(1), of(2), of(9)), (100_000, 100_000, 0));
    }

    #[test]
    fn what_is_dropped_counts_as_taken() {
        let (read, write) = sys::pipe().unwrap();
        sys::set_nonblocking(write.raw()).unwrap();
        let mut queue = Queue::default();
        for stream in [1, 1, 2] {
            queue.push(stream, Bytes::Own(vec![0; 50_000]));
        }
        let (mut taken, _) = queue.write(write.raw());
        drop(read);
        assert_eq!(queue.write(write.raw()).1, Err(libc::EPIPE));
        queue.clear(&mut taken);
        assert_eq!(taken, [(1, 100_000), (2, 50_000)]);
        assert!(queue.is_empty());
    }
}
