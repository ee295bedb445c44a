//! While much is moved the loop waits a moment after each turn: bytes gather, and one turn, one interrupt and one change of
//! processes serve many of them. Under emulation a change of processes alone costs as much as moving some 10 KiB.

use crate::sys;
use std::time::Duration;

/// What a turn should find: enough to be worth it, less than a wide pipe or the channel's buffers hold, so that nobody waits for us.
const FEW: usize = 96 * 1024;
const MANY: usize = 192 * 1024;
/// µs. Shorter ones are not slept. The longest is what another call may wait beside a bulk transfer.
const SHORTEST: u64 = 50;
const LONGEST: u64 = 1000;
/// A transfer that begins after so long without one begins without pauses, ns.
const FORGET: u64 = 10_000_000;

#[derive(Default)]
pub struct Pause {
    /// µs
    length: u64,
    /// When the last turn with bulk ended, ns since boot.
    last: u64,
}

impl Pause {
    /// Sleeps if the turn moved bulk. `blocked`: the channel is full, and having room again must be met at once.
    pub fn after(&mut self, moved: usize, blocked: bool) {
        if moved == 0 {
            return;
        }
        let now = sys::monotonic();
        self.length = self.next(moved, now - self.last);
        self.last = now;
        if self.length >= SHORTEST && !blocked {
            std::thread::sleep(Duration::from_micros(self.length));
        }
    }

    fn next(&self, moved: usize, since: u64) -> u64 {
        match moved {
            _ if since > FORGET => 0,
            m if m < FEW => (self.length * 2).max(8).min(LONGEST),
            m if m > MANY => self.length * 3 / 4,
            _ => self.length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_while_turns_find_little_and_shrinks_when_they_find_much() {
        let mut pause = Pause::default();
        let lengths: Vec<u64> = (0..9)
            .map(|_| {
                pause.length = pause.next(65_512, 1000);
                pause.length
            })
            .collect();
        assert_eq!(lengths, [8, 16, 32, 64, 128, 256, 512, 1000, 1000]);
        assert_eq!((pause.next(2 * 65_512, 1000), pause.next(4 * 65_512, 1000)), (1000, 750));
        assert_eq!(pause.next(65_512, FORGET + 1), 0);
    }
}
