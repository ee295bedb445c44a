//! One small program for the kernel: connections and datagrams to addresses that no program of the guest can have come to the agent's sockets.
//!
//! It is of the type `sk_lookup` (Linux 5.9, Documentation/bpf/prog_sk_lookup.rst): the kernel asks it which socket takes a new
//! connection. So every port of every address is taken by one listening socket, without a firewall and its modules, and the accepted
//! connection's own address says where the program wanted to go.

use crate::sys::{check, Fail, Fd, Result};

/// Slots of the map from which the program takes sockets.
pub const TCP4: u32 = 0;
pub const TCP6: u32 = 1;
pub const UDP4: u32 = 2;
pub const UDP6: u32 = 3;
const SLOTS: u32 = 4;

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const TYPE_SOCKMAP: u32 = 15;
const TYPE_SK_LOOKUP: u32 = 30;
const ATTACH_SK_LOOKUP: u32 = 36;

// Helpers of the kernel, and fields of `struct bpf_sk_lookup`.
const MAP_LOOKUP: i32 = 1;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;
const LOCAL_PORT: i16 = 60;

/// What the program must know. Addresses as they stand in memory.
pub struct Addresses {
    /// The guest's own: servers of its programs answer there.
    pub own4: [u8; 4],
    /// The first half of the guest's own IPv6 address tells it.
    pub own6: [u8; 4],
    /// The one loopback address of which port 53 is ours.
    pub dns: [u8; 4],
}

/// The program in the kernel, as long as this lives.
pub struct Steering {
    map: Fd,
    _program: Fd,
    _link: Fd,
}

impl Steering {
    /// For this network namespace. Nothing comes before `give`.
    pub fn attach(addresses: &Addresses) -> Result<Steering> {
        let map = bpf(MAP_CREATE, &Words::new().u32(TYPE_SOCKMAP).u32(4).u32(8).u32(SLOTS), "a map of sockets")?;
        let code = program(addresses, map.raw());
        let license = b"Apache-2.0\0";
        let load = Words::new()
            .u32(TYPE_SK_LOOKUP)
            .u32(code.len() as u32)
            .u64(code.as_ptr() as u64)
            .u64(license.as_ptr() as u64)
            // log_level, log_size, log_buf, kern_version, prog_flags, prog_name, prog_ifindex
            .u32(0).u32(0).u64(0).u32(0).u32(0).u64(0).u64(0).u32(0)
            .u32(ATTACH_SK_LOOKUP);
        let program = bpf(PROG_LOAD, &load, "the program that steers connections")?;
        let namespace = crate::sys::open(b"/proc/self/ns/net", libc::O_RDONLY, 0)?;
        let link = Words::new().u32(program.raw() as u32).u32(namespace.raw() as u32).u32(ATTACH_SK_LOOKUP).u32(0);
        let link = bpf(LINK_CREATE, &link, "steering connections")?;
        Ok(Steering { map, _program: program, _link: link })
    }

    /// A listening TCP socket or a bound UDP socket takes its slot.
    pub fn give(&self, slot: u32, socket: i32) -> Result<()> {
        let value = socket as u64;
        let update = Words::new().u32(self.map.raw() as u32).u32(0).u64(&slot as *const u32 as u64).u64(&value as *const u64 as u64).u64(0);
        // SAFETY: key and value live until the call has returned.
        check(unsafe { call(MAP_UPDATE, &update) }, "a socket for steering").map(|_| ())
    }
}

/// The attribute of a bpf(2) call, put together from its fields in order.
struct Words(Vec<u8>);

impl Words {
    fn new() -> Words {
        Words(Vec::with_capacity(128))
    }
    fn u32(mut self, value: u32) -> Words {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }
    fn u64(mut self, value: u64) -> Words {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }
}

/// # Safety
/// Addresses among the words must be valid until it returns.
unsafe fn call(command: libc::c_int, words: &Words) -> libc::c_int {
    libc::syscall(libc::SYS_bpf, command, words.0.as_ptr(), words.0.len()) as libc::c_int
}

fn bpf(command: libc::c_int, words: &Words, doing: &str) -> Result<Fd> {
    // SAFETY: callers keep what they point to alive; the kernel copies it.
    let fd = unsafe { call(command, words) };
    if fd < 0 {
        return Err(Fail { status: crate::protocol::status::NOT_SUPPORTED, ..Fail::last(doing) });
    }
    // A descriptor of bpf(2) is close-on-exec by itself.
    Ok(Fd::own(fd))
}

