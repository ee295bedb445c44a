//! Packets by hand: those that come from addresses which are not ours, as a socket cannot send them (RFC 768, 791, 792, 4443, 8200).

use crate::sys::{check, Fd, Result};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::io::AsRawFd;

/// An IPv6 address, or an IPv4 one behind ::ffff.
pub type Address = [u8; 16];
pub type Endpoint = (Address, u16);

/// linux/in6.h; libc has no name for it.
const IPV6_RECVORIGDSTADDR: libc::c_int = 74;
/// linux/icmp.h
const ICMP_FILTER: libc::c_int = 1;
/// linux/icmpv6.h
const ICMP6_FILTER: libc::c_int = 1;
const SOL_RAW: libc::c_int = 255;
const HOPS: u8 = 64;

/// What a message of ICMP is: type and code, of IPv4 and of IPv6.
struct Message([(u8, u8); 2]);

const ECHO: Message = Message([(8, 0), (128, 0)]);
const ECHO_REPLY: Message = Message([(0, 0), (129, 0)]);
const PORT_UNREACHABLE: Message = Message([(3, 3), (1, 4)]);
const PROHIBITED: Message = Message([(3, 13), (1, 1)]);

impl Message {
    fn kind(&self, family: usize) -> u8 {
        self.0[family].0
    }
}

pub fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

pub fn is_ipv4(address: &Address) -> bool {
    address.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
}

pub fn is_loopback(address: &Address) -> bool {
    if is_ipv4(address) { address[12] == 127 } else { *address == std::net::Ipv6Addr::LOCALHOST.octets() }
}

