//! A command: its process group, its pipes or terminal, its ring, and the rules about when it has ended.

use crate::buffers::{Buffer, Bytes, PIECE};
use crate::group::Place;
use crate::protocol::channel;
use crate::queue::{Queue, Taken};
use crate::ring::Ring;
use crate::sys::{self, Fd, Poll};

/// Output that a follower has not taken yet, at most; beyond it the process waits in `write`.
pub const WINDOW: u64 = 524_288;
/// What the pipe of a command with much input or output holds: fewer turns between its process and us.
const WIDE_PIPE: libc::c_int = 524_288;
/// What a command has started and left behind (`exec > >(tee log)`) may still have words of it: the output is over when it has been
/// silent for so long, and in any case after so long.
const QUIET_NS: u64 = 250_000_000;
const LONGEST_WAIT_NS: u64 = 2_000_000_000;
/// A terminal's last bytes are on their way within the kernel only.
const TERMINAL_QUIET_NS: u64 = 30_000_000;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Reason {
    Exited = 0,
    Timeout = 1,
    Cancelled = 2,
    /// Memory has cost one of its processes, and it ended by that.
    OutOfMemory = 3,
}

#[derive(Clone, Copy)]
pub struct Exit {
    pub code: u8,
    /// 0: none
    pub signal: u8,
    pub reason: Reason,
}

/// One output of the process.
pub struct Source {
    pub fd: Fd,
    pub channel: u8,
    pub readable: bool,
    /// Its pipe was widened.
    wide: bool,
    /// Bytes that were in it when the process ended: those still belong to the result.
    left: Option<usize>,
}

pub struct Stdin {
    pub fd: Fd,
    queue: Queue,
    fin: bool,
    wide: bool,
    /// The descriptor is also an output (a terminal): do not close it, send end-of-file instead.
    tty: bool,
}

/// A stream that follows a command.
pub struct Follower {
    pub stream: u32,
    /// In the ring.
    pub position: u64,
    /// It is told when what it gets was written: the time that was told last, ns since 1970.
    pub told: Option<u64>,
}

impl Follower {
    pub fn new(stream: u32, times: bool) -> Follower {
        Follower { stream, position: 0, told: times.then(|| 0) }
    }
}

pub struct Command {
    pub id: u64,
    pub pid: i32,
    pub text: Vec<u8>,
    /// What the host wants to know of it later.
    pub note: Vec<u8>,
    pub start_time: u64,
    pub sources: Vec<Source>,
    pub stdin: Option<Stdin>,
    pub ring: Ring,
    pub followers: Vec<Follower>,
    pub exit: Option<Exit>,
    /// Why it is being ended, once a timeout or a cancellation has asked for it.
    pub ending: Option<Reason>,
    /// What asks it to end.
    pub stop_signal: i32,
    pub grace_ms: u32,
    pub keep: bool,
    /// It was started to go on without anybody who follows.
    pub detached: bool,
    /// Its part of the commands' control group.
    pub place: Option<Place>,
    pub tty: bool,
    /// The ring's end when the last byte of the result was in it.
    pub final_end: Option<u64>,
    /// Its output goes on until nobody holds it open, however long after its end.
    pub until_closed: bool,
    /// Once it has ended, while others still hold its output open: the ring's end at the last look.
    pub looked: u64,
    /// When nothing more of them is waited for, ns.
    pub look_until: u64,
}

pub const EOT: &[u8] = &[4];

impl Stdin {
    pub fn new(fd: Fd, tty: bool) -> Stdin {
        Stdin { fd, queue: Queue::default(), fin: false, wide: tty, tty }
    }

    pub fn push(&mut self, stream: u32, bytes: Bytes, fin: bool) {
        self.queue.push(stream, bytes);
        if fin && !self.fin {
            self.fin = true;
            if self.tty {
                self.queue.push(0, Bytes::from(EOT));
            }
        }
    }

    /// Writes what the process takes. @returns streams and the bytes that they are rid of, and whether it is finished
    /// with for good
    pub fn flush(&mut self) -> (Taken, bool) {
        let (mut taken, result) = self.queue.write(self.fd.raw());
        match result {
            Ok(()) => (taken, self.fin && !self.tty),
            Err(libc::EAGAIN) => {
                widen(&self.fd, &mut self.wide);
                (taken, false)
            }
            Err(_) => {
                // Nobody reads any more: what comes is dropped, and the host gets its credit back.
                self.queue.clear(&mut taken);
                (taken, true)
            }
        }
    }
}

