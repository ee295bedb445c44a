//! Blocking work on threads of its own, so that no disk holds another call back. A job reads the call's body, sends
//! data within its credit, and ends with fields or a failure; the loop is told through a mailbox.

use crate::buffers::{Buffer, Bytes, PIECE};
use crate::protocol::{Fields, GRANT_STEP, MAX_PAYLOAD};
use crate::sys::{self, Fail, Fd, Result};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Data that a job has handed over and the loop has not sent yet, at most.
const AHEAD: usize = 4 * MAX_PAYLOAD;
const STACK: usize = 256 * 1024;
pub const MAX_JOBS: usize = 128;

pub enum Message {
    /// DATA to send: a payload in its place, and its length.
    Data(Buffer, usize),
    Event(Fields),
    /// The job took this many bytes of the body.
    Taken(usize),
    End(Result<Fields>),
}

#[derive(Default)]
struct State {
    body: VecDeque<Bytes>,
    fin: bool,
    cancelled: bool,
    credit: u64,
    ahead: usize,
    /// Rings when the job is cancelled while it waits for a descriptor.
    wake: Option<Fd>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Messages of all jobs to the loop. `serial` tells apart jobs of former sessions with the same stream number.
pub struct Mailbox {
    letters: Mutex<VecDeque<(u64, Message)>>,
    bell: Fd,
}

impl Mailbox {
    pub fn new() -> Result<Arc<Mailbox>> {
        // SAFETY: plain integers.
        let fd = sys::check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }, "eventfd")?;
        Ok(Arc::new(Mailbox { letters: Mutex::new(VecDeque::new()), bell: Fd::own(fd) }))
    }
    pub fn bell(&self) -> i32 {
        self.bell.raw()
    }
    fn post(&self, serial: u64, message: Message) {
        lock(&self.letters).push_back((serial, message));
    }
    fn ring(&self) {
        let _ = sys::write(self.bell.raw(), &1u64.to_ne_bytes());
    }
    pub fn take(&self) -> VecDeque<(u64, Message)> {
        let mut count = [0u8; 8];
        let _ = sys::read(self.bell.raw(), &mut count);
        std::mem::take(&mut *lock(&self.letters))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The loop's end of a job.
pub struct Handle {
    shared: Arc<Shared>,
    pub serial: u64,
}

/// The job's end.
pub struct Io {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    serial: u64,
    /// Data was posted that the loop has not been told of.
    silent: bool,
    /// Bytes of the body that were taken and not told of.
    taken: usize,
}

pub fn start(
    mailbox: &Arc<Mailbox>,
    serial: u64,
    credit: u64,
    work: impl FnOnce(&mut Io) -> Result<Fields> + Send + 'static,
) -> Result<Handle> {
    let shared = Arc::new(Shared { state: Mutex::new(State { credit, ..State::default() }), changed: Condvar::new() });
    let mut io = Io { shared: shared.clone(), mailbox: mailbox.clone(), serial, silent: false, taken: 0 };
    std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || {
            let result = work(&mut io);
            io.tell(Message::End(result));
        })
        .map_err(|e| Fail::io(&e, "starting a thread"))?;
    Ok(Handle { shared, serial })
}

impl Handle {
    pub fn body(&self, bytes: Bytes, fin: bool) {
        let mut state = lock(&self.shared.state);
        if !bytes.is_empty() {
            state.body.push_back(bytes);
        }
        state.fin |= fin;
        self.shared.changed.notify_one();
    }
    pub fn credit(&self, more: u64) {
        let mut state = lock(&self.shared.state);
        state.credit = state.credit.saturating_add(more);
        self.shared.changed.notify_one();
    }
    pub fn sent(&self, bytes: usize) {
        let mut state = lock(&self.shared.state);
        state.ahead = state.ahead.saturating_sub(bytes);
        self.shared.changed.notify_one();
    }
    pub fn cancel(&self) {
        let mut state = lock(&self.shared.state);
        state.cancelled = true;
        if let Some(wake) = &state.wake {
            let _ = sys::write(wake.raw(), &1u64.to_ne_bytes());
        }
        self.shared.changed.notify_one();
    }
}