pub fn udp((from, source): Endpoint, (to, target): Endpoint, payload: &[u8]) -> Vec<u8> {
    let mut body = udp_header(source, target, payload.len());
    body.extend_from_slice(payload);
    // IPv4 needs none on a way that never leaves this machine; IPv6 has to have one, and 0 is written as its complement.
    if !is_ipv4(&from) {
        let sum = match checksum(&[&pseudo(&from, &to, libc::IPPROTO_UDP, body.len()), &body]) {
            0 => 0xffff,
            sum => sum,
        };
        body[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    packet(&from, &to, libc::IPPROTO_UDP, body)
}

/// `rest`: identifier, number and data of the request.
pub fn echo_reply(from: Address, to: Address, rest: &[u8]) -> Vec<u8> {
    icmp(&from, &to, &ECHO_REPLY, rest)
}

/// What tells a program at once that its echo will not be passed on.
pub fn echo_prohibited(guest: Address, other: Address, rest: &[u8]) -> Vec<u8> {
    let sent = icmp(&guest, &other, &ECHO, rest.get(..4).unwrap_or(&[]));
    unreachable(other, guest, &PROHIBITED, &sent)
}

/// What makes the next call of a program on its UDP socket fail with "connection refused".
pub fn port_unreachable(guest: Endpoint, other: Endpoint) -> Vec<u8> {
    let sent = packet(&guest.0, &other.0, libc::IPPROTO_UDP, udp_header(guest.1, other.1, 0));
    unreachable(other.0, guest.0, &PORT_UNREACHABLE, &sent)
}

fn unreachable(from: Address, to: Address, why: &Message, sent: &[u8]) -> Vec<u8> {
    let mut rest = vec![0; 4];
    rest.extend_from_slice(sent);
    icmp(&from, &to, why, &rest)
}

fn udp_header(source: u16, target: u16, payload: usize) -> Vec<u8> {
    [source, target, (8 + payload) as u16, 0].iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn icmp(from: &Address, to: &Address, what: &Message, rest: &[u8]) -> Vec<u8> {
    let family = usize::from(!is_ipv4(from));
    let (kind, code) = what.0[family];
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(rest);
    let protocol = [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6][family];
    let sum = if family == 0 { checksum(&[&message]) } else { checksum(&[&pseudo(from, to, protocol, message.len()), &message]) };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    packet(from, to, protocol, message)
}

fn packet(from: &Address, to: &Address, protocol: libc::c_int, body: Vec<u8>) -> Vec<u8> {
    let mut packet = Vec::with_capacity(40 + body.len());
    if is_ipv4(from) {
        let length = ((20 + body.len()) as u16).to_be_bytes();
        // No options; the kernel fills in identification and checksum where it sends it, and reads neither where it is quoted.
        packet.extend_from_slice(&[0x45, 0, length[0], length[1], 0, 0, 0, 0, HOPS, protocol as u8, 0, 0]);
        packet.extend_from_slice(&from[12..]);
        packet.extend_from_slice(&to[12..]);
    } else {
        let length = (body.len() as u16).to_be_bytes();
        packet.extend_from_slice(&[0x60, 0, 0, 0, length[0], length[1], protocol as u8, HOPS]);
        packet.extend_from_slice(from);
        packet.extend_from_slice(to);
    }
    packet.extend_from_slice(&body);
    packet
}

/// What a checksum of IPv6 counts beside the message (RFC 8200, 8.1).
fn pseudo(from: &Address, to: &Address, protocol: libc::c_int, length: usize) -> Vec<u8> {
    let mut header = [*from, *to].concat();
    header.extend_from_slice(&(length as u32).to_be_bytes());
    header.extend_from_slice(&[0, 0, 0, protocol as u8]);
    header
}

/// Of parts that, but for the last, have an even length (RFC 1071).
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2)).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A socket that sends whole packets, whatever address they come from.
pub fn raw_socket(family: libc::c_int) -> Result<Fd> {
    open_raw(family, libc::IPPROTO_RAW, "the socket for answers")
}

/// Sockets that get a copy of each ICMP echo, of IPv4 and of IPv6.
pub fn echo_sockets() -> Result<[Fd; 2]> {
    let doing = "the socket for echoes";
    let four = open_raw(libc::AF_INET, libc::IPPROTO_ICMP, doing)?;
    option(four.raw(), SOL_RAW, ICMP_FILTER, &[!(1 << ECHO.kind(0))], doing)?;
    let six = open_raw(libc::AF_INET6, libc::IPPROTO_ICMPV6, doing)?;
    // A bit for each type that is kept away.
    let mut others = [-1; 8];
    others[usize::from(ECHO.kind(1)) / 32] = !(1 << (ECHO.kind(1) % 32));
    option(six.raw(), libc::IPPROTO_ICMPV6, ICMP6_FILTER, &others, doing)?;
    option(six.raw(), libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, &[1], doing)?;
    Ok([four, six])
}

fn open_raw(family: libc::c_int, protocol: libc::c_int, doing: &str) -> Result<Fd> {
    // SAFETY: plain integers.
    unsafe { check(libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol), doing).map(Fd::own) }
}

/// Each datagram says to which address it was sent.
pub fn original_destination(socket: &UdpSocket, six: bool) -> Result<()> {
    let (level, name) = if six { (libc::SOL_IPV6, IPV6_RECVORIGDSTADDR) } else { (libc::SOL_IP, libc::IP_RECVORIGDSTADDR) };
    option(socket.as_raw_fd(), level, name, &[1], "addresses of datagrams")
}

fn option(socket: i32, level: libc::c_int, name: libc::c_int, value: &[libc::c_int], doing: &str) -> Result<()> {
    let size = std::mem::size_of_val(value) as libc::socklen_t;
    // SAFETY: the kernel reads as many bytes as there are.
    check(unsafe { libc::setsockopt(socket, level, name, value.as_ptr() as *const libc::c_void, size) }, doing).map(|_| ())
}

