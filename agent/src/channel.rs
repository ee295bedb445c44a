//! The one byte stream to the host: a virtio-serial port named `agent` (QEMU) or a vsock listener (Firecracker).

use crate::buffers::Buffer;
use crate::protocol::{ends, put_frame, HEADER, PORT, TRAILER};
use crate::sys::{self, check, Fail, Fd, Result};
use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant};

/// DATA is only added while less than this waits in the queue, so that an answer never queues behind much more than it.
const OUT_HIGH: usize = 96 * 1024;
/// Above this nothing is read either: a host that asks without reading is held back.
const OUT_STOP: usize = 512 * 1024;

enum Kind {
    Serial,
    Vsock { listener: Fd },
}

enum Out {
    /// Small frames, one after the other.
    Frames(Vec<u8>),
    /// One frame in a buffer, from its start to here.
    Frame(Buffer, usize),
}

impl Out {
    fn bytes(&self) -> &[u8] {
        match self {
            Out::Frames(bytes) => bytes,
            Out::Frame(buffer, end) => buffer.get(..*end).unwrap_or(&[]),
        }
    }
}

pub struct Channel {
    kind: Kind,
    fd: Option<Fd>,
    out: VecDeque<Out>,
    /// Bytes of the first of `out` that are written already.
    sent: usize,
    /// Bytes of `out` that are not.
    queued: usize,
    sequence: u32,
    /// The last write found the channel full: the next EPOLLOUT continues it.
    blocked: bool,
    /// Something was written since the output was last discarded: the host was there.
    heard: bool,
}

pub enum Received {
    Bytes(usize),
    /// Nothing more for now.
    Empty,
    /// The connection is gone (vsock), or nobody is there (serial).
    Gone,
}

