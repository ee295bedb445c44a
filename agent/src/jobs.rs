//! Blocking work on threads of its own, so that no disk holds another call back. A job reads the call's body, sends
//! data within its credit, and ends with fields or a failure; the loop is told through a mailbox.

use crate::protocol::{kind, Fields, MAX_PAYLOAD};
use crate::sys::{self, Fail, Fd, Result};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Data that a job has handed over and the loop has not sent yet, at most.
const AHEAD: usize = 4 * MAX_PAYLOAD;
const STACK: usize = 256 * 1024;
pub const MAX_JOBS: usize = 128;

pub enum Message {
    /// A frame to send: its kind and payload.
    Frame(u8, Vec<u8>),
    /// The job took this many bytes of the body.
    Taken(usize),
    End(Result<Fields>),
}

#[derive(Default)]
struct State {
    body: VecDeque<Vec<u8>>,
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
}

pub fn start(
    mailbox: &Arc<Mailbox>,
    serial: u64,
    credit: u64,
    work: impl FnOnce(&mut Io) -> Result<Fields> + Send + 'static,
) -> Result<Handle> {
    let shared = Arc::new(Shared { state: Mutex::new(State { credit, ..State::default() }), changed: Condvar::new() });
    let mut io = Io { shared: shared.clone(), mailbox: mailbox.clone(), serial };
    std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || {
            let result = work(&mut io);
            io.mailbox.post(io.serial, Message::End(result));
        })
        .map_err(|e| Fail::io(&e, "starting a thread"))?;
    Ok(Handle { shared, serial })
}

impl Handle {
    pub fn body(&self, bytes: &[u8], fin: bool) {
        let mut state = lock(&self.shared.state);
        if !bytes.is_empty() {
            state.body.push_back(bytes.to_vec());
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
    /// The next piece of the body, `None` at its end.
    pub fn read(&mut self) -> Result<Option<Vec<u8>>> {
        let mut state = lock(&self.shared.state);
        loop {
            if state.cancelled {
                return Err(Fail::cancelled());
            }
            if let Some(piece) = state.body.pop_front() {
                drop(state);
                self.mailbox.post(self.serial, Message::Taken(piece.len()));
                return Ok(Some(piece));
            }
            if state.fin {
                return Ok(None);
            }
            state = self.shared.changed.wait(state).unwrap_or_else(|p| p.into_inner());
        }
    }

    /// How much may be sent now, at most `want`; waits until it is something.
    pub fn may_send(&mut self, want: usize) -> Result<usize> {
        let mut state = lock(&self.shared.state);
        loop {
            if state.cancelled {
                return Err(Fail::cancelled());
            }
            let room = AHEAD.saturating_sub(state.ahead).min(MAX_PAYLOAD).min(want);
            let n = (state.credit.min(room as u64)) as usize;
            if n > 0 {
                return Ok(n);
            }
            state = self.shared.changed.wait(state).unwrap_or_else(|p| p.into_inner());
        }
    }

    /// Sends bytes that `may_send` has allowed.
    pub fn send_allowed(&mut self, bytes: Vec<u8>) {
        {
            let mut state = lock(&self.shared.state);
            state.credit = state.credit.saturating_sub(bytes.len() as u64);
            state.ahead += bytes.len();
        }
        self.mailbox.post(self.serial, Message::Frame(kind::DATA, bytes));
    }

    pub fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let n = self.may_send(bytes.len())?;
            self.send_allowed(bytes[..n].to_vec());
            bytes = &bytes[n..];
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
        self.mailbox.post(self.serial, Message::Frame(kind::EVENT, fields.0));
        Ok(())
    }

    /// Sleeps until the descriptor can be read, or fails when the call is cancelled.
    pub fn wait_readable(&mut self, fd: i32) -> Result<()> {
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