pub fn send(socket: &Fd, to: &Address, packet: &[u8]) {
    // SAFETY: a zeroed address is valid; both buffers outlive the call.
    unsafe {
        let mut storage: libc::sockaddr_in6 = std::mem::zeroed();
        let size = if is_ipv4(to) {
            let four = &mut *(&mut storage as *mut _ as *mut libc::sockaddr_in);
            four.sin_family = libc::AF_INET as libc::sa_family_t;
            four.sin_addr.s_addr = u32::from_ne_bytes([to[12], to[13], to[14], to[15]]);
            std::mem::size_of::<libc::sockaddr_in>()
        } else {
            storage.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            storage.sin6_addr.s6_addr = *to;
            std::mem::size_of::<libc::sockaddr_in6>()
        };
        libc::sendto(socket.raw(), packet.as_ptr() as *const libc::c_void, packet.len(), 0, &storage as *const _ as *const libc::sockaddr, size as libc::socklen_t);
    }
}

/// An echo request of IPv4, its header first: the length, who sent it, and to whom.
pub fn receive_echo4(socket: &Fd, buffer: &mut [u8]) -> Option<(usize, Address, Address)> {
    // SAFETY: the buffer is valid for its length.
    let n = unsafe { libc::recv(socket.raw(), buffer.as_mut_ptr() as *mut libc::c_void, buffer.len(), 0) };
    let ip = |at: usize| buffer.get(at..at + 4).map_or([0; 4], |b| [b[0], b[1], b[2], b[3]]);
    (n >= 0).then(|| (n as usize, address(ip(12).into()), address(ip(16).into())))
}

/// What of an echo request of IPv4, its header first, goes into its answer. `None`: it is none, or damaged, or cut to our buffer.
pub fn echo_body4(packet: &[u8]) -> Option<&[u8]> {
    let message = packet.get(usize::from(packet.first()? & 15) * 4..)?;
    let length = packet.get(2..4)?;
    let whole = usize::from(u16::from_be_bytes([length[0], length[1]])) == packet.len();
    (whole && message.first() == Some(&ECHO.kind(0)) && checksum(&[message]) == 0).then(|| message.get(4..)).flatten()
}

/// The same of one of IPv6, which comes without its header; the kernel has looked at the checksum.
pub fn echo_body6(message: &[u8]) -> Option<&[u8]> {
    (message.first() == Some(&ECHO.kind(1))).then(|| message.get(4..)).flatten()
}

/// A datagram: its length, whose it is, and to which address it was sent. A length beyond the buffer: it was cut.
pub fn receive(socket: i32, buffer: &mut [u8]) -> Option<(usize, Endpoint, Endpoint)> {
    // SAFETY: all buffers outlive the call, and what is read of them is what the kernel says it wrote.
    unsafe {
        let mut from: libc::sockaddr_in6 = std::mem::zeroed();
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr() as *mut libc::c_void, iov_len: buffer.len() };
        let mut control = [0u64; 16];
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_name = &mut from as *mut _ as *mut libc::c_void;
        message.msg_namelen = std::mem::size_of_val(&from) as libc::socklen_t;
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr() as *mut libc::c_void;
        message.msg_controllen = std::mem::size_of_val(&control) as _;
        let n = libc::recvmsg(socket, &mut message, libc::MSG_TRUNC);
        if n < 0 {
            return None;
        }
        let mut to = None;
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            let bytes = std::slice::from_raw_parts(libc::CMSG_DATA(header), ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize));
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_IP, libc::IP_RECVORIGDSTADDR) | (libc::SOL_IPV6, IPV6_RECVORIGDSTADDR) => {
                    let mut storage: libc::sockaddr_in6 = std::mem::zeroed();
                    let size = bytes.len().min(std::mem::size_of_val(&storage));
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), &mut storage as *mut _ as *mut u8, size);
                    to = Some(endpoint(&storage));
                }
                // The address, then the number of the interface.
                (libc::SOL_IPV6, libc::IPV6_PKTINFO) => to = bytes.get(..16).and_then(|octets| octets.try_into().ok()).map(|octets| (octets, 0)),
                _ => {}
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
        to.map(|to| (n as usize, endpoint(&from), to))
    }
}

