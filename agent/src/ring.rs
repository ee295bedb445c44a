//! The recent output of a command and when it was written: what followers read from, and what an ATTACH gets first.

use crate::buffers::{Buffer, Bytes, PIECE};
use crate::protocol::HEADER;
use std::collections::VecDeque;

/// Bookkeeping per chunk counts too, so that a million one-byte writes cannot outgrow the limit.
const CHUNK_OVERHEAD: usize = 64;
const CHUNK: usize = 65_536;
/// What was written within this time has the time of its first byte, so that many small writes are one chunk.
const SAME_TIME_NS: u64 = 10_000_000;

struct Chunk {
    /// The position of its first byte.
    start: u64,
    /// ns since 1970, of its first byte.
    time: u64,
    channel: u8,
    bytes: Bytes,
}

/// Positions count output bytes from the command's start.
pub struct Ring {
    chunks: VecDeque<Chunk>,
    limit: usize,
    used: usize,
    start: u64,
    end: u64,
}

impl Ring {
    pub fn new(limit: usize) -> Ring {
        Ring { chunks: VecDeque::new(), limit, used: 0, start: 0, end: 0 }
    }

    pub fn start(&self) -> u64 {
        self.start
    }
    pub fn end(&self) -> u64 {
        self.end
    }
    pub fn used(&self) -> usize {
        self.used
    }

    /// @param time ns since 1970
    pub fn push(&mut self, channel: u8, bytes: &[u8], time: u64) {
        if bytes.is_empty() {
            return;
        }
        let start = self.end;
        self.end += bytes.len() as u64;
        match self.chunks.back_mut() {
            Some(Chunk { channel: same, time: first, bytes: Bytes::Own(last), .. })
                if *same == channel && last.len() + bytes.len() <= CHUNK && time.wrapping_sub(*first) < SAME_TIME_NS =>
            {
                last.extend_from_slice(bytes);
                self.used += bytes.len();
            }
            _ => {
                self.used += bytes.len() + CHUNK_OVERHEAD;
                self.chunks.push_back(Chunk { start, time, channel, bytes: Bytes::from(bytes) });
            }
        }
        self.trim();
    }

    /// The first bytes of the buffer's payload. A whole piece is kept where it is, and the buffer becomes another one.
    pub fn push_from(&mut self, channel: u8, buffer: &mut Buffer, length: usize, time: u64) {
        if length < PIECE {
            return self.push(channel, &buffer.payload()[..length], time);
        }
        let kept = std::mem::replace(buffer, Buffer::new());
        let start = self.end;
        self.end += length as u64;
        self.used += length + CHUNK_OVERHEAD;
        self.chunks.push_back(Chunk { start, time, channel, bytes: Bytes::Part(kept, HEADER..HEADER + length) });
        self.trim();
    }

    /// The chunk that begins at `position`, if it is in a buffer of its own and has at most `max` bytes.
    pub fn whole_at(&mut self, position: u64, max: usize) -> Option<(u8, &mut Buffer, usize)> {
        let at = self.chunks.partition_point(|c| c.start <= position).checked_sub(1)?;
        match self.chunks.get_mut(at)? {
            Chunk { start, channel, bytes: Bytes::Part(buffer, range), .. } if *start == position && range.len() <= max => {
                Some((*channel, buffer, range.len()))
            }
            _ => None,
        }
    }

    fn trim(&mut self) {
        while self.used > self.limit && self.chunks.len() > 1 {
            self.drop_first();
        }
    }

    /// A smaller limit from now on, where memory is short.
    pub fn shrink(&mut self, limit: usize) {
        self.limit = self.limit.min(limit);
        self.trim();
    }

