//! What makes a clone an individual. Restored twins share every byte of memory until this ran, so it is short: clock,
//! generator, host name, and small files that were bound over their places at boot and stay open. They have a tmpfs of their own:
//! a program that fills `/run` leaves them their room.

use crate::boot;
use crate::protocol::{number, tag, Reader};
use crate::sys::{self, check, Fail, Fd, Result};
use std::fs;

pub const DIR: &str = "/run/stacyvm";
/// Twice `MAX_KEPT`, and what else is small.
const DIR_OPTIONS: &str = "mode=755,size=4m";
/// What programs watch to learn that they are another copy now: a line that no copy had before.
const GENERATION: &str = "generation";
/// linux/random.h
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// Defaults of commands, from the last identity.
#[derive(Default, Clone)]
pub struct Defaults {
    /// `K=V`
    pub env: Vec<Vec<u8>>,
    pub cwd: Option<Vec<u8>>,
    pub user: Option<Vec<u8>>,
}

/// A small file of ours that is bound over one of the image's or the kernel's.
struct Bound {
    file: Option<Fd>,
    length: usize,
    /// `end_with` has put something at its end.
    has_end: bool,
}

/// Above the lines of ours; what stands above it is the user's.
const HOSTS_MARK: &[u8] = b"# this sandbox\n";
/// Not `/etc/environment`, which images and their builds write.
const PAM_ENVIRONMENT: &str = "/etc/security/pam_env.conf";
const ENVIRONMENT_MARK: &[u8] = b"# the sandbox's network\n";
/// Of a file whose end is ours.
const MAX_KEPT: usize = 1 << 20;

impl Bound {
    fn none() -> Bound {
        Bound { file: None, length: 0, has_end: false }
    }

    /// A file of ours at its own place.
    fn own(name: &str, initial: &[u8]) -> Bound {
        Bound::of(Bound::make(name, initial), initial)
    }

    fn of(made: Result<Fd>, initial: &[u8]) -> Bound {
        match made {
            Ok(file) => Bound { file: Some(file), length: initial.len(), has_end: false },
            Err(Fail { message, .. }) => {
                sys::say(&message);
                Bound::none()
            }
        }
    }

    fn make(name: &str, initial: &[u8]) -> Result<Fd> {
        let mine = format!("{}/{}", DIR, name);
        let file = sys::open(mine.as_bytes(), libc::O_RDWR | libc::O_CREAT, 0o644)?;
        sys::write_all(file.raw(), initial).map_err(|e| Fail::errno(e, &mine))?;
        Ok(file)
    }

    fn place(name: &str, over: &str, initial: &[u8]) -> Bound {
        let made = (|| {
            if fs::symlink_metadata(over).map(|m| m.file_type().is_symlink()).unwrap_or(false) {
                // A link (resolv.conf of systemd images) would be followed to a place that does not exist.
                let _ = fs::remove_file(over);
            }
            if !over.starts_with("/proc") && fs::metadata(over).is_err() {
                let _ = fs::write(over, b"");
            }
            let file = Bound::make(name, initial)?;
            boot::mount(&format!("{}/{}", DIR, name), over, "", libc::MS_BIND, "")?;
            Ok(file)
        })();
        Bound::of(made, initial)
    }