/// Of either family: both fit into the larger structure.
fn endpoint(storage: &libc::sockaddr_in6) -> Endpoint {
    if storage.sin6_family != libc::AF_INET as libc::sa_family_t {
        return (storage.sin6_addr.s6_addr, u16::from_be(storage.sin6_port));
    }
    // SAFETY: the family says which of the two it is, and it is the smaller one.
    let four = unsafe { &*(storage as *const _ as *const libc::sockaddr_in) };
    (address(four.sin_addr.s_addr.to_ne_bytes().into()), u16::from_be(four.sin_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standards() {
        // RFC 1071, section 3.
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        let six = |n: u8| address(std::net::Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, n.into()).into());
        let packet = udp((six(1), 123), (six(2), 4_000), b"odd");
        assert_eq!(packet.len(), 40 + 8 + 3);
        assert_eq!(checksum(&[&pseudo(&six(1), &six(2), libc::IPPROTO_UDP, 11), &packet[40..]]), 0);
    }

    #[test]
    fn an_echo_is_answered_with_what_it_had_and_nothing_else_is() {
        let (guest, other) = (address([198, 19, 255, 254].into()), address([203, 0, 113, 9].into()));
        let rest = [0x12, 0x34, 0, 7, b'p', b'i', b'n', b'g'];
        let request = icmp(&guest, &other, &ECHO, &rest);
        assert_eq!(echo_body4(&request), Some(&rest[..]));
        assert_eq!(echo_body4(&request[..request.len() - 1]), None);
        let reply = echo_reply(other, guest, &rest);
        assert_eq!((&reply[12..16], &reply[16..20], reply[20]), (&[203, 0, 113, 9][..], &[198, 19, 255, 254][..], 0));
        assert_eq!(echo_body4(&reply), None);
        let mut damaged = request;
        damaged[28] ^= 1;
        assert_eq!(echo_body4(&damaged), None);
        assert_eq!(echo_body4(&[]), None);
        assert_eq!(echo_body4(&[0x45]), None);
    }

    #[test]
    fn a_refusal_quotes_what_was_sent() {
        let (guest, other) = ((address([198, 19, 255, 254].into()), 4_000), (address([203, 0, 113, 9].into()), 123));
        let packet = port_unreachable(guest, other);
        assert_eq!((packet[20], packet[21]), (3, 3));
        let quoted = &packet[28..];
        assert_eq!((&quoted[12..16], &quoted[20..24]), (&[198, 19, 255, 254][..], &[0x0f, 0xa0, 0, 123][..]));
    }

    #[test]
    fn messages_of_ipv6_have_their_own_kinds_and_a_checksum_over_both_addresses() {
        let six = |n: u16| address(std::net::Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, n).into());
        let (guest, other) = (six(1), six(2));
        let whole = |packet: &[u8]| checksum(&[&pseudo(&other, &guest, libc::IPPROTO_ICMPV6, packet.len() - 40), &packet[40..]]) == 0;
        let rest = [0x12, 0x34, 0, 7, b'o', b'd', b'd'];
        let reply = echo_reply(other, guest, &rest);
        assert_eq!((reply[6], reply[40], reply[41], &reply[44..]), (58, 129, 0, &rest[..]));
        assert!(whole(&reply));
        let refused = echo_prohibited(guest, other, &rest);
        assert_eq!((refused[40], refused[41]), (1, 1));
        assert!(whole(&refused));
        // What was sent, as far as a program knows its own by it.
        let quoted = &refused[48..];
        assert_eq!((&quoted[8..24], &quoted[24..40], quoted[40], &quoted[44..]), (&guest[..], &other[..], 128, &rest[..4]));
        assert_eq!(echo_body6(&quoted[40..]), Some(&rest[..4]));
        assert_eq!(echo_body6(&reply[40..]), None);
        assert_eq!(echo_body6(&[128, 0, 0]), None);
        let port = port_unreachable((guest, 4_000), (other, 123));
        assert_eq!((port[40], port[41]), (1, 4));
        assert!(whole(&port));
    }
}
