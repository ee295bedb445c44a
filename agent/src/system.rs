//! The guest as a whole: figures, freeze and thaw, the kernel's log, the orderly end.

use crate::files::name;
use crate::jobs::Io;
use crate::protocol::{status, tag, Fields};
use crate::sys::{self, check, Fail, Result};
use std::fs;
use std::time::{Duration, Instant};

/// Waits until every process of the group stands still.
pub fn wait_frozen(io: &mut Io) -> Result<Fields> {
    let begin = Instant::now();
    let path = "/sys/fs/cgroup/commands/cgroup.events";
    loop {
        io.check()?;
        if fs::read_to_string(path).unwrap_or_default().contains("frozen 1") {
            return Ok(Fields::new());
        }
        if begin.elapsed() > Duration::from_secs(5) {
            return Err(Fail::new(status::TIMEOUT, "some process could not be frozen within 5 s"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// All of the guest's, bytes.
pub fn memory() -> usize {
    // SAFETY: plain calls.
    let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    (pages.max(0) as usize).saturating_mul(size.max(0) as usize)
}

pub fn meminfo(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|l| l.strip_prefix(key))
        .and_then(|l| l.split_whitespace().next())
        .and_then(|n| n.parse::<u64>().ok())
        .unwrap_or(0)
        .saturating_mul(1024)
}

/// Jiffies that the CPUs were busy: everything but idle and iowait in the first line of /proc/stat.
fn busy(stat: &str) -> u64 {
    let first = stat.lines().next().unwrap_or("");
    let numbers = first.split_whitespace().skip(1).take(8).map(|n| n.parse::<u64>().unwrap_or(0));
    numbers.enumerate().filter(|(i, _)| *i != 3 && *i != 4).map(|(_, n)| n).sum()
}

pub fn info() -> Result<Fields> {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().and_then(|l| l.parse::<f64>().ok()).unwrap_or(0.0);
    let mut f = Fields::new();
    // SAFETY: zeroed structures are valid, the path is NUL-terminated.
    unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        check(libc::uname(&mut name), "uname")?;
        let release: Vec<u8> = name.release.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
        f.bytes(tag::KERNEL, &release);
        let mut disk: libc::statvfs = std::mem::zeroed();
        check(libc::statvfs(b"/\0".as_ptr() as *const libc::c_char, &mut disk), "statvfs")?;
        f.u64(tag::DISK_TOTAL, (disk.f_blocks as u64).saturating_mul(disk.f_frsize as u64));
        f.u64(tag::DISK_FREE, (disk.f_bavail as u64).saturating_mul(disk.f_frsize as u64));
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        f.u64(tag::MINOR_FAULTS, usage.ru_minflt as u64);
        f.u16(tag::CPUS, libc::sysconf(libc::_SC_NPROCESSORS_ONLN).clamp(1, 65_535) as u16);
        let hertz = libc::sysconf(libc::_SC_CLK_TCK).max(1) as u64;
        f.u64(tag::CPU_NS, busy(&stat).saturating_mul(1_000_000_000 / hertz));
    }
    f.u32(tag::LOAD, (load * 1000.0) as u32);
    f.u64(tag::MEMORY_TOTAL, meminfo(&memory, "MemTotal:")).u64(tag::MEMORY_FREE, meminfo(&memory, "MemAvailable:"));
    f.u64(tag::NOW, sys::wall()).u64(tag::UPTIME, sys::monotonic());
    Ok(f)
}

/// The same paths as a small write and read, so that they are in memory and, under emulation, translated.
pub fn exercise() -> Result<Fields> {
    let path: &[u8] = b"/run/stacyvm/exercise";
    let file = sys::open(path, libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC, 0o600)?;
    sys::write_all(file.raw(), b"exercise").map_err(|e| Fail::errno(e, &name(path)))?;
    crate::files::unlink(path);
    Ok(Fields::new())
}

/// What the kernel has logged since boot, as it keeps it.
pub fn kernel_log(io: &mut Io) -> Result<Fields> {
    let mut buf = vec![0u8; 256 * 1024];
    const READ_ALL: libc::c_int = 3;
    // SAFETY: the buffer is valid for its length.
    let n = unsafe { libc::syscall(libc::SYS_syslog, READ_ALL, buf.as_mut_ptr(), buf.len()) };
    let n = check(n as libc::c_int, "the kernel log")?;
    io.send(&buf[..n as usize])?;
    Ok(Fields::new())
}

/// TERM to all, KILL to those that stay, sync, end. Does not return.
pub fn power_off() -> ! {
    let everyone_gone = || {
        fs::read_dir("/proc").map_or(true, |list| {
            !list.flatten().filter_map(|e| e.file_name().to_str().and_then(|n| n.parse::<i32>().ok())).any(|pid| {
                // Kernel threads have no memory of their own.
                pid != 1 && fs::read(format!("/proc/{}/cmdline", pid)).map_or(false, |c| !c.is_empty())
            })
        })
    };
    // SAFETY: plain calls. As PID 1, -1 means everybody else.
    unsafe {
        libc::kill(-1, libc::SIGTERM);
        libc::kill(-1, libc::SIGCONT);
        let begin = Instant::now();
        while !everyone_gone() && begin.elapsed() < Duration::from_millis(1500) {
            std::thread::sleep(Duration::from_millis(5));
        }
        libc::kill(-1, libc::SIGKILL);
        libc::sync();
        libc::reboot(libc::RB_AUTOBOOT);
        loop {
            libc::pause();
        }
    }
}