impl Io {
    fn tell(&mut self, message: Message) {
        self.mailbox.post(self.serial, message);
        self.ring();
    }

    fn ring(&mut self) {
        self.silent = false;
        self.mailbox.ring();
    }

    /// The next piece of the body, `None` at its end.
    pub fn read(&mut self) -> Result<Option<Bytes>> {
        let mut state = lock(&self.shared.state);
        loop {
            if state.cancelled {
                return Err(Fail::cancelled());
            }
            if let Some(piece) = state.body.pop_front() {
                drop(state);
                self.taken += piece.len();
                if self.taken >= GRANT_STEP {
                    let taken = std::mem::take(&mut self.taken);
                    self.tell(Message::Taken(taken));
                }
                return Ok(Some(piece));
            }
            if state.fin {
                return Ok(None);
            }
            state = self.shared.changed.wait(state).unwrap_or_else(|p| p.into_inner());
        }
    }

    /// Sends a payload that lies in its place in the buffer, once the host's credit has room for it.
    pub fn send_buffer(&mut self, buffer: Buffer, length: usize) -> Result<()> {
        let shared = self.shared.clone();
        let mut state = lock(&shared.state);
        loop {
            if state.cancelled {
                return Err(Fail::cancelled());
            }
            // The host grants long before its window is used up, so waiting for all of it cannot last for ever.
            if state.credit >= length as u64 && state.ahead + length <= AHEAD {
                break;
            }
            if self.silent {
                self.ring();
            }
            state = shared.changed.wait(state).unwrap_or_else(|p| p.into_inner());
        }
        state.credit -= length as u64;
        state.ahead += length;
        // More follows a full one at once: the loop is told of several together.
        self.silent = length >= PIECE && state.ahead < AHEAD / 2;
        drop(state);
        self.mailbox.post(self.serial, Message::Data(buffer, length));
        if !self.silent {
            self.ring();
        }
        Ok(())
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(MAX_PAYLOAD) {
            let mut buffer = Buffer::new();
            buffer.payload()[..piece.len()].copy_from_slice(piece);
            self.send_buffer(buffer, piece.len())?;
        }
        Ok(())
    }

    /// Events need no credit, but wait like data while the host does not read.
    pub fn event(&mut self, fields: Fields) -> Result<()> {
        let mut state = lock(&self.shared.state);
        while !state.cancelled && state.ahead >= AHEAD {
            state = self.shared.changed.wait(state).unwrap_or_else(|p| p.into_inner());
        }
        if state.cancelled {
            return Err(Fail::cancelled());
        }
        state.ahead += fields.0.len();
        drop(state);
        self.tell(Message::Event(fields));
        Ok(())
    }

    /// Sleeps until the descriptor can be read, or fails when the call is cancelled.
    pub fn wait_readable(&mut self, fd: i32) -> Result<()> {
        if self.silent {
            self.ring();
        }
        let wake = {
            let mut state = lock(&self.shared.state);
            if state.cancelled {
                return Err(Fail::cancelled());
            }
            match &state.wake {
                Some(wake) => wake.raw(),
                None => {
                    // SAFETY: plain integers.
                    let wake = Fd::own(sys::check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) }, "eventfd")?);
                    let raw = wake.raw();
                    state.wake = Some(wake);
                    raw
                }
            }
        };
        let wanted = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [wanted(fd), wanted(wake)];
        // SAFETY: two valid entries.
        unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
        self.check()
    }

    /// Fails when the call was cancelled: long work asks between its steps.
    pub fn check(&self) -> Result<()> {
        if lock(&self.shared.state).cancelled {
            return Err(Fail::cancelled());
        }
        Ok(())
    }
}