/// One instruction: operation, registers, offset, immediate value (Documentation/bpf/instruction-set.rst).
fn op(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> u64 {
    let [o0, o1] = off.to_le_bytes();
    let [i0, i1, i2, i3] = imm.to_le_bytes();
    u64::from_le_bytes([code, dst | src << 4, o0, o1, i0, i1, i2, i3])
}

/// Where a jump leads; replaced by the distance when all is there.
#[derive(Clone, Copy, PartialEq)]
enum To {
    Pass,
    Other4,
    Six,
    Protocol4,
    Assign,
}

fn program(addresses: &Addresses, map: i32) -> Vec<u64> {
    const MOV: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const LOAD: u8 = 0x61;
    const AND: u8 = 0x57;
    const OR: u8 = 0x4f;
    const ADD: u8 = 0x07;
    const STORE: u8 = 0x63;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const JUMP: u8 = 0x05;
    // Of 32 bits: an address must not be sign-extended.
    const EQUAL: u8 = 0x16;
    const OTHER: u8 = 0x56;
    let word = i32::from_ne_bytes;
    let mut code: Vec<u64> = Vec::new();
    let mut jumps: Vec<(usize, To)> = Vec::new();
    let mut labels: Vec<(To, usize)> = Vec::new();
    macro_rules! put {
        ($($part:expr),*) => { code.push(op($($part),*)) };
    }
    macro_rules! jump {
        ($code:expr, $reg:expr, $imm:expr, $to:expr) => {{
            jumps.push((code.len(), $to));
            code.push(op($code, $reg, 0, 0, $imm));
        }};
    }
    macro_rules! label {
        ($to:expr) => { labels.push(($to, code.len())) };
    }
    put!(MOV, 6, 1, 0, 0);
    put!(LOAD, 2, 6, FAMILY, 0);
    jump!(EQUAL, 2, libc::AF_INET6, To::Six);
    jump!(OTHER, 2, libc::AF_INET, To::Pass);
    // IPv4: loopback is the guest's own, but for the name server's address.
    put!(LOAD, 2, 6, LOCAL_IP4, 0);
    put!(MOV, 3, 2, 0, 0);
    put!(AND, 3, 0, 0, 0xff);
    put!(LOAD, 5, 6, LOCAL_PORT, 0);
    jump!(OTHER, 3, 127, To::Other4);
    jump!(OTHER, 2, word(addresses.dns), To::Pass);
    jump!(OTHER, 5, 53, To::Pass);
    jump!(JUMP, 0, 0, To::Protocol4);
    label!(To::Other4);
    jump!(EQUAL, 2, word(addresses.own4), To::Pass);
    label!(To::Protocol4);
    put!(LOAD, 7, 6, PROTOCOL, 0);
    put!(SET, 4, 0, 0, TCP4 as i32);
    jump!(EQUAL, 7, libc::IPPROTO_TCP, To::Assign);
    jump!(OTHER, 7, libc::IPPROTO_UDP, To::Pass);
    put!(SET, 4, 0, 0, UDP4 as i32);
    jump!(JUMP, 0, 0, To::Assign);
    label!(To::Six);
    // The first 96 bits are 0 in ::1.
    put!(LOAD, 2, 6, LOCAL_IP6, 0);
    jump!(EQUAL, 2, word(addresses.own6), To::Pass);
    put!(LOAD, 3, 6, LOCAL_IP6 + 4, 0);
    put!(OR, 2, 3, 0, 0);
    put!(LOAD, 3, 6, LOCAL_IP6 + 8, 0);
    put!(OR, 2, 3, 0, 0);
    jump!(EQUAL, 2, 0, To::Pass);
    put!(LOAD, 7, 6, PROTOCOL, 0);
    put!(SET, 4, 0, 0, TCP6 as i32);
    jump!(EQUAL, 7, libc::IPPROTO_TCP, To::Assign);
    jump!(OTHER, 7, libc::IPPROTO_UDP, To::Pass);
    put!(SET, 4, 0, 0, UDP6 as i32);
    label!(To::Assign);
    put!(STORE, 10, 4, -4, 0);
    // The map, by its descriptor: an instruction of two words.
    put!(0x18, 1, 1, 0, map);
    put!(0, 0, 0, 0, 0);
    put!(MOV, 2, 10, 0, 0);
    put!(ADD, 2, 0, 0, -4);
    put!(CALL, 0, 0, 0, MAP_LOOKUP);
    // A pointer: compared with all its bits.
    jump!(0x15, 0, 0, To::Pass);
    put!(MOV, 7, 0, 0, 0);
    put!(MOV, 1, 6, 0, 0);
    put!(MOV, 2, 7, 0, 0);
    put!(SET, 3, 0, 0, 0);
    put!(CALL, 0, 0, 0, SK_ASSIGN);
    put!(MOV, 1, 7, 0, 0);
    put!(CALL, 0, 0, 0, SK_RELEASE);
    label!(To::Pass);
    put!(SET, 0, 0, 0, 1);
    put!(EXIT, 0, 0, 0, 0);
    for (at, to) in jumps {
        let target = labels.iter().find(|(label, _)| *label == to).map_or(at, |(_, target)| *target);
        let distance = target as i64 - at as i64 - 1;
        code[at] |= u64::from(distance as u16) << 16;
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_leads_forward_into_the_program() {
        let code = program(&Addresses { own4: [198, 19, 255, 254], own6: [0xfd, 0x53, 0x74, 0x61], dns: [127, 0, 0, 53] }, 3);
        let mut jumps = 0;
        for (at, word) in code.iter().enumerate() {
            let class = word.to_le_bytes()[0] & 7;
            let is_jump = (class == 5 || class == 6) && !matches!(word.to_le_bytes()[0], 0x85 | 0x95);
            if is_jump {
                let distance = (*word >> 16) as u16 as i16;
                assert!(distance >= 0 && at + 1 + (distance as usize) < code.len(), "jump at {}", at);
                jumps += 1;
            }
        }
        assert_eq!(jumps, 15);
    }
}