    fn drop_first(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.start += chunk.bytes.len() as u64;
            self.used -= chunk.bytes.len() + CHUNK_OVERHEAD;
        }
    }

    /// Gives all memory back; positions stay.
    pub fn clear(&mut self) {
        while !self.chunks.is_empty() {
            self.drop_first();
        }
        self.chunks = VecDeque::new();
    }

    fn chunk_at(&self, position: u64) -> Option<&Chunk> {
        // Followers are usually in the last one; one that attaches to a ring of tiny chunks must not walk over all of them.
        match self.chunks.back() {
            Some(last) if last.start <= position => Some(last),
            _ => self.chunks.get(self.chunks.partition_point(|c| c.start <= position).checked_sub(1)?),
        }
    }

    /// When what is at `position` was written, ns since 1970.
    pub fn time_at(&self, position: u64) -> Option<u64> {
        if position >= self.end || position < self.start {
            return None;
        }
        self.chunk_at(position).map(|chunk| chunk.time)
    }

    /// Up to `max` bytes of one channel from `position` on.
    pub fn at(&self, position: u64, max: usize) -> Option<(u8, &[u8])> {
        if position >= self.end || position < self.start {
            return None;
        }
        let chunk = self.chunk_at(position)?;
        let from = (position - chunk.start) as usize;
        let to = chunk.bytes.len().min(from.saturating_add(max));
        chunk.bytes.get(from..to).map(|b| (chunk.channel, b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(ring: &Ring, mut position: u64) -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some((channel, bytes)) = ring.at(position, 7) {
            position += bytes.len() as u64;
            all.push((channel, bytes.to_vec()));
        }
        all
    }

    #[test]
    fn keeps_order_and_channels() {
        let mut ring = Ring::new(1 << 20);
        ring.push(1, b"out", 0);
        ring.push(2, b"err", 0);
        ring.push(1, b"0123456789", 0);
        assert_eq!(collect(&ring, 1), vec![(1, b"ut".to_vec()), (2, b"err".to_vec()), (1, b"0123456".to_vec()), (1, b"789".to_vec())]);
    }

    #[test]
    fn whole_pieces_stay_in_their_buffer_among_small_ones() {
        let mut ring = Ring::new(1 << 20);
        let mut buffer = Buffer::new();
        ring.push(1, b"ab", 0);
        buffer.payload()[..PIECE].fill(b'x');
        ring.push_from(1, &mut buffer, PIECE, 0);
        buffer.payload()[..3].copy_from_slice(b"cde");
        ring.push_from(1, &mut buffer, 3, 0);
        assert!(ring.whole_at(0, 100_000).is_none() && ring.whole_at(2, PIECE - 1).is_none() && ring.whole_at(3, 100_000).is_none());
        assert_eq!(ring.whole_at(2, PIECE).map(|(c, b, n)| (c, b.payload()[n - 1], n)), Some((1, b'x', PIECE)));
        let all: Vec<u8> = collect(&ring, 0).into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_eq!(all, [&b"ab"[..], &[b'x'; PIECE], b"cde"].concat());
    }

    #[test]
    fn drops_the_oldest_and_says_where_it_starts() {
        let mut ring = Ring::new(100_000);
        for i in 0..10u8 {
            ring.push(1, &[i; 30_000], 0);
        }
        assert_eq!(ring.end(), 300_000);
        assert!(ring.start() >= 200_000 && ring.used() <= 100_000);
        assert_eq!(ring.at(ring.start() - 1, 10), None);
        assert_eq!(ring.at(299_999, 10), Some((1, &[9u8][..])));
    }

    #[test]
    fn tiny_writes_are_bounded_too() {
        let mut ring = Ring::new(10_000);
        for i in 0..100_000u32 {
            ring.push((i % 2) as u8 + 1, b"x", 0);
        }
        assert!(ring.used() <= 10_000 && ring.chunks.len() <= 200);
    }

    #[test]
    fn each_piece_has_the_time_at_which_it_was_written_but_for_a_few_milliseconds() {
        let second = 1_000_000_000;
        let mut ring = Ring::new(1 << 20);
        ring.push(1, b"one", 5 * second);
        ring.push(1, b"with it", 5 * second + SAME_TIME_NS - 1);
        ring.push(1, b"later", 6 * second);
        ring.push(1, b"the clock was set back", 2 * second);
        let times: Vec<_> = [0, 9, 10, 15, ring.end() - 1, ring.end()].iter().map(|at| ring.time_at(*at)).collect();
        assert_eq!(times, [Some(5), Some(5), Some(6), Some(2), Some(2), None].map(|t| t.map(|t: u64| t * second)));
        assert_eq!(ring.at(0, 100).map(|(_, bytes)| bytes.len()), Some(10));
    }
}