impl Source {
    pub fn new(fd: Fd, channel: u8) -> Source {
        Source { fd, channel, readable: false, wide: false, left: None }
    }
}

impl Command {
    /// Moves output into the ring while the followers keep up. @returns true if there may be more at once
    pub fn read_output(&mut self, poll: &Poll, scratch: &mut Buffer) -> bool {
        let slowest = self.followers.iter().map(|f| f.position).min();
        let mut more = false;
        let mut i = 0;
        while i < self.sources.len() {
            let mut gone = false;
            let source = &mut self.sources[i];
            while source.readable {
                let behind = slowest.map_or(0, |s| self.ring.end().saturating_sub(s));
                if behind >= WINDOW {
                    break;
                }
                let into = &mut scratch.payload()[..PIECE];
                match sys::read(source.fd.raw(), into) {
                    Ok(0) => gone = true,
                    Ok(n) => {
                        self.ring.push_from(source.channel, scratch, n, sys::wall());
                        if let Some(left) = &mut source.left {
                            *left = left.saturating_sub(n);
                        }
                        // A pipe that gave less than asked is empty, and its next write is a new edge. Once the command has ended there
                        // may be none: that it was closed may have been told before.
                        source.readable = n == PIECE || self.tty || self.exit.is_some();
                        if n == PIECE && !self.tty {
                            widen(&source.fd, &mut source.wide);
                            more = true;
                            break;
                        }
                    }
                    Err(libc::EAGAIN) => {
                        source.readable = false;
                        source.left = source.left.map(|_| 0);
                    }
                    Err(_) => gone = true,
                }
                if gone {
                    break;
                }
            }
            if gone {
                poll.remove(source.fd.raw());
                self.sources.remove(i);
            } else {
                i += 1;
            }
        }
        self.settle();
        more
    }

    /// Called once the process is reaped. What it wrote itself always belongs to the result, and what others write that hold its
    /// output open: until they have closed it, or are silent.
    pub fn ended(&mut self, exit: Exit) {
        self.exit = Some(exit);
        self.until_closed &= exit.reason == Reason::Exited;
        for source in &mut self.sources {
            source.left = Some(sys::readable_bytes(source.fd.raw()));
            // Also to see that it is closed.
            source.readable = true;
        }
        self.stdin = None;
        self.looked = self.ring.end();
        self.look_until = sys::monotonic() + LONGEST_WAIT_NS;
        self.settle();
    }

    fn settle(&mut self) {
        if self.exit.is_some() && self.final_end.is_none() && self.sources.is_empty() {
            self.final_end = Some(self.ring.end());
        }
    }

    /// When to look next whether an ended command's output is over; none: it is.
    pub fn next_look(&self) -> Option<u64> {
        match (self.final_end, self.tty) {
            (Some(_), _) => None,
            (None, true) => Some(TERMINAL_QUIET_NS),
            (None, false) => Some(QUIET_NS),
        }
    }

    /// Some background process holds the output open: is it over?
    pub fn look(&mut self, now: u64) {
        let silent = self.looked == self.ring.end() && !self.sources.iter().any(|s| s.readable);
        self.looked = self.ring.end();
        let waits = self.until_closed || (!silent && now < self.look_until);
        // A slow follower may not have let us read what the command itself wrote.
        if !waits && self.sources.iter().all(|s| s.left == Some(0)) {
            self.give_up_draining();
        }
    }

    pub fn give_up_draining(&mut self) {
        if self.exit.is_some() && self.final_end.is_none() {
            self.final_end = Some(self.ring.end());
        }
    }

    pub fn signal_group(&self, signal: i32) -> Result<(), i32> {
        if self.exit.is_some() {
            return Err(libc::ESRCH);
        }
        // SAFETY: the leader is not reaped yet, so the group is the one that we made.
        if unsafe { libc::kill(-self.pid, signal) } < 0 {
            return Err(sys::last_errno());
        }
        Ok(())
    }
}

/// Once, and where the kernel refuses it the pipe stays as it is.
fn widen(pipe: &Fd, wide: &mut bool) {
    if !std::mem::replace(wide, true) {
        // SAFETY: plain integers.
        unsafe { libc::fcntl(pipe.raw(), libc::F_SETPIPE_SZ, WIDE_PIPE) };
    }
}

/// The channel of an output by its place.
pub fn channel_of(index: usize) -> u8 {
    if index == 0 {
        channel::STDOUT
    } else {
        channel::STDERR
    }
}