    /// Puts lines of ours in the place of the former ones, and leaves what users have written into the file.
    fn end_with(&mut self, what: &str, mark: &[u8], lines: &[u8]) -> Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => return Ok(()),
        };
        let mut text = vec![0; (crate::files::fstat(file)?.st_size as usize).min(MAX_KEPT)];
        // SAFETY: the buffer is valid for its length; the descriptor is ours.
        let n = unsafe { libc::pread(file.raw(), text.as_mut_ptr() as *mut libc::c_void, text.len(), 0) };
        text.truncate(n.max(0) as usize);
        self.length = text.len();
        let mut kept = without(&text, mark);
        if !kept.is_empty() && !kept.ends_with(b"\n") {
            kept.push(b'\n');
        }
        if !lines.is_empty() {
            kept.extend_from_slice(mark);
            kept.extend_from_slice(lines);
        }
        self.has_end = !lines.is_empty();
        self.set(what, &kept)
    }

    fn set(&mut self, what: &str, text: &[u8]) -> Result<()> {
        let fd = match &self.file {
            Some(file) => file.raw(),
            None => return Err(Fail::new(crate::protocol::status::IO, format!("{} could not be prepared at boot", what))),
        };
        // SAFETY: the buffer is valid for its length; `fd` is ours.
        let n = unsafe { libc::pwrite(fd, text.as_ptr() as *const libc::c_void, text.len(), 0) };
        if n != text.len() as isize {
            return Err(Fail::last(what));
        }
        if self.length != text.len() {
            // SAFETY: plain integers.
            check(unsafe { libc::ftruncate(fd, text.len() as libc::off_t) }, what)?;
            self.length = text.len();
        }
        Ok(())
    }
}

pub struct Identity {
    /// How many identities were applied since boot.
    pub generation: u64,
    pub defaults: Defaults,
    /// The sandbox that the machine is, by the last identity that named one.
    pub sandbox: Option<Vec<u8>>,
    random: Fd,
    hostname: Bound,
    machine_id: Bound,
    boot_id: Bound,
    resolv: Bound,
    hosts: Bound,
    /// What programs that make their own environment (`sudo`, `su -`) take from PAM.
    environment: Bound,
    /// Of the last identity, until `finish`.
    name_servers: Option<Vec<u8>>,
    unfinished: bool,
    /// Says that this is another copy.
    copy: Bound,
}

impl Identity {
    /// Prepares the files. Runs once, at boot.
    pub fn prepare() -> Result<Identity> {
        let random = sys::open(b"/dev/urandom", libc::O_RDWR, 0)?;
        let _ = fs::create_dir_all(DIR);
        if let Err(fail) = boot::mount("tmpfs", DIR, "tmpfs", libc::MS_NOSUID | libc::MS_NODEV, DIR_OPTIONS) {
            sys::say(&fail.message);
        }
        let kept = |path: &str| fs::read(path).unwrap_or_default();
        let boot_id = kept("/proc/sys/kernel/random/boot_id");
        whole_proc();
        Ok(Identity {
            generation: 0,
            defaults: Defaults::default(),
            sandbox: None,
            copy: Bound::own(GENERATION, &drawn()?),
            random,
            hostname: Bound::place("hostname", "/etc/hostname", b"stacyvm\n"),
            machine_id: Bound::place("machine-id", "/etc/machine-id", &kept("/etc/machine-id")),
            boot_id: Bound::place("boot-id", "/proc/sys/kernel/random/boot_id", &boot_id),
            resolv: Bound::place("resolv.conf", "/etc/resolv.conf", &kept("/etc/resolv.conf")),
            hosts: Bound::place("hosts", "/etc/hosts", &hosts(kept("/etc/hosts"))),
            environment: if fs::metadata(PAM_ENVIRONMENT).is_ok() {
                Bound::place("pam_env.conf", PAM_ENVIRONMENT, &kept(PAM_ENVIRONMENT))
            } else {
                Bound::none()
            },
            name_servers: None,
            unfinished: false,
        })
    }

