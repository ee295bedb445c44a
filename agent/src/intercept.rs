//! The network of programs that know nothing of a proxy. There is no network card: every address is loopback's, so the guest's own
//! kernel is the other end of each connection; a program of bpf.rs gives it to a socket of ours, and the host dials instead (INTERCEPT).
//! Questions for names, to whatever server, come to a socket of ours too and are answered by the host (DATAGRAMS).
//!
//! Sockets and program are made at boot, so a golden snapshot has them; address and routes, without which nothing reaches
//! them, come and go with the identity (NETWORK).
//!
//! A datagram is, in DATA of either direction, integers little-endian and addresses as in a packet:
//!
//! ```text
//!  0        2               6        8              12       14
//!  +--------+---------------+--------+---------------+--------+----
//!  | length | guest address | port   | other address | port   | payload ...
//!  +--------+---------------+--------+---------------+--------+----
//! ```

use crate::accept::{Listener, ANYWHERE};
use crate::bpf::{Addresses, Steering, DNS4, TCP4, TCP6};
use crate::buffers::Bytes;
use crate::netlink;
use crate::protocol::{channel, kind, status};
use crate::session::{token, Agent, Call};
use crate::sys::{check, Fail, Fd, Result, LEVEL_IN};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::unix::io::AsRawFd;

/// Loopback's, while there is a network. Of the ranges for benchmarks and for private use: nobody else's.
const OWN4: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 254);
const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x7461, 0x6379, 0, 0, 0, 0, 1);
/// The name server of /etc/resolv.conf.
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const HEADER: usize = 14;
/// Questions are short; a longer datagram is cut, as a network would.
const MAX_QUESTION: usize = 4_096;
/// Datagrams that one turn of the loop takes.
const TURN: usize = 32;

/// What was made at boot.
pub struct Intercept {
    _steering: Steering,
    questions: UdpSocket,
    /// For answers from addresses that are not ours.
    answers: Fd,
    on: bool,
    /// The call that takes the datagrams.
    call: Option<u32>,
    /// Of a datagram of the host, what has come.
    partial: Vec<u8>,
}

impl Intercept {
    fn prepare() -> Result<(Intercept, Listener)> {
        let own6 = OWN6.octets();
        let addresses = Addresses { own4: OWN4.octets(), own6: [own6[0], own6[1], own6[2], own6[3]], dns: NAME_SERVER.octets() };
        let steering = Steering::attach(&addresses)?;
        // Any port: programs of the guest keep all the known ones.
        let listener = Listener::open(&[NAME_SERVER.into(), Ipv6Addr::LOCALHOST.into()], 0)?;
        for (slot, socket) in [TCP4, TCP6].into_iter().zip(listener.descriptors()) {
            steering.give(slot, socket)?;
        }
        let doing = |e: std::io::Error| Fail::io(&e, "the socket for names");
        let questions = UdpSocket::bind((NAME_SERVER, 0)).map_err(doing)?;
        questions.set_nonblocking(true).map_err(doing)?;
        original_destination(&questions)?;
        steering.give(DNS4, questions.as_raw_fd())?;
        // SAFETY: plain integers.
        let answers = unsafe {
            check(libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, libc::IPPROTO_RAW), "the socket for answers")
        };
        Ok((Intercept { _steering: steering, questions, answers: Fd::own(answers?), on: false, call: None, partial: Vec::new() }, listener))
    }

    fn switch(&mut self, on: bool) -> Result<()> {
        if on == self.on {
            return Ok(());
        }
        self.on = on;
        for own in [IpAddr::V4(OWN4), IpAddr::V6(OWN6)] {
            if on {
                netlink::address(own, true)?;
            }
            netlink::everything_is_local(own, on)?;
            if !on {
                netlink::address(own, false)?;
            }
        }
        Ok(())
    }

    /// The next question, as a datagram for the host.
    fn question(&self) -> Option<Vec<u8>> {
        let mut payload = [0u8; MAX_QUESTION];
        let (n, from, to) = receive(&self.questions, &mut payload)?;
        let mut out = Vec::with_capacity(HEADER + n);
        out.extend_from_slice(&(n as u16).to_le_bytes());
        for (address, port) in [from, to] {
            out.extend_from_slice(&address);
            out.extend_from_slice(&port.to_le_bytes());
        }
        out.extend_from_slice(payload.get(..n)?);
        Some(out)
    }

    /// Sends an answer of the host to the program that asked. What cannot be sent is lost, as on a network.
    fn answer(&self, datagram: &[u8]) {
        if let (Some(guest), Some(payload)) = (datagram.get(2..6), datagram.get(HEADER..)) {
            let port = |at: usize| u16::from_le_bytes([datagram[at], datagram[at + 1]]).to_be_bytes();
            let length = (8 + payload.len()) as u16;
            let mut packet = Vec::with_capacity(28 + payload.len());
            // IPv4, no options; the kernel fills in length, identification and checksum.
            packet.extend_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, libc::IPPROTO_UDP as u8, 0, 0]);
            packet.extend_from_slice(&datagram[8..12]);
            packet.extend_from_slice(guest);
            packet.extend_from_slice(&port(12));
            packet.extend_from_slice(&port(6));
            packet.extend_from_slice(&length.to_be_bytes());
            // No checksum: it never leaves this machine.
            packet.extend_from_slice(&[0, 0]);
            packet.extend_from_slice(payload);
            // SAFETY: a zeroed address is valid; both buffers outlive the call.
            unsafe {
                let mut to: libc::sockaddr_in = std::mem::zeroed();
                to.sin_family = libc::AF_INET as libc::sa_family_t;
                to.sin_addr.s_addr = u32::from_ne_bytes([guest[0], guest[1], guest[2], guest[3]]);
                let size = std::mem::size_of_val(&to) as libc::socklen_t;
                libc::sendto(self.answers.raw(), packet.as_ptr() as *const libc::c_void, packet.len(), 0, &to as *const _ as *const libc::sockaddr, size);
            }
        }
    }
}

