//! TCP connections that programs in the guest open to a loopback port, handed to the host as streams: tunnels in the other
//! direction. Those that no call has asked for yet wait in the kernel's backlog, and cost the loop nothing there.

use crate::protocol::{kind, status, Reader};
use crate::queue::Queue;
use crate::session::{token, Agent, Call};
use crate::sys::{Fail, Fd, Result, EDGE_BOTH, EDGE_IN};
use crate::tunnel::{port_of, Tunnel};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::io::{AsRawFd, IntoRawFd};

/// The one port at a time whose connections are the host's.
pub struct Listener {
    socket: TcpListener,
    port: u16,
    /// Calls that each wait for a connection, in their order.
    waiting: VecDeque<u32>,
}

impl Listener {
    /// Its address may be used again, it is close-on-exec and its backlog is 128: std's own choices.
    fn open(port: u16) -> Result<Listener> {
        let doing = |e: io::Error| Fail::io(&e, &format!("port {}", port));
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(doing)?;
        socket.set_nonblocking(true).map_err(doing)?;
        Ok(Listener { socket, port, waiting: VecDeque::new() })
    }

    /// The next connection, `None` if there is none.
    fn take(&self) -> Result<Option<Fd>> {
        loop {
            let taken = self.socket.accept().and_then(|(socket, _)| {
                socket.set_nonblocking(true)?;
                let _ = socket.set_nodelay(true);
                Ok(Fd::own(socket.into_raw_fd()))
            });
            match taken {
                Ok(socket) => return Ok(Some(socket)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                // It was given up while it waited: the next one.
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(e) => return Err(Fail::io(&e, &format!("port {}", self.port))),
            }
        }
    }
}

impl Agent {
    /// Waits for a connection to the port, behind the calls that wait already.
    pub fn accept_call(&mut self, id: u32, fields: &Reader) -> Result<()> {
        let port = port_of(fields)?;
        match &self.listener {
            Some(l) if l.port == port => {}
            Some(l) if !l.waiting.is_empty() => {
                return Err(Fail::new(status::BUSY, format!("port {}: calls wait for connections to port {}", port, l.port)));
            }
            _ => {
                let listener = Listener::open(port)?;
                // By its edges: a backlog that nobody asks for must not wake us again and again.
                self.poll.add(listener.socket.as_raw_fd(), EDGE_IN, token::INBOUND)?;
                self.listener = Some(listener);
            }
        }
        self.add(id, Call::Accept(Queue::default()));
        if let Some(listener) = &mut self.listener {
            listener.waiting.push_back(id);
        }
        self.take_connections();
        Ok(())
    }

    /// A connection for each call that waits, while there are some. A failure is told to each: who still wants one asks again.
    pub fn take_connections(&mut self) {
        while let Some(listener) = &mut self.listener {
            let id = match listener.waiting.front() {
                Some(id) => *id,
                None => return,
            };
            let taken = match listener.take().transpose() {
                Some(taken) => taken,
                None => return,
            };
            listener.waiting.pop_front();
            if let Err(fail) = taken.and_then(|socket| self.connected(id, socket)) {
                self.end(id, Err(fail));
            }
        }
    }

    fn connected(&mut self, id: u32, socket: Fd) -> Result<()> {
        self.poll.add(socket.raw(), EDGE_BOTH, token::STREAM | u64::from(id))?;
        if let Some(call) = self.streams.get_mut(&id).map(|s| &mut s.call) {
            if let Call::Accept(early) = call {
                let early = std::mem::take(early);
                *call = Call::Tunnel(Tunnel::connected(socket, early));
                self.channel.frame(kind::EVENT, 0, 0, id, &[]);
            }
        }
        Ok(())
    }

    pub fn stop_waiting(&mut self, id: u32) {
        if let Some(listener) = &mut self.listener {
            listener.waiting.retain(|w| *w != id);
        }
    }

    /// Calls of a session that is over.
    pub fn forget_waiting(&mut self) {
        if let Some(listener) = &mut self.listener {
            listener.waiting.clear();
        }
    }

    /// The host that wanted the connections is not the one that this machine serves from now on.
    pub fn close_listener(&mut self) {
        if let Some(listener) = self.listener.take() {
            for id in listener.waiting {
                self.end(id, Err(Fail::new(status::CANCELLED, format!("port {}: the machine is another sandbox now", listener.port))));
            }
        }
    }
}