    /// Applies what is present, all of it even if one part fails; the first failure is reported.
    /// `Ok(true)`: frozen commands are to be thawed.
    pub fn apply(&mut self, fields: &Reader) -> Result<bool> {
        let mut failure: Option<Fail> = None;
        let mut note = |result: Result<()>| {
            if let Err(fail) = result {
                failure.get_or_insert(fail);
            }
        };
        let mut env: Vec<Vec<u8>> = Vec::new();
        let mut dns: Vec<u8> = Vec::new();
        let (mut cwd, mut user, mut thaw, mut has_dns, mut another) = (None, None, false, false, false);
        for (t, value) in fields.walk() {
            match t {
                tag::CLOCK => note(set_clock(value)),
                tag::ENTROPY => {
                    note(self.add_entropy(value));
                    another = true;
                }
                tag::HOSTNAME => {
                    note(set_hostname(value));
                    note(self.hostname.set("/etc/hostname", &with_newline(value)));
                    note(self.hosts.end_with("/etc/hosts", HOSTS_MARK, &[b"127.0.1.1\t", value, b"\n"].concat()));
                }
                tag::MACHINE_ID => note(self.machine_id.set("/etc/machine-id", &with_newline(value))),
                tag::BOOT_ID => note(self.boot_id.set("boot_id", &with_newline(value))),
                tag::SANDBOX_ID => {
                    env.insert(0, [b"STACYVM_SANDBOX_ID=", value].concat());
                    self.sandbox = Some(value.to_vec());
                }
                tag::TIMEZONE => env.insert(0, [b"TZ=", value].concat()),
                tag::ENV => env.push(value.to_vec()),
                tag::CWD => cwd = Some(value.to_vec()),
                tag::USER => user = Some(value.to_vec()),
                tag::DNS => {
                    has_dns = true;
                    dns.extend_from_slice(value);
                    dns.push(b'\n');
                }
                tag::THAW_AFTER => thaw = number(value).unwrap_or(0) != 0,
                _ => {}
            }
        }
        self.unfinished = true;
        self.name_servers = has_dns.then_some(dns);
        // Last: who sees it finds all the rest done.
        if another {
            note(drawn().and_then(|line| self.copy.set(GENERATION, &line)));
        }
        self.defaults = Defaults { env, cwd, user };
        match failure {
            Some(fail) => Err(fail),
            None => {
                self.generation += 1;
                Ok(thaw)
            }
        }
    }

    /// What `apply` has left for after the handshake's answer: files that programs alone read, all of it even if one part fails.
    pub fn finish(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.unfinished) {
            return Ok(());
        }
        let names = match self.name_servers.take() {
            Some(lines) => self.resolv.set("/etc/resolv.conf", &lines),
            None => Ok(()),
        };
        if self.environment.file.is_some() {
            let proxies: Vec<u8> = self.defaults.env.iter().filter(|e| is_proxy(e)).flat_map(|e| pam_line(e)).collect();
            if self.environment.has_end || !proxies.is_empty() {
                self.environment.end_with(PAM_ENVIRONMENT, ENVIRONMENT_MARK, &proxies)?;
            }
        }
        names
    }

    fn add_entropy(&self, bytes: &[u8]) -> Result<()> {
        if bytes.len() < 32 || bytes.len() > 256 {
            return Err(Fail::invalid("ENTROPY must have 32 to 256 bytes"));
        }
        #[repr(C)]
        struct Pool {
            bits: libc::c_int,
            size: libc::c_int,
            buf: [u8; 256],
        }
        let mut pool = Pool { bits: bytes.len() as libc::c_int * 8, size: bytes.len() as libc::c_int, buf: [0; 256] };
        pool.buf[..bytes.len()].copy_from_slice(bytes);
        // SAFETY: the kernel reads `size` bytes of `buf`, which has room for 256.
        unsafe {
            check(libc::ioctl(self.random.raw(), RNDADDENTROPY as _, &pool), "RNDADDENTROPY")?;
            check(libc::ioctl(self.random.raw(), RNDRESEEDCRNG as _), "RNDRESEEDCRNG")?;
        }
        Ok(())
    }
}

/// What lies above our mark, and what somebody has written below our lines: those end at an empty line or with the file.
fn without(text: &[u8], mark: &[u8]) -> Vec<u8> {
    let at = match text.windows(mark.len()).position(|w| w == mark) {
        Some(at) => at,
        None => return text.to_vec(),
    };
    let mut kept = text[..at].to_vec();
    for line in text[at + mark.len()..].split_inclusive(|&b| b == b'\n') {
        if !line.starts_with(b"127.0.1.1\t") && !is_proxy(line) {
            kept.extend_from_slice(line);
        }
    }
    kept
}

/// `NAME=VALUE`, or a line of ours.
fn is_proxy(entry: &[u8]) -> bool {
    let name = entry.split(|&b| b == b'=' || b == b' ').next().unwrap_or(&[]).to_ascii_lowercase();
    entry.contains(&b'=') && matches!(name.as_slice(), b"http_proxy" | b"https_proxy" | b"all_proxy" | b"ftp_proxy" | b"no_proxy")
}

