//! What programs of the guest send without a connection, to addresses that are not their own: UDP, questions for names among it, and
//! ICMP echo. The host gets each datagram and answers it, or says that it is refused (DATAGRAMS).
//!
//! A datagram is, in DATA of either direction, integers little-endian; an IPv4 address stands behind ::ffff:
//!
//! ```text
//!  0        2      3      4               20     22              38     40
//!  +--------+------+------+---------------+------+---------------+------+----
//!  | length | kind | 0    | guest address | port | other address | port | payload ...
//!  +--------+------+------+---------------+------+---------------+------+----
//! ```
//!
//! Of an echo both ports are 0 and the payload is the ICMP message behind its checksum: identifier, number, data. A refusal has what is
//! refused in front of its payload, which is empty.

use crate::buffers::Bytes;
use crate::packets::{self, Address};
use crate::protocol::{channel, kind, status};
use crate::session::{token, Agent, Call};
use crate::sys::{Fail, Fd, Result, LEVEL_IN};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::io::AsRawFd;

const HEADER: usize = 40;
/// A longer one is lost, as on a network that takes no such packets.
const MAX_PAYLOAD: usize = 16_384;
/// Datagrams that one turn of the loop takes from each socket.
const TURN: usize = 32;

/// What a datagram is.
mod is {
    pub const UDP: u8 = 0;
    pub const ECHO: u8 = 1;
    pub const UDP_REFUSED: u8 = 2;
    pub const ECHO_REFUSED: u8 = 3;
}

/// With 1 in these the kernel answers no echo itself: it would answer for every address.
const ECHO_SWITCHES: [&str; 2] = ["/proc/sys/net/ipv4/icmp_echo_ignore_all", "/proc/sys/net/ipv6/icmp/echo_ignore_all"];

pub struct Datagrams {
    /// Of IPv4 and of IPv6.
    udp: [UdpSocket; 2],
    /// Get a copy of each ICMP echo, of IPv4 and of IPv6.
    echo: [Fd; 2],
    /// For answers from addresses that are not ours, of IPv4 and of IPv6.
    out: [Fd; 2],
    /// The guest's own addresses.
    own: [Address; 2],
    /// The call that takes the datagrams.
    call: Option<u32>,
    /// Of a datagram of the host, what has come.
    partial: Vec<u8>,
}

struct Datagram<'a> {
    kind: u8,
    guest: (Address, u16),
    other: (Address, u16),
    payload: &'a [u8],
}

impl Datagram<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.payload.len());
        out.extend_from_slice(&(self.payload.len() as u16).to_le_bytes());
        out.extend_from_slice(&[self.kind, 0]);
        for (address, port) in [self.guest, self.other] {
            out.extend_from_slice(&address);
            out.extend_from_slice(&port.to_le_bytes());
        }
        out.extend_from_slice(self.payload);
        out
    }

    /// Whole, as `datagram_input` cuts them out.
    fn read(bytes: &[u8]) -> Option<Datagram<'_>> {
        let endpoint = |at: usize| {
            let mut address = [0; 16];
            address.copy_from_slice(bytes.get(at..at + 16)?);
            let port = bytes.get(at + 16..at + 18)?;
            Some((address, u16::from_le_bytes([port[0], port[1]])))
        };
        Some(Datagram { kind: *bytes.get(2)?, guest: endpoint(4)?, other: endpoint(22)?, payload: bytes.get(HEADER..)? })
    }
}

impl Datagrams {
    /// `names`: where questions for names come to. `own`: the guest's own addresses.
    pub fn open(names: IpAddr, own: [IpAddr; 2]) -> Result<Datagrams> {
        let bind = |address: IpAddr| -> Result<UdpSocket> {
            let doing = |e: std::io::Error| Fail::io(&e, "the socket for datagrams");
            // Any port: programs of the guest keep all the known ones.
            let socket = UdpSocket::bind((address, 0)).map_err(doing)?;
            socket.set_nonblocking(true).map_err(doing)?;
            packets::original_destination(&socket, address.is_ipv6())?;
            Ok(socket)
        };
        Ok(Datagrams {
            udp: [bind(names)?, bind(std::net::Ipv6Addr::LOCALHOST.into())?],
            echo: packets::echo_sockets()?,
            out: [packets::raw_socket(libc::AF_INET)?, packets::raw_socket(libc::AF_INET6)?],
            own: own.map(packets::address),
            call: None,
            partial: Vec::new(),
        })
    }

    /// The sockets for UDP, of IPv4 and of IPv6.
    pub fn descriptors(&self) -> [i32; 2] {
        [self.udp[0].as_raw_fd(), self.udp[1].as_raw_fd()]
    }

    /// From now on echoes are ours to answer.
    pub fn take_echoes(&self) -> Result<()> {
        ECHO_SWITCHES.iter().try_for_each(|switch| std::fs::write(switch, "1").map_err(|e| Fail::io(&e, switch)))
    }

    /// The next one that a program has sent, for the host.
    fn udp(&self, family: usize) -> Option<Vec<u8>> {
        let mut payload = [0u8; MAX_PAYLOAD];
        loop {
            let (n, guest, other) = packets::receive(self.udp[family].as_raw_fd(), &mut payload)?;
            if let Some(payload) = payload.get(..n) {
                return Some(Datagram { kind: is::UDP, guest, other, payload }.bytes());
            }
        }
    }

