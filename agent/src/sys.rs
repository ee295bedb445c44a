//! Thin safe covers over the system calls that the standard library lacks, and the one error type.

use crate::protocol::{status, tag, Fields};
use std::ffi::CString;
use std::os::unix::io::RawFd;

/// Why a call could not be done: what END tells the host.
#[derive(Debug, Clone)]
pub struct Fail {
    pub status: u8,
    pub errno: i32,
    pub message: String,
}

impl Fail {
    pub fn new(status: u8, message: impl Into<String>) -> Fail {
        Fail { status, errno: 0, message: message.into() }
    }
    pub fn invalid(message: impl Into<String>) -> Fail {
        Fail::new(status::INVALID, message)
    }
    pub fn cancelled() -> Fail {
        Fail::new(status::CANCELLED, "cancelled")
    }
    pub fn errno(errno: i32, doing: &str) -> Fail {
        let why = std::io::Error::from_raw_os_error(errno);
        Fail { status: status_of(errno), errno, message: format!("{}: {}", doing, why) }
    }
    pub fn last(doing: &str) -> Fail {
        Fail::errno(last_errno(), doing)
    }
    pub fn io(error: &std::io::Error, doing: &str) -> Fail {
        match error.raw_os_error() {
            Some(errno) => Fail::errno(errno, doing),
            None => Fail::new(status::IO, format!("{}: {}", doing, error)),
        }
    }
    pub fn fields(&self) -> Fields {
        let mut f = Fields::new();
        f.u8(tag::STATUS, self.status);
        let mut cut = self.message.len().min(1024);
        while !self.message.is_char_boundary(cut) {
            cut -= 1;
        }
        f.bytes(tag::MESSAGE, self.message[..cut].as_bytes());
        if self.errno != 0 {
            f.u16(tag::ERRNO, self.errno as u16);
        }
        f
    }
}

pub fn status_of(errno: i32) -> u8 {
    match errno {
        libc::ENOENT => status::NOT_FOUND,
        libc::EISDIR => status::IS_DIRECTORY,
        libc::ENOTDIR => status::NOT_DIRECTORY,
        libc::EACCES | libc::EPERM | libc::EROFS | libc::ETXTBSY => status::PERMISSION,
        libc::ENOSPC | libc::EDQUOT => status::NO_SPACE,
        libc::EEXIST => status::EXISTS,
        libc::EINVAL | libc::ENAMETOOLONG | libc::ELOOP | libc::ENOEXEC | libc::EXDEV => status::INVALID,
        libc::E2BIG => status::TOO_LARGE,
        libc::ENOSYS | libc::EOPNOTSUPP => status::NOT_SUPPORTED,
        libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOMEM | libc::EFBIG => status::LIMIT,
        libc::ETIMEDOUT => status::TIMEOUT,
        libc::ESRCH => status::NO_PROCESS,
        libc::ECONNREFUSED => status::REFUSED,
        libc::EBUSY | libc::EADDRINUSE => status::BUSY,
        libc::ENOTEMPTY => status::NOT_EMPTY,
        _ => status::IO,
    }
}

pub type Result<T> = std::result::Result<T, Fail>;

pub fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub fn cstring(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Fail::invalid("a NUL byte in a path, name or argument"))
}

/// A descriptor that closes itself.
#[derive(Debug)]
pub struct Fd(RawFd);

impl Fd {
    pub fn own(fd: RawFd) -> Fd {
        Fd(fd)
    }
    pub fn raw(&self) -> RawFd {
        self.0
    }
    pub fn into_raw(self) -> RawFd {
        let fd = self.0;
        std::mem::forget(self);
        fd
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: this object owns the descriptor.
        unsafe { libc::close(self.0) };
    }
}

pub fn check(rc: libc::c_int, doing: &str) -> Result<libc::c_int> {
    if rc < 0 {
        Err(Fail::last(doing))
    } else {
        Ok(rc)
    }
}

pub fn unmount(path: &[u8], flags: libc::c_int) -> Result<()> {
    let c = cstring(path)?;
    // SAFETY: `c` is NUL-terminated and outlives the call.
    check(unsafe { libc::umount2(c.as_ptr(), flags) }, &String::from_utf8_lossy(path)).map(|_| ())
}

pub fn open(path: &[u8], flags: libc::c_int, mode: libc::mode_t) -> Result<Fd> {
    let c = cstring(path)?;
    loop {
        // SAFETY: `c` is NUL-terminated and outlives the call.
        let fd = unsafe { libc::open(c.as_ptr(), flags | libc::O_CLOEXEC, mode as libc::c_uint) };
        if fd >= 0 {
            return Ok(Fd(fd));
        }
        if last_errno() != libc::EINTR {
            return Err(Fail::last(&String::from_utf8_lossy(path)));
        }
    }
}

/// Repeats a call that a signal has interrupted. @returns what it returned, or the errno
fn uninterrupted(mut call: impl FnMut() -> isize) -> std::result::Result<usize, i32> {
    loop {
        let n = call();
        if n >= 0 {
            return Ok(n as usize);
        }
        let e = last_errno();
        if e != libc::EINTR {
            return Err(e);
        }
    }
}

