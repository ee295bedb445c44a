//! Thin safe covers over system calls. Errors are errno.

use std::ffi::CString;
use std::os::raw::{c_char, c_int, c_void};

pub struct Fd(c_int);

impl Fd {
    pub fn own(fd: c_int) -> Fd {
        Fd(fd)
    }
    pub fn raw(&self) -> c_int {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: this object owns the descriptor.
        unsafe { libc::close(self.0) };
    }
}

pub fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

pub fn check(result: i64) -> Result<i64, i32> {
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(result)
    }
}

/// What a call returned, again after each signal.
pub fn uninterrupted(mut call: impl FnMut() -> i64) -> Result<i64, i32> {
    loop {
        match check(call()) {
            Err(libc::EINTR) => {}
            result => return result,
        }
    }
}

pub fn text(bytes: &[u8]) -> Result<CString, i32> {
    CString::new(bytes).map_err(|_| libc::EINVAL)
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const NO_MAGICLINKS: u64 = 0x02;
const NO_SYMLINKS: u64 = 0x04;
const BENEATH: u64 = 0x08;

fn openat2(directory: c_int, path: &[u8], flags: c_int, mode: u32, resolve: u64) -> Result<Fd, i32> {
    let path = text(path)?;
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: u64::from(mode), resolve };
    let size = std::mem::size_of::<OpenHow>();
    let mut again = 0;
    loop {
        // SAFETY: path and structure outlive the call, the size is the structure's.
        let result = check(unsafe { libc::syscall(libc::SYS_openat2, directory, path.as_ptr(), &how as *const OpenHow, size) });
        match result {
            // Something was renamed on the way.
            Err(libc::EAGAIN) | Err(libc::EINTR) if again < 100 => again += 1,
            result => return result.map(|fd| Fd(fd as c_int)),
        }
    }
}

/// By way of no link, and never above the directory: the kernel sees to it.
pub fn open_beneath(directory: c_int, path: &[u8], flags: c_int, mode: u32) -> Result<Fd, i32> {
    openat2(directory, path, flags, mode, BENEATH | NO_SYMLINKS | NO_MAGICLINKS)
}

/// An absolute path without links in it.
pub fn open_absolute(path: &[u8], flags: c_int) -> Result<Fd, i32> {
    openat2(libc::AT_FDCWD, path, flags, 0, NO_SYMLINKS | NO_MAGICLINKS)
}

pub fn stat(fd: &Fd) -> Result<libc::statx, i32> {
    // SAFETY: zeroes are a valid structure, which the kernel fills; the path is empty and ends.
    unsafe {
        let mut stat: libc::statx = std::mem::zeroed();
        let wanted = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
        let flags = libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;
        check(i64::from(libc::statx(fd.0, b"\0".as_ptr().cast::<c_char>(), flags, wanted, &mut stat)))?;
        Ok(stat)
    }
}

/// Of /proc/self/mountinfo.
pub fn mount_id(fd: &Fd) -> Result<u64, i32> {
    // SAFETY: zeroes are a valid structure, which the kernel fills; the path is empty and ends.
    unsafe {
        let mut stat: libc::statx = std::mem::zeroed();
        let flags = libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;
        check(i64::from(libc::statx(fd.0, b"\0".as_ptr().cast::<c_char>(), flags, libc::STATX_MNT_ID, &mut stat)))?;
        if stat.stx_mask & libc::STATX_MNT_ID == 0 { Err(libc::ENOSYS) } else { Ok(stat.stx_mnt_id) }
    }
}

/// Another descriptor of the same open file.
pub fn copy(fd: &Fd) -> Result<Fd, i32> {
    // SAFETY: plain integers.
    check(i64::from(unsafe { libc::fcntl(fd.0, libc::F_DUPFD_CLOEXEC, 3) })).map(|copied| Fd(copied as c_int))
}

pub fn read_at(fd: &Fd, into: &mut [u8], offset: u64) -> Result<usize, i32> {
    let mut done = 0;
    while done < into.len() {
        let rest = &mut into[done..];
        // SAFETY: the slice is valid for its length.
        let n = uninterrupted(|| unsafe {
            libc::pread(fd.0, rest.as_mut_ptr().cast::<c_void>(), rest.len(), offset.wrapping_add(done as u64) as libc::off_t) as i64
        })?;
        if n == 0 {
            break;
        }
        done += n as usize;
    }
    Ok(done)
}

/// Bytes that were written: fewer than there are only before an error.
pub fn write_at(fd: &Fd, bytes: &[u8], offset: u64) -> Result<usize, i32> {
    write_all(bytes, |rest, done| {
        // SAFETY: the slice is valid for its length.
        unsafe { libc::pwrite(fd.0, rest.as_ptr().cast::<c_void>(), rest.len(), offset.wrapping_add(done as u64) as libc::off_t) as i64 }
    })
}

/// The same, wherever the file ends by then.
pub fn append(fd: &Fd, bytes: &[u8]) -> Result<usize, i32> {
    write_all(bytes, |rest, _| {
        let part = libc::iovec { iov_base: rest.as_ptr() as *mut c_void, iov_len: rest.len() };
        // SAFETY: the slice is valid for its length, and only read.
        unsafe { libc::pwritev2(fd.0, &part, 1, 0, libc::RWF_APPEND) as i64 }
    })
}

fn write_all(bytes: &[u8], mut write: impl FnMut(&[u8], usize) -> i64) -> Result<usize, i32> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        let result = uninterrupted(|| write(rest, done));
        match result {
            Ok(n) => done += n as usize,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}
