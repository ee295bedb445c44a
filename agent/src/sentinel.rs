//! The sentinel: a connection of the host, on a port of its own, that lives through every save of this machine.
//!
//! Loading a snapshot makes the monitor tell the guest's driver that all connections are gone. A host that connects right after
//! the load can be earlier than that message: the kernel takes the new connection, the agent answers, and then the message
//! arrives and takes exactly this connection away, without a word to the host. The sentinel was open when the machine was saved, so
//! it dies by the same message. While it lives, nothing is read from a new connection: what is answered was not taken away.

use crate::channel::listen;
use crate::protocol::SENTINEL_PORT;
use crate::sys::{self, Fd, Poll, Result, LEVEL_IN};

/// How long a new connection waits for the sentinel's end, should the message never come.
pub const LIMIT_NS: u64 = 5_000_000_000;

pub struct Sentinel {
    listener: Fd,
    connection: Option<Fd>,
}

impl Sentinel {
    pub fn open(poll: &Poll, token: u64) -> Result<Sentinel> {
        let listener = listen(SENTINEL_PORT)?;
        poll.add(listener.raw(), LEVEL_IN, token)?;
        Ok(Sentinel { listener, connection: None })
    }

    pub fn alive(&self) -> bool {
        self.connection.is_some()
    }

    /// Takes the newest connection and says so with one byte: the host saves only after it.
    pub fn accept(&mut self, poll: &Poll, token: u64) {
        while let Some(fd) = sys::accept(self.listener.raw()) {
            let told = poll.add(fd.raw(), LEVEL_IN, token).is_ok() && sys::write(fd.raw(), &[1]).is_ok();
            self.connection = if told { Some(fd) } else { None };
        }
    }

    /// Looks whether it has ended. The host has nothing to say on it.
    pub fn look(&mut self) {
        let mut space = [0u8; 64];
        while let Some(fd) = &self.connection {
            match sys::read(fd.raw(), &mut space) {
                Ok(n) if n > 0 => {}
                Err(libc::EAGAIN) => return,
                _ => self.connection = None,
            }
        }
    }
}