impl Channel {
    /// Waits up to 10 s for the device.
    pub fn open() -> Result<Channel> {
        let begin = Instant::now();
        loop {
            if let Some(port) = serial_port() {
                let fd = sys::open(format!("/dev/{}", port).as_bytes(), libc::O_RDWR | libc::O_NONBLOCK, 0)?;
                return Ok(Channel::new(Kind::Serial, Some(fd)));
            }
            if has_vsock_device() {
                if let Ok(listener) = listen(PORT) {
                    return Ok(Channel::new(Kind::Vsock { listener }, None));
                }
            }
            if begin.elapsed() > Duration::from_secs(10) {
                return Err(Fail::new(crate::protocol::status::NOT_FOUND, "no virtio-serial port `agent` and no vsock"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn new(kind: Kind, fd: Option<Fd>) -> Channel {
        Channel { kind, fd, out: VecDeque::new(), sent: 0, queued: 0, sequence: 0, blocked: false, heard: false }
    }

    pub fn fd(&self) -> Option<i32> {
        self.fd.as_ref().map(|f| f.raw())
    }

    pub fn listener(&self) -> Option<i32> {
        match &self.kind {
            Kind::Vsock { listener } => Some(listener.raw()),
            Kind::Serial => None,
        }
    }

    /// Takes the newest waiting connection; an older one is closed.
    pub fn accept(&mut self) -> bool {
        let listener = match self.listener() {
            Some(l) => l,
            None => return false,
        };
        let mut taken = false;
        loop {
            match sys::accept_from(listener) {
                None => return taken,
                // A program of the guest's own, where its kernel loops these sockets back: it would speak as the host.
                Some((_, cid)) if cid != libc::VMADDR_CID_HOST => continue,
                Some((fd, _)) => self.fd = Some(fd),
            }
            taken = true;
        }
    }

    pub fn close_connection(&mut self) {
        if let Kind::Vsock { .. } = self.kind {
            self.fd = None;
        }
        self.discard();
    }

    /// Drops what was not sent yet. A frame that is half sent stays half: the host hunts over it.
    pub fn discard(&mut self) {
        // The first one stays where it is of use: a short answer finds memory that is there.
        self.out.truncate(1);
        match self.out.front_mut() {
            Some(Out::Frames(bytes)) => bytes.clear(),
            _ => self.out.clear(),
        }
        self.sent = 0;
        self.queued = 0;
        self.sequence = 0;
        self.heard = false;
    }

    /// The host has taken nothing of this session yet. On a virtio-serial port a new host's bytes may come before the kernel's
    /// worker has noted that the host is there; until then reads say 0 ("nobody there") and writes EAGAIN. Such a 0 is not
    /// the end of the session that has just begun: taking it for one would throw half a HELLO or the HELLO_ACK away.
    pub fn unannounced(&self) -> bool {
        matches!(self.kind, Kind::Serial) && !self.heard
    }

    pub fn read(&mut self, space: &mut [u8]) -> Received {
        let fd = match self.fd() {
            Some(fd) => fd,
            None => return Received::Empty,
        };
        match sys::read(fd, space) {
            Ok(0) => Received::Gone,
            Ok(n) => Received::Bytes(n),
            Err(libc::EAGAIN) => Received::Empty,
            Err(_) => Received::Gone,
        }
    }

    pub fn queued(&self) -> usize {
        self.queued
    }
    pub fn room(&self) -> bool {
        self.queued() < OUT_HIGH
    }
    pub fn may_read(&self) -> bool {
        self.queued() < OUT_STOP
    }
    pub fn blocked(&self) -> bool {
        self.blocked
    }
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    pub fn frame(&mut self, kind: u8, channel: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.queued += HEADER + payload.len() + TRAILER;
        let sequence = self.next_sequence();
        put_frame(self.frames(), kind, channel, flags, stream, sequence, payload);
    }

    /// Where small frames are put together. Each is bounded: what is sent of one is given back with it.
    fn frames(&mut self) -> &mut Vec<u8> {
        if !matches!(self.out.back(), Some(Out::Frames(bytes)) if bytes.len() < OUT_HIGH) {
            self.out.push_back(Out::Frames(Vec::with_capacity(4096)));
        }
        match self.out.back_mut() {
            Some(Out::Frames(bytes)) => bytes,
            _ => unreachable!("small frames were put last just now"),
        }
    }

    /// A frame whose payload lies in its place in the buffer already.
    pub fn frame_in(&mut self, kind: u8, channel: u8, stream: u32, mut buffer: Buffer, length: usize) {
        let end = self.seal(kind, channel, stream, &mut buffer, length);
        self.queued += end;
        self.out.push_back(Out::Frame(buffer, end));
    }

    /// The same for a buffer that its owner keeps: what the channel does not take at once is copied.
    pub fn frame_from(&mut self, kind: u8, channel: u8, stream: u32, buffer: &mut Buffer, length: usize) {
        self.flush();
        let end = self.seal(kind, channel, stream, buffer, length);
        let mut done = 0;
        while let (false, 0, Some(fd)) = (self.blocked, self.queued, self.fd()) {
            match sys::write(fd, &buffer[done..end]) {
                Ok(n) => {
                    done += n;
                    self.heard = true;
                }
                Err(libc::EAGAIN) => self.blocked = true,
                // The reading side will meet the same end and clean up.
                Err(_) => return,
            }
            if done == end {
                return;
            }
        }
        let rest = &buffer[done..end];
        self.queued += rest.len();
        self.frames().extend_from_slice(rest);
    }

    /// Puts header and trailer around a payload. @returns where the frame ends
    fn seal(&mut self, kind: u8, channel: u8, stream: u32, buffer: &mut Buffer, length: usize) -> usize {
        let (head, trailer) = ends(kind, channel, 0, stream, self.next_sequence(), length);
        let end = HEADER + length + TRAILER;
        buffer[..HEADER].copy_from_slice(&head);
        buffer[end - TRAILER..end].copy_from_slice(&trailer);
        end
    }

    fn next_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        sequence
    }

    /// Writes what the channel takes now.
    pub fn flush(&mut self) {
        let fd = match self.fd() {
            Some(fd) => fd,
            None => {
                self.discard();
                return;
            }
        };
        while !self.blocked && self.queued > 0 {
            let first = match self.out.front() {
                Some(first) => first.bytes(),
                None => return,
            };
            if self.sent < first.len() {
                match sys::write(fd, &first[self.sent..]) {
                    Ok(n) => {
                        self.sent += n;
                        self.queued -= n;
                        self.heard = true;
                    }
                    Err(libc::EAGAIN) => self.blocked = true,
                    // The reading side will meet the same end and clean up.
                    Err(_) => self.discard(),
                }
            } else {
                self.out.pop_front();
                self.sent = 0;
            }
        }
        if let (0, 1, Some(Out::Frames(bytes))) = (self.queued, self.out.len(), self.out.front_mut()) {
            bytes.clear();
            bytes.shrink_to(OUT_HIGH);
            self.sent = 0;
        }
    }
}

fn serial_port() -> Option<String> {
    let entries = fs::read_dir("/sys/class/virtio-ports").ok()?;
    for entry in entries.flatten() {
        if let Ok(name) = fs::read_to_string(entry.path().join("name")) {
            if name.trim() == "agent" {
                return Some(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    None
}

/// The module alone, without a device, also makes /dev/vsock; and a serial port's name comes some time after its device.
fn has_vsock_device() -> bool {
    let entries = match fs::read_dir("/sys/bus/virtio/devices") {
        Ok(entries) => entries,
        Err(_) => return false,
    };
    entries.flatten().any(|e| {
        let read = |file: &str| fs::read_to_string(e.path().join(file)).unwrap_or_default();
        read("device").trim() == "0x0013" && e.path().join("driver").exists()
    })
}

pub fn listen(port: u32) -> Result<Fd> {
    // SAFETY: a zeroed sockaddr_vm is valid and outlives the call.
    unsafe {
        let fd = Fd::own(check(
            libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0),
            "vsock",
        )?);
        let mut address: libc::sockaddr_vm = std::mem::zeroed();
        address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
        address.svm_port = port;
        address.svm_cid = libc::VMADDR_CID_ANY;
        let size = std::mem::size_of::<libc::sockaddr_vm>() as libc::socklen_t;
        check(libc::bind(fd.raw(), &address as *const _ as *const libc::sockaddr, size), "bind vsock")?;
        check(libc::listen(fd.raw(), 16), "listen vsock")?;
        Ok(fd)
    }
}