/// Bytes read, 0 at the end, or the errno.
pub fn read(fd: RawFd, buf: &mut [u8]) -> std::result::Result<usize, i32> {
    // SAFETY: the buffer is valid for its length.
    uninterrupted(|| unsafe { libc::read(fd, buf.as_mut_ptr() as *mut libc::c_void, buf.len()) })
}

/// The next connection that waits, or none.
pub fn accept(listener: RawFd) -> Option<Fd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no address is asked for.
    let fd = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    if fd < 0 {
        return None;
    }
    Some(Fd::own(fd))
}

/// As `accept`, of a vsock listener, with the context id that the connection comes from.
pub fn accept_from(listener: RawFd) -> Option<(Fd, u32)> {
    // SAFETY: all zeroes are a valid address; the kernel writes at most `size` bytes of it.
    unsafe {
        let mut peer: libc::sockaddr_vm = std::mem::zeroed();
        let mut size = std::mem::size_of_val(&peer) as libc::socklen_t;
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let fd = libc::accept4(listener, &mut peer as *mut _ as *mut libc::sockaddr, &mut size, flags);
        (fd >= 0).then(|| (Fd::own(fd), peer.svm_cid))
    }
}

pub fn write(fd: RawFd, buf: &[u8]) -> std::result::Result<usize, i32> {
    // SAFETY: the buffer is valid for its length.
    uninterrupted(|| unsafe { libc::write(fd, buf.as_ptr() as *const libc::c_void, buf.len()) })
}

/// As many parts as `write_parts` takes at once.
pub const MAX_PARTS: usize = 16;

/// Several parts, one after the other, in one system call.
pub fn write_parts<'a>(fd: RawFd, parts: impl Iterator<Item = &'a [u8]>) -> std::result::Result<usize, i32> {
    let mut list = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_PARTS];
    let mut count = 0;
    for (slot, part) in list.iter_mut().zip(parts) {
        *slot = libc::iovec { iov_base: part.as_ptr() as *mut libc::c_void, iov_len: part.len() };
        count += 1;
    }
    // SAFETY: `count` entries of the list point to slices that live as long as `parts`.
    uninterrupted(|| unsafe { libc::writev(fd, list.as_ptr(), count) })
}

/// Writes all of it, or fails with the first error (blocking descriptors).
pub fn write_all(fd: RawFd, mut buf: &[u8]) -> std::result::Result<(), i32> {
    while !buf.is_empty() {
        match write(fd, buf)? {
            0 => return Err(libc::EIO),
            n => buf = &buf[n..],
        }
    }
    Ok(())
}

/// A pipe, close-on-exec: (read end, write end). Our end is made non-blocking by the caller.
pub fn pipe() -> Result<(Fd, Fd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, "pipe")?;
    Ok((Fd(fds[0]), Fd(fds[1])))
}

pub fn set_nonblocking(fd: RawFd) -> Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) }, "O_NONBLOCK").map(|_| ())
}

/// Bytes that can be read at once.
pub fn readable_bytes(fd: RawFd) -> usize {
    let mut n: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    if unsafe { libc::ioctl(fd, libc::FIONREAD, &mut n) } < 0 {
        return 0;
    }
    n.max(0) as usize
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is valid.
    unsafe { libc::clock_gettime(id, &mut t) };
    (t.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(t.tv_nsec as u64)
}

/// ns since boot; does not jump.
pub fn monotonic() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// ns since 1970.
pub fn wall() -> u64 {
    clock(libc::CLOCK_REALTIME)
}

pub fn say(text: &str) {
    let line = format!("stacyvm-agent {}\n", text);
    let _ = write(2, line.as_bytes());
}

/// What `epoll` waits for.
pub struct Poll(Fd);

pub const EDGE_IN: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
pub const EDGE_OUT: u32 = (libc::EPOLLOUT | libc::EPOLLET) as u32;
pub const EDGE_BOTH: u32 = EDGE_IN | EDGE_OUT;
pub const EDGE_PRIORITY: u32 = (libc::EPOLLPRI | libc::EPOLLET) as u32;
pub const LEVEL_IN: u32 = libc::EPOLLIN as u32;

impl Poll {
    pub fn new() -> Result<Poll> {
        // SAFETY: plain integers.
        check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }, "epoll").map(|fd| Poll(Fd(fd)))
    }
    pub fn add(&self, fd: RawFd, events: u32, token: u64) -> Result<()> {
        let mut e = libc::epoll_event { events, u64: token };
        // SAFETY: `e` is valid during the call.
        check(unsafe { libc::epoll_ctl(self.0.raw(), libc::EPOLL_CTL_ADD, fd, &mut e) }, "epoll add").map(|_| ())
    }
    pub fn remove(&self, fd: RawFd) {
        let mut e = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: `e` is valid during the call; a descriptor that is not registered is harmless.
        unsafe { libc::epoll_ctl(self.0.raw(), libc::EPOLL_CTL_DEL, fd, &mut e) };
    }
    /// Events that are there; waits `timeout_ms` (-1: for ever).
    pub fn wait<'a>(&self, events: &'a mut [libc::epoll_event], timeout_ms: i32) -> &'a [libc::epoll_event] {
        // SAFETY: the slice is valid for its length.
        let n = unsafe {
            libc::epoll_wait(self.0.raw(), events.as_mut_ptr(), events.len() as libc::c_int, timeout_ms)
        };
        &events[..n.max(0) as usize]
    }
}
