//! Starts processes for the server and tells it of their ends. A fork of the server itself copies the tables of all its memory and
//! stands still until the child runs: milliseconds in which nobody is answered. This process is small, and nobody waits for it.
//!
//! Requests on stdin are fields, each ended by a zero byte, the first of them the number of those that follow:
//!
//! - `spawn ID CWD LOG FDS FD... ARGS ARG... NAME=VALUE...`: starts `ARG...` in its own session, in `CWD`, with stdout and stderr
//!   appended to `LOG`; each `FD` is one of the server's, a file, and becomes 3, 4, ... of the child.
//! - `kill PID`: SIGKILL, if it is a child that has not ended yet.
//! - `limit ID PID BYTES`: no file becomes larger by what this child writes.
//!
//! Answers on stdout are lines: `started ID PID STARTTIME`, `limited ID`, `failed ID ERRNO`, `exited PID CODE`, `killed PID SIGNAL`. The start of a child is told before
//! its end. The argument is the server's pid. With the server this process ends, whatever it was asked last: the next server must not meet a
//! monitor that starts after it has looked. Children go on.

mod request;

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::io::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{exit, Command, Stdio};

use request::{Request, Requests, Spawn};

/// Descriptors below are kept for the numbers that files get in a child, so that nothing of ours is in their way.
const ABOVE: libc::c_int = 32;

fn main() {
    end_with_server();
    take_low_numbers();
    let ends = signals_of_ends();
    let mut requests = Requests::default();
    let mut children = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut polled = [readable(0), readable(ends)];
        // SAFETY: both entries are ours.
        if unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) } < 0 {
            continue; // a signal
        }
        if polled[1].revents != 0 {
            // One of them stands for several ends.
            let mut info = [0_u8; std::mem::size_of::<libc::signalfd_siginfo>()];
            // SAFETY: the buffer is as long as said.
            unsafe { libc::read(ends, info.as_mut_ptr().cast(), info.len()) };
            reap(&mut children);
        }
        if polled[0].revents != 0 {
            match io::stdin().lock().read(&mut buffer) {
                Ok(0) => exit(0),
                Ok(length) => requests.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => exit(1),
            }
            while let Some(request) = requests.next() {
                match request {
                    Request::Spawn(spawn) => start(&spawn, &mut children),
                    Request::Kill(pid) if children.contains(&pid) => {
                        // SAFETY: not waited for yet, so the pid is still this child's.
                        unsafe { libc::kill(pid, libc::SIGKILL) };
                    }
                    Request::Kill(_) => {}
                    Request::Limit(id, pid, bytes) => limit(&id, pid, bytes, &children),
                }
            }
        }
    }
}

fn start(spawn: &Spawn, children: &mut Vec<libc::pid_t>) {
    match run(spawn) {
        Ok(pid) => {
            children.push(pid);
            answer(&format!("started {} {} {}", spawn.id, pid, start_time(pid)));
        }
        Err(error) => answer(&format!("failed {} {}", spawn.id, error.raw_os_error().unwrap_or(libc::EIO))),
    }
}

fn limit(id: &str, pid: libc::pid_t, bytes: u64, children: &[libc::pid_t]) {
    let most = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    let error = if !children.contains(&pid) {
        libc::ESRCH
    // SAFETY: not waited for yet, so the pid is still this child's; the limit is ours.
    } else if unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &most, std::ptr::null_mut()) } != 0 {
        io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
    } else {
        return answer(&format!("limited {}", id));
    };
    answer(&format!("failed {} {}", id, error));
}

fn run(spawn: &Spawn) -> io::Result<libc::pid_t> {
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&spawn.log)?;
    let mut files = Vec::new();
    for fd in &spawn.fds {
        // A child gets what the server holds, whatever its path is by now.
        let path = format!("/proc/{}/fd/{}", std::os::unix::process::parent_id(), fd);
        let file = OpenOptions::new().read(true).write(writes(*fd)).open(path)?;
        // SAFETY: a descriptor of ours.
        let above = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, ABOVE) };
        if above < 0 {
            return Err(io::Error::last_os_error());
        }
        files.push(above);
    }
    let (program, rest) = spawn.args.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(rest).current_dir(&spawn.cwd).env_clear();
    for setting in &spawn.env {
        if let Some(at) = setting.as_bytes().iter().position(|byte| *byte == b'=') {
            let (name, value) = setting.as_bytes().split_at(at);
            command.env(std::ffi::OsStr::from_bytes(name), std::ffi::OsStr::from_bytes(&value[1..]));
        }
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let given = files.clone();
    // SAFETY: only system calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::setsid();
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            for (at, fd) in given.iter().enumerate() {
                if libc::dup2(*fd, 3 + at as libc::c_int) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let started = command.spawn();
    for fd in files {
        // SAFETY: opened above, and of no more use here.
        unsafe { libc::close(fd) };
    }
    Ok(started?.id() as libc::pid_t)
}

/// Whether the server may write to its descriptor.
fn writes(fd: u32) -> bool {
    let path = format!("/proc/{}/fdinfo/{}", std::os::unix::process::parent_id(), fd);
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).map_or(false, |flags| flags & 3 != 0)
}

/// Field 22 of `/proc/<pid>/stat`. A child that has ended is still there: nobody has waited for it yet.
fn start_time(pid: libc::pid_t) -> String {
    let stat = std::fs::read(format!("/proc/{}/stat", pid)).unwrap_or_default();
    let stat = String::from_utf8_lossy(&stat).into_owned();
    // The name in parentheses may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or("");
    fields.split_whitespace().nth(19).unwrap_or("0").to_string()
}

fn reap(children: &mut Vec<libc::pid_t>) {
    loop {
        let mut status = 0;
        // SAFETY: plain call.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        if pid <= 0 {
            return;
        }
        children.retain(|child| *child != pid);
        if libc::WIFSIGNALED(status) {
            answer(&format!("killed {} {}", pid, libc::WTERMSIG(status)));
        } else {
            answer(&format!("exited {} {}", pid, libc::WEXITSTATUS(status)));
        }
    }
}

/// Nobody who reads means that the server is gone.
fn answer(line: &str) {
    if writeln!(io::stdout().lock(), "{}", line).is_err() {
        exit(0);
    }
}

/// A descriptor that is readable when children have ended.
fn signals_of_ends() -> libc::c_int {
    // SAFETY: the set is initialised before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::signalfd(-1, &set, libc::SFD_CLOEXEC)
    }
}

fn end_with_server() {
    // SAFETY: plain call.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let server = std::env::args().nth(1).and_then(|pid| pid.parse().ok());
    // It may have ended before the line above.
    if server != Some(std::os::unix::process::parent_id()) {
        exit(0);
    }
}

fn take_low_numbers() {
    // SAFETY: 0 is open; the copies stay.
    while (0..ABOVE - 1).contains(&unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) }) {}
}

fn readable(fd: libc::c_int) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}