    /// The next echo for the host. What is for the guest itself is answered here.
    fn echo(&self, family: usize) -> Option<Vec<u8>> {
        let mut packet = [0u8; MAX_PAYLOAD];
        loop {
            let (guest, other, payload) = if family == 0 {
                let (n, guest, other) = packets::receive_echo4(&self.echo[0], &mut packet)?;
                (guest, other, packet.get(..n).and_then(packets::echo_body4))
            } else {
                let (n, (guest, _), (other, _)) = packets::receive(self.echo[1].raw(), &mut packet)?;
                (guest, other, packet.get(..n).and_then(packets::echo_body6))
            };
            let payload = match payload {
                Some(payload) => payload,
                None => continue,
            };
            let datagram = Datagram { kind: is::ECHO, guest: (guest, 0), other: (other, 0), payload };
            if self.own.contains(&other) || packets::is_loopback(&other) {
                self.send(&datagram);
            } else {
                return Some(datagram.bytes());
            }
        }
    }

    /// To the program. What cannot be sent is lost, as on a network.
    fn send(&self, datagram: &Datagram) {
        let Datagram { guest, other, payload, .. } = *datagram;
        let packet = match datagram.kind {
            is::UDP => packets::udp(other, guest, payload),
            is::ECHO => packets::echo_reply(other.0, guest.0, payload),
            is::UDP_REFUSED => packets::port_unreachable(guest, other),
            is::ECHO_REFUSED => packets::echo_prohibited(guest.0, other.0, payload),
            _ => return,
        };
        let family = usize::from(!packets::is_ipv4(&guest.0));
        packets::send(&self.out[family], &guest.0, &packet);
    }
}

impl Agent {
    pub fn watch_datagrams(&self, datagrams: &Datagrams) -> Result<()> {
        for socket in datagrams.descriptors() {
            self.poll.add(socket, LEVEL_IN, token::DATAGRAMS)?;
        }
        for echo in &datagrams.echo {
            self.poll.add(echo.raw(), LEVEL_IN, token::DATAGRAMS)?;
        }
        Ok(())
    }

    /// This call gets the datagrams from now on; a newer one wins.
    pub fn datagrams_call(&mut self, id: u32) -> Result<()> {
        self.intercept_ready()?;
        self.add(id, Call::Datagrams);
        if let Some(Datagrams { partial, call, .. }) = self.datagrams() {
            partial.clear();
            // It may be over: then nothing more is said of it.
            if let Some(former) = call.replace(id).filter(|former| self.streams.contains_key(former)) {
                self.end(former, Err(Fail::new(status::CANCELLED, "another call takes the datagrams")));
            }
        }
        Ok(())
    }

    fn datagrams(&mut self) -> Option<&mut Datagrams> {
        self.intercept.as_mut().map(|intercept| &mut intercept.datagrams)
    }

    pub fn datagrams_ready(&mut self) {
        type Next = fn(&Datagrams) -> Option<Vec<u8>>;
        let ways: [Next; 4] = [|d| d.udp(0), |d| d.udp(1), |d| d.echo(0), |d| d.echo(1)];
        for next in ways {
            for _ in 0..TURN {
                let (call, datagram) = match self.datagrams().map(|d| (d.call, next(d))) {
                    Some((call, Some(datagram))) => (call, datagram),
                    _ => break,
                };
                if let Some(id) = call {
                    self.hand_over(id, &datagram);
                }
            }
        }
    }

    /// What would have to wait is lost: who sent it sends again.
    fn hand_over(&mut self, id: u32, datagram: &[u8]) {
        if let Some(stream) = self.streams.get_mut(&id) {
            if stream.credit >= datagram.len() as u64 && self.channel.room() {
                stream.credit -= datagram.len() as u64;
                self.channel.frame(kind::DATA, channel::BODY, 0, id, datagram);
            }
        }
    }

    pub fn datagram_input(&mut self, id: u32, bytes: Bytes) {
        if let Some(datagrams) = self.datagrams() {
            datagrams.partial.extend_from_slice(&bytes);
            let mut at = 0;
            while let Some([low, high]) = datagrams.partial.get(at..at + 2) {
                let end = at + HEADER + usize::from(u16::from_le_bytes([*low, *high]));
                match datagrams.partial.get(at..end) {
                    Some(bytes) => {
                        if let Some(datagram) = Datagram::read(bytes) {
                            datagrams.send(&datagram);
                        }
                    }
                    None => break,
                }
                at = end;
            }
            datagrams.partial.drain(..at);
        }
        self.grant(id, bytes.len());
    }

    pub fn forget_datagrams(&mut self) {
        if let Some(datagrams) = self.datagrams() {
            datagrams.call = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_as_it_was_written() {
        let (a, b) = (packets::address([198, 18, 0, 7].into()), packets::address(std::net::Ipv6Addr::LOCALHOST.into()));
        let bytes = Datagram { kind: is::ECHO, guest: (a, 4_000), other: (b, 53), payload: b"abc" }.bytes();
        assert_eq!(bytes.len(), HEADER + 3);
        assert_eq!(bytes[0..2], [3, 0]);
        let read = Datagram::read(&bytes).unwrap();
        assert_eq!((read.kind, read.guest, read.other, read.payload), (is::ECHO, (a, 4_000), (b, 53), &b"abc"[..]));
        assert!(Datagram::read(&bytes[..HEADER - 1]).is_none());
    }
}
