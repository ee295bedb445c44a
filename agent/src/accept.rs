//! TCP connections of programs in the guest, handed to the host as streams: tunnels in the other direction. They come from a
//! loopback port (ACCEPT), or from wherever a program wanted to connect to (INTERCEPT, intercept.rs). Those that no call has
//! asked for yet wait in the kernel's backlog, and cost the loop nothing there.

use crate::protocol::{kind, status, tag, Fields, Reader};
use crate::queue::Queue;
use crate::session::{token, Agent, Call};
use crate::sys::{Fail, Fd, Result, EDGE_BOTH, EDGE_IN};
use crate::tunnel::{port_of, Tunnel};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::io::{AsRawFd, IntoRawFd};

/// Which listener: the number beside the token of its events.
pub const PORT: usize = 0;
pub const ANYWHERE: usize = 1;

/// Sockets whose connections are the host's, and the calls that wait for one, in their order.
pub struct Listener {
    sockets: Vec<TcpListener>,
    /// 0: any.
    port: u16,
    waiting: VecDeque<u32>,
}

impl Listener {
    /// Addresses may be used again, all is close-on-exec and the backlog is 128: std's own choices.
    pub fn open(addresses: &[IpAddr], port: u16) -> Result<Listener> {
        let doing = |e: io::Error| Fail::io(&e, &format!("port {}", port));
        let mut sockets = Vec::with_capacity(addresses.len());
        for address in addresses {
            let socket = TcpListener::bind((*address, port)).map_err(doing)?;
            socket.set_nonblocking(true).map_err(doing)?;
            sockets.push(socket);
        }
        Ok(Listener { sockets, port, waiting: VecDeque::new() })
    }

    pub fn descriptors(&self) -> impl Iterator<Item = i32> + '_ {
        self.sockets.iter().map(|socket| socket.as_raw_fd())
    }

    /// The next connection, `None` if there is none.
    fn take(&self) -> Result<Option<TcpStream>> {
        for listening in &self.sockets {
            loop {
                let taken = listening.accept().and_then(|(socket, _)| {
                    socket.set_nonblocking(true)?;
                    let _ = socket.set_nodelay(true);
                    Ok(socket)
                });
                match taken {
                    Ok(socket) => return Ok(Some(socket)),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    // It was given up while it waited: the next one.
                    Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                    Err(e) => return Err(Fail::io(&e, &format!("port {}", self.port))),
                }
            }
        }
        Ok(None)
    }

    /// Connections that nobody will take: their programs see a reset.
    fn discard(&self) {
        while let Ok(Some(socket)) = self.take() {
            drop(Tunnel::accepted(Fd::own(socket.into_raw_fd()), Queue::default(), ANYWHERE));
        }
    }
}

impl Agent {
    /// Waits for a connection to the port, behind the calls that wait already.
    pub fn accept_call(&mut self, id: u32, fields: &Reader) -> Result<()> {
        let port = port_of(fields)?;
        match &self.inbound[PORT] {
            Some(l) if l.port == port => {}
            Some(l) if !l.waiting.is_empty() => {
                return Err(Fail::new(status::BUSY, format!("port {}: calls wait for connections to port {}", port, l.port)));
            }
            _ => self.listen(PORT, Listener::open(&[Ipv4Addr::LOCALHOST.into()], port)?)?,
        }
        self.wait_for_connection(id, PORT);
        Ok(())
    }

    /// By their edges: a backlog that nobody asks for must not wake us again and again.
    pub fn listen(&mut self, which: usize, listener: Listener) -> Result<()> {
        for socket in listener.descriptors() {
            self.poll.add(socket, EDGE_IN, token::INBOUND | which as u64)?;
        }
        self.inbound[which] = Some(listener);
        Ok(())
    }

    pub fn wait_for_connection(&mut self, id: u32, which: usize) {
        self.add(id, Call::Accept(Queue::default()));
        if let Some(listener) = &mut self.inbound[which] {
            listener.waiting.push_back(id);
        }
        self.take_connections(which);
    }

    /// A connection for each call that waits, while there are some. A failure is told to each: who still wants one asks again.
    pub fn take_connections(&mut self, which: usize) {
        while let Some(listener) = self.inbound.get_mut(which).and_then(Option::as_mut) {
            let id = match listener.waiting.front() {
                Some(id) => *id,
                None => return,
            };
            let taken = match listener.take().transpose() {
                Some(taken) => taken,
                None => return,
            };
            listener.waiting.pop_front();
            if let Err(fail) = taken.and_then(|socket| self.connected(id, socket, which)) {
                self.end(id, Err(fail));
            }
        }
    }

    fn connected(&mut self, id: u32, socket: TcpStream, which: usize) -> Result<()> {
        let mut event = Fields::new();
        if which == ANYWHERE {
            // The address that the program asked for is the connection's own at this end.
            let wanted = socket.local_addr().map_err(|e| Fail::io(&e, "a connection's address"))?;
            match wanted {
                SocketAddr::V4(a) => event.bytes(tag::HOST, &a.ip().octets()),
                SocketAddr::V6(a) => event.bytes(tag::HOST, &a.ip().octets()),
            };
            event.u16(tag::PORT, wanted.port());
        }
        let socket = Fd::own(socket.into_raw_fd());
        self.poll.add(socket.raw(), EDGE_BOTH, token::STREAM | u64::from(id))?;
        if let Some(call) = self.streams.get_mut(&id).map(|s| &mut s.call) {
            if let Call::Accept(early) = call {
                let early = std::mem::take(early);
                *call = Call::Tunnel(Tunnel::accepted(socket, early, which));
                self.channel.frame(kind::EVENT, 0, 0, id, &event.0);
            }
        }
        Ok(())
    }

    /// All that came from there end here, those that nobody has taken yet among them.
    pub fn cut_connections(&mut self, which: usize) {
        if let Some(listener) = &self.inbound[which] {
            listener.discard();
        }
        let theirs = |call: &Call| matches!(call, Call::Tunnel(tunnel) if tunnel.listener() == Some(which));
        let calls: Vec<u32> = self.streams.iter().filter(|(_, stream)| theirs(&stream.call)).map(|(id, _)| *id).collect();
        for id in calls {
            self.end(id, Err(Fail::cancelled()));
        }
    }

    pub fn stop_waiting(&mut self, id: u32) {
        for listener in self.inbound.iter_mut().flatten() {
            listener.waiting.retain(|w| *w != id);
        }
    }

    /// Calls of a session that is over.
    pub fn forget_waiting(&mut self) {
        for listener in self.inbound.iter_mut().flatten() {
            listener.waiting.clear();
        }
    }

    /// The host that wanted the connections is not the one that this machine serves from now on.
    pub fn another_sandbox(&mut self) {
        for listener in self.inbound.iter_mut().flatten() {
            listener.discard();
        }
        let calls: Vec<u32> = self.inbound.iter_mut().flatten().flat_map(|listener| listener.waiting.drain(..)).collect();
        for id in calls {
            self.end(id, Err(Fail::new(status::CANCELLED, "the machine is another sandbox now")));
        }
        self.inbound[PORT] = None;
    }
}
