//! TCP connections from the host to a port inside the guest, as streams. They live in the loop.

use crate::buffers::Bytes;
use crate::protocol::{channel, kind, status, tag, Fields, Reader, FLAG_FIN, MAX_PAYLOAD};
use crate::queue::Queue;
use crate::session::{token, Agent, Call};
use crate::sys::{self, check, Fail, Fd, Result, EDGE_BOTH};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub struct Tunnel {
    socket: Fd,
    /// Until it is connected.
    connecting: Option<Connecting>,
    /// Where a program's own connection came in (accept.rs).
    listener: Option<usize>,
    readable: bool,
    read_closed: bool,
    queue: Queue,
    write_closed: bool,
}

struct Connecting {
    /// Other addresses to try.
    next: Vec<IpAddr>,
    port: u16,
}

impl Tunnel {
    fn new(socket: Fd, connecting: Option<Connecting>, queue: Queue) -> Tunnel {
        Tunnel { socket, connecting, listener: None, readable: false, read_closed: false, queue, write_closed: false }
    }

    /// Over a connection that a listener took. `queue`: what waits to be written to it.
    pub fn accepted(socket: Fd, queue: Queue, listener: usize) -> Tunnel {
        let mut tunnel = Tunnel::new(socket, None, queue);
        tunnel.listener = Some(listener);
        tunnel
    }

    pub fn listener(&self) -> Option<usize> {
        self.listener
    }
}

impl Drop for Tunnel {
    /// What was not closed by both sides in order was cut, and programs must see that: a reset, not an end.
    fn drop(&mut self) {
        if self.read_closed && self.write_closed {
            return;
        }
        let cut = libc::linger { l_onoff: 1, l_linger: 0 };
        // SAFETY: the kernel reads the structure.
        unsafe {
            let size = std::mem::size_of_val(&cut) as libc::socklen_t;
            libc::setsockopt(self.socket.raw(), libc::SOL_SOCKET, libc::SO_LINGER, &cut as *const _ as *const libc::c_void, size);
        }
    }
}

pub fn port_of(fields: &Reader) -> Result<u16> {
    match fields.number(tag::PORT) {
        Some(p @ 1..=65_535) => Ok(p as u16),
        _ => Err(Fail::invalid("PORT must be 1 to 65535")),
    }
}