impl Agent {
    /// Runs once, at boot. A guest whose kernel cannot do it has no network but the proxy.
    pub fn prepare_intercept(&mut self) -> Result<()> {
        let (intercept, listener) = Intercept::prepare()?;
        self.poll.add(intercept.questions.as_raw_fd(), LEVEL_IN, token::QUESTIONS)?;
        self.listen(ANYWHERE, listener)?;
        self.intercept = Some(intercept);
        Ok(())
    }

    /// From now on every address is taken, or none is any more.
    pub fn network(&mut self, on: bool) -> Result<()> {
        match &mut self.intercept {
            Some(intercept) => intercept.switch(on),
            None => Ok(()),
        }
    }

    pub fn intercept_call(&mut self, id: u32) -> Result<()> {
        self.intercept_ready()?;
        self.wait_for_connection(id, ANYWHERE);
        Ok(())
    }

    fn intercept_ready(&self) -> Result<()> {
        match &self.intercept {
            Some(_) => Ok(()),
            None => Err(Fail::new(status::NOT_SUPPORTED, "this guest's kernel has no BPF program of type sk_lookup")),
        }
    }

    /// This call gets the datagrams from now on; a newer one wins.
    pub fn datagrams_call(&mut self, id: u32) -> Result<()> {
        self.intercept_ready()?;
        self.add(id, Call::Datagrams);
        if let Some(intercept) = &mut self.intercept {
            intercept.partial.clear();
            // It may be over: then nothing more is said of it.
            if let Some(former) = intercept.call.replace(id).filter(|former| self.streams.contains_key(former)) {
                self.end(former, Err(Fail::new(status::CANCELLED, "another call takes the datagrams")));
            }
        }
        Ok(())
    }

    pub fn questions_ready(&mut self) {
        for _ in 0..TURN {
            let intercept = match &self.intercept {
                Some(intercept) => intercept,
                None => return,
            };
            let datagram = match intercept.question() {
                Some(datagram) => datagram,
                None => return,
            };
            let id = match intercept.call {
                Some(id) => id,
                None => continue,
            };
            // Nobody takes it, or it would have to wait: who asked asks again.
            if let Some(stream) = self.streams.get_mut(&id) {
                if stream.credit >= datagram.len() as u64 && self.channel.room() {
                    stream.credit -= datagram.len() as u64;
                    self.channel.frame(kind::DATA, channel::BODY, 0, id, &datagram);
                }
            }
        }
    }

    pub fn datagram_input(&mut self, id: u32, bytes: Bytes) {
        if let Some(intercept) = &mut self.intercept {
            intercept.partial.extend_from_slice(&bytes);
            let mut at = 0;
            while let Some([low, high]) = intercept.partial.get(at..at + 2) {
                let end = at + HEADER + usize::from(u16::from_le_bytes([*low, *high]));
                match intercept.partial.get(at..end) {
                    Some(datagram) => intercept.answer(datagram),
                    None => break,
                }
                at = end;
            }
            intercept.partial.drain(..at);
        }
        self.grant(id, bytes.len());
    }

    pub fn forget_datagrams(&mut self) {
        if let Some(intercept) = &mut self.intercept {
            intercept.call = None;
        }
    }
}

/// Each question says to which server it was sent.
fn original_destination(socket: &UdpSocket) -> Result<()> {
    let one: libc::c_int = 1;
    // SAFETY: the kernel reads one int.
    let rc = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_IP, libc::IP_RECVORIGDSTADDR, &one as *const _ as *const libc::c_void, 4) };
    check(rc, "addresses of questions").map(|_| ())
}

type Endpoint = ([u8; 4], u16);

/// A datagram: its length, whose it is, and to which address it was sent.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, Endpoint, Endpoint)> {
    let endpoint = |a: &libc::sockaddr_in| (a.sin_addr.s_addr.to_ne_bytes(), u16::from_be(a.sin_port));
    // SAFETY: all buffers outlive the call, and what is read of them is what the kernel says it wrote.
    unsafe {
        let mut from: libc::sockaddr_in = std::mem::zeroed();
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr() as *mut libc::c_void, iov_len: buffer.len() };
        let mut control = [0u64; 16];
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_name = &mut from as *mut _ as *mut libc::c_void;
        message.msg_namelen = std::mem::size_of_val(&from) as libc::socklen_t;
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr() as *mut libc::c_void;
        message.msg_controllen = std::mem::size_of_val(&control) as _;
        let n = libc::recvmsg(socket.as_raw_fd(), &mut message, 0);
        if n < 0 {
            return None;
        }
        let mut to = None;
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_IP && (*header).cmsg_type == libc::IP_RECVORIGDSTADDR {
                to = Some(endpoint(&std::ptr::read_unaligned(libc::CMSG_DATA(header) as *const libc::sockaddr_in)));
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
        to.map(|to| (n as usize, endpoint(&from), to))
    }
}
