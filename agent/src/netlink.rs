//! An address and a route for loopback, by rtnetlink (man 7 rtnetlink).

use crate::sys::{check, Fail, Fd, Result};
use std::net::IpAddr;

const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
/// Taking something away has the next number.
const REMOVE: u16 = 1;
const LOOPBACK: u32 = 1;
/// Of a route that any other is preferred to.
const LAST_METRIC: u32 = 0xffff_0000;

/// Gives loopback an address of its own.
pub fn address(address: IpAddr) -> Result<()> {
    let bytes = octets(address);
    // Without waiting for somebody else who might have it.
    let flags = if address.is_ipv6() { 0x02 } else { 0 };
    let mut body = vec![family(address), (bytes.len() * 8) as u8, flags, 0];
    body.extend_from_slice(&LOOPBACK.to_ne_bytes());
    attribute(&mut body, 2, &bytes);
    attribute(&mut body, 1, &bytes);
    request(NEW_ADDRESS, true, &body, "an address for loopback")
}

/// All addresses that no other route knows are this machine's own, as seen from `source`; or no more.
pub fn everything_is_local(source: IpAddr, present: bool) -> Result<()> {
    const MAIN: u8 = 254;
    const STATIC: u8 = 4;
    const SCOPE_HOST: u8 = 254;
    const LOCAL: u8 = 2;
    let mut body = vec![family(source), 0, 0, 0, MAIN, STATIC, if source.is_ipv4() { SCOPE_HOST } else { 0 }, LOCAL];
    body.extend_from_slice(&0u32.to_ne_bytes());
    attribute(&mut body, 4, &LOOPBACK.to_ne_bytes());
    attribute(&mut body, 6, &LAST_METRIC.to_ne_bytes());
    attribute(&mut body, 7, &octets(source));
    request(NEW_ROUTE, present, &body, "a route for loopback")
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
}

/// One request and its acknowledgement. What is as wanted already is no error.
fn request(kind: u16, present: bool, body: &[u8], doing: &str) -> Result<()> {
    const REQUEST_ACK: u16 = 0x5;
    const CREATE_REPLACE: u16 = 0x500;
    let (kind, flags) = if present { (kind, REQUEST_ACK | CREATE_REPLACE) } else { (kind + REMOVE, REQUEST_ACK) };
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    let mut answer = [0u8; 1024];
    // SAFETY: the buffers are valid for their lengths; a zero address means the kernel.
    let errno = unsafe {
        let socket = Fd::own(check(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE), doing)?);
        let sent = libc::send(socket.raw(), message.as_ptr() as *const libc::c_void, message.len(), 0);
        if sent < 0 {
            return Err(Fail::last(doing));
        }
        let n = libc::recv(socket.raw(), answer.as_mut_ptr() as *mut libc::c_void, answer.len(), 0);
        if n < 20 {
            return Err(Fail::last(doing));
        }
        -i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]])
    };
    match (errno, present) {
        (0, _) | (libc::EEXIST, true) | (libc::ESRCH, false) => Ok(()),
        (errno, _) => Err(Fail::errno(errno, doing)),
    }
}