impl Agent {
    pub fn tunnel(&mut self, id: u32, fields: &Reader) -> Result<()> {
        let port = port_of(fields)?;
        let mut next = match fields.bytes(tag::HOST) {
            // Servers listen on either.
            None | Some(b"localhost") | Some(b"") => vec![IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)],
            Some(text) => match std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()) {
                Some(address) => vec![address],
                None => return Err(Fail::invalid("HOST must be an IP address or localhost")),
            },
        };
        let first = next.pop().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let socket = connect(first, port)?;
        self.poll.add(socket.raw(), EDGE_BOTH, token::STREAM | u64::from(id))?;
        self.add(id, Call::Tunnel(Tunnel::new(socket, Some(Connecting { next, port }), Queue::default())));
        Ok(())
    }

    pub fn tunnel_ready(&mut self, id: u32, flags: u32) {
        let tunnel = match self.streams.get_mut(&id).map(|s| &mut s.call) {
            Some(Call::Tunnel(t)) => t,
            _ => return,
        };
        if let Some(Connecting { next, port }) = &mut tunnel.connecting {
            match socket_error(&tunnel.socket) {
                0 if flags & libc::EPOLLOUT as u32 == 0 => return,
                0 => {
                    tunnel.connecting = None;
                    self.channel.frame(kind::EVENT, 0, 0, id, &[]);
                }
                errno => {
                    let result = match next.pop() {
                        Some(address) => connect(address, *port).and_then(|socket| {
                            self.poll.add(socket.raw(), EDGE_BOTH, token::STREAM | u64::from(id))?;
                            tunnel.socket = socket;
                            Ok(())
                        }),
                        None => Err(Fail::errno(errno, &format!("port {}", port))),
                    };
                    if let Err(fail) = result {
                        self.end(id, Err(fail));
                    }
                    return;
                }
            }
        }
        if flags & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0 {
            tunnel.readable = true;
        }
        self.tunnel_write(id);
        self.wake(id);
    }

    pub fn tunnel_input(&mut self, id: u32, bytes: Bytes) {
        if let Some(Call::Tunnel(tunnel)) = self.streams.get_mut(&id).map(|s| &mut s.call) {
            tunnel.queue.push(id, bytes);
            if tunnel.connecting.is_none() {
                self.tunnel_write(id);
            }
        }
    }

    fn tunnel_write(&mut self, id: u32) {
        let stream = match self.streams.get_mut(&id) {
            Some(s) => s,
            None => return,
        };
        let fin = stream.fin;
        let tunnel = match &mut stream.call {
            Call::Tunnel(t) if t.connecting.is_none() => t,
            _ => return,
        };
        let (taken, result) = tunnel.queue.write(tunnel.socket.raw());
        match result {
            Ok(()) | Err(libc::EAGAIN) => {}
            Err(e) => {
                self.end(id, Err(Fail::errno(e, "tunnel")));
                return;
            }
        }
        if fin && tunnel.queue.is_empty() && !tunnel.write_closed {
            tunnel.write_closed = true;
            // SAFETY: plain integers.
            unsafe { libc::shutdown(tunnel.socket.raw(), libc::SHUT_WR) };
        }
        for (stream, bytes) in taken {
            self.grant(stream, bytes);
        }
        self.wake(id);
    }

    /// One frame towards the host. @returns whether there may be more
    pub fn tunnel_send(&mut self, id: u32) -> bool {
        let stream = match self.streams.get_mut(&id) {
            Some(s) => s,
            None => return false,
        };
        let tunnel = match &mut stream.call {
            Call::Tunnel(t) => t,
            _ => return false,
        };
        if tunnel.connecting.is_none() && tunnel.readable && !tunnel.read_closed && stream.credit > 0 {
            let want = stream.credit.min(MAX_PAYLOAD as u64) as usize;
            match sys::read(tunnel.socket.raw(), &mut self.scratch.payload()[..want]) {
                Ok(0) => {
                    tunnel.read_closed = true;
                    self.channel.frame(kind::DATA, channel::BODY, FLAG_FIN, id, &[]);
                }
                Ok(n) => {
                    stream.credit -= n as u64;
                    self.channel.frame_from(kind::DATA, channel::BODY, id, &mut self.scratch, n);
                    return true;
                }
                Err(libc::EAGAIN) => tunnel.readable = false,
                Err(e) => {
                    self.end(id, Err(Fail::errno(e, "tunnel")));
                    return false;
                }
            }
        }
        if tunnel.read_closed && tunnel.write_closed {
            self.end(id, Ok(Fields::new()));
        }
        false
    }
}

fn socket_error(socket: &Fd) -> i32 {
    let mut errno: libc::c_int = 0;
    let mut size = std::mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: room for one int.
    unsafe { libc::getsockopt(socket.raw(), libc::SOL_SOCKET, libc::SO_ERROR, &mut errno as *mut _ as *mut libc::c_void, &mut size) };
    errno
}

fn connect(address: IpAddr, port: u16) -> Result<Fd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: zeroed socket addresses are valid and outlive the calls.
    unsafe {
        let socket = Fd::own(check(libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0), "socket")?);
        let one: libc::c_int = 1;
        libc::setsockopt(socket.raw(), libc::IPPROTO_TCP, libc::TCP_NODELAY, &one as *const _ as *const libc::c_void, 4);
        let rc = match address {
            IpAddr::V4(ip) => {
                let mut a: libc::sockaddr_in = std::mem::zeroed();
                a.sin_family = libc::AF_INET as libc::sa_family_t;
                a.sin_port = port.to_be();
                a.sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
                libc::connect(socket.raw(), &a as *const _ as *const libc::sockaddr, std::mem::size_of_val(&a) as libc::socklen_t)
            }
            IpAddr::V6(ip) => {
                let mut a: libc::sockaddr_in6 = std::mem::zeroed();
                a.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                a.sin6_port = port.to_be();
                a.sin6_addr.s6_addr = ip.octets();
                libc::connect(socket.raw(), &a as *const _ as *const libc::sockaddr, std::mem::size_of_val(&a) as libc::socklen_t)
            }
        };
        if rc < 0 && sys::last_errno() != libc::EINPROGRESS {
            let errno = sys::last_errno();
            if errno != libc::ECONNREFUSED {
                return Err(Fail { status: status::REFUSED, ..Fail::errno(errno, &format!("port {}", port)) });
            }
        }
        Ok(socket)
    }
}