/// As pam_env.conf(5) has it, where `$` and `@` have a meaning of their own.
fn pam_line(entry: &[u8]) -> Vec<u8> {
    let cut = entry.iter().position(|&b| b == b'=').unwrap_or(entry.len());
    let mut line = [&entry[..cut], b" DEFAULT=\""].concat();
    for &b in entry.get(cut + 1..).unwrap_or(&[]).iter().filter(|b| !matches!(b, b'"' | b'\n' | b'\\')) {
        if matches!(b, b'$' | b'@') {
            line.push(b'\\');
        }
        line.push(b);
    }
    line.extend_from_slice(b"\"\n");
    line
}

/// The image's own, with what every program expects.
fn hosts(mut text: Vec<u8>) -> Vec<u8> {
    let has = |text: &[u8], address: &[u8]| text.split(|&b| b == b'\n').any(|line| line.starts_with(address));
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    if !has(&text, b"127.0.0.1") {
        text.extend_from_slice(b"127.0.0.1\tlocalhost\n");
    }
    if !has(&text, b"::1") {
        text.extend_from_slice(b"::1\tlocalhost ip6-localhost ip6-loopback\n");
    }
    text
}

/// The kernel lets a user namespace mount a procfs only where a whole one is in sight, and ours has the boot id covered.
fn whole_proc() {
    let path = format!("{}/proc", DIR);
    let _ = fs::create_dir(&path);
    if let Err(fail) = boot::mount("proc", &path, "proc", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC, "") {
        sys::say(&fail.message);
    }
}

/// 16 bytes of the kernel's generator in hex, as a line.
fn drawn() -> Result<Vec<u8>> {
    let mut bytes = [0u8; 16];
    // SAFETY: the buffer is valid for its length, and a read as short as this is never cut.
    check(unsafe { libc::getrandom(bytes.as_mut_ptr() as *mut libc::c_void, bytes.len(), 0) } as libc::c_int, "getrandom")?;
    let mut line: Vec<u8> = bytes.iter().flat_map(|b| format!("{:02x}", b).into_bytes()).collect();
    line.push(b'\n');
    Ok(line)
}

fn with_newline(value: &[u8]) -> Vec<u8> {
    [value, b"\n"].concat()
}

fn set_clock(value: &[u8]) -> Result<()> {
    let ns = number(value).ok_or_else(|| Fail::invalid("CLOCK is not a number"))?;
    let t = libc::timespec { tv_sec: (ns / 1_000_000_000) as libc::time_t, tv_nsec: (ns % 1_000_000_000) as libc::c_long };
    // SAFETY: `t` is valid.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &t) }, "clock_settime").map(|_| ())
}

fn set_hostname(value: &[u8]) -> Result<()> {
    if value.is_empty() || value.len() > 64 || value.contains(&0) || value.contains(&b'\n') {
        return Err(Fail::invalid("HOSTNAME must have 1 to 64 bytes"));
    }
    // SAFETY: the buffer is valid for its length.
    check(unsafe { libc::sethostname(value.as_ptr() as *const libc::c_char, value.len()) }, "sethostname").map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ours_leave_those_of_others() {
        let first = hosts(Vec::new());
        assert_eq!(first, hosts(first.clone()));
        let text = [b"10.0.0.1\tmine\n".as_slice(), HOSTS_MARK, b"127.0.1.1\told\n", b"10.0.0.2\tlater\n"].concat();
        assert_eq!(without(&text, HOSTS_MARK), b"10.0.0.1\tmine\n10.0.0.2\tlater\n");
        assert_eq!(pam_line(b"http_proxy=http://u@h:1/"), b"http_proxy DEFAULT=\"http://u\\@h:1/\"\n");
        assert!(is_proxy(&pam_line(b"no_proxy=localhost")));
        assert!(is_proxy(b"HTTPS_PROXY=http://x") && !is_proxy(b"PATH=/bin") && !is_proxy(b"http_proxy"));
    }
}
