//! Starting a process cheaply: a child that shares our memory until it has executed the program (clone3 with VM and
//! VFORK), so nothing is copied, born directly in the commands' cgroup.

use crate::identity::Defaults;
use crate::sys::{cstring, Fail, Result};
use crate::user::User;
use std::ffi::CString;
use std::os::raw::{c_char, c_void};
use std::os::unix::ffi::OsStrExt;

const DEFAULT_PATH: &[u8] = b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to run. Descriptors are ours and stay ours.
pub struct Program<'a> {
    pub argv: &'a [&'a [u8]],
    pub env: &'a [&'a [u8]],
    pub cwd: Option<&'a [u8]>,
    pub user: Option<&'a [u8]>,
    pub term: Option<&'a [u8]>,
    pub stdio: [i32; 3],
    /// Standard input is a terminal's slave side: make it the controlling terminal.
    pub tty: bool,
    pub cgroup: Option<i32>,
}

struct Child {
    stdio: [i32; 3],
    tty: bool,
    cwd: *const c_char,
    uid: u32,
    gid: u32,
    groups: *const u32,
    group_count: usize,
    paths: *const *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    /// Written by the child when it fails.
    stage: Stage,
    errno: i32,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Setup,
    Directory,
    User,
    Execute,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn key(entry: &[u8]) -> &[u8] {
    entry.split(|&b| b == b'=').next().unwrap_or(entry)
}

/// What C libraries may use of the processor, when the host says so on the kernel's command line, from where it is in the environment of PID 1:
/// a kernel that does not save all registers must not have programs that use them.
const PROCESSOR_NAME: &str = "GLIBC_TUNABLES";

fn given(name: &str) -> Option<Vec<u8>> {
    let value = std::env::var_os(name)?;
    Some([name.as_bytes(), b"=", value.as_bytes()].concat())
}

/// The environment: built-in defaults, the identity's, the call's; the last of a name wins.
fn environment(user: &User, defaults: &Defaults, program: &Program) -> Result<Vec<CString>> {
    let home = [b"HOME=", user.home.as_slice()].concat();
    let term = program.term.map(|t| [b"TERM=", t].concat());
    let processor = given(PROCESSOR_NAME);
    let mut all: Vec<&[u8]> = vec![DEFAULT_PATH, &home];
    all.extend(processor.as_deref());
    all.extend(defaults.env.iter().map(|e| e.as_slice()));
    all.extend(term.as_deref());
    all.extend(program.env.iter().copied());
    let mut chosen: Vec<&[u8]> = Vec::with_capacity(all.len());
    for entry in all {
        match chosen.iter().position(|c| key(c) == key(entry)) {
            Some(at) => chosen[at] = entry,
            None => chosen.push(entry),
        }
    }
    chosen.into_iter().map(cstring).collect()
}

fn candidates(program: &[u8], env: &[CString]) -> Result<Vec<CString>> {
    if program.contains(&b'/') {
        return Ok(vec![cstring(program)?]);
    }
    let path = env.iter().find_map(|e| e.as_bytes().strip_prefix(b"PATH=")).unwrap_or(b"/usr/bin:/bin");
    path.split(|&b| b == b':')
        .map(|dir| cstring(&[if dir.is_empty() { b"." } else { dir }, b"/", program].concat()))
        .collect()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

/// Starts it in its own session and process group. @returns the pid
pub fn spawn(program: &Program, defaults: &Defaults, stack: &mut [u8]) -> Result<i32> {
    let name = *program.argv.first().ok_or_else(|| Fail::invalid("EXEC without ARGV"))?;
    let user = match program.user.or(defaults.user.as_deref()) {
        Some(spec) => User::resolve(spec)?,
        None => User::root(),
    };
    let env = environment(&user, defaults, program)?;
    let argv = program.argv.iter().map(|a| cstring(a)).collect::<Result<Vec<_>>>()?;
    let paths = candidates(name, &env)?;
    let cwd_bytes = program.cwd.or(defaults.cwd.as_deref()).unwrap_or(b"/");
    let cwd = cstring(cwd_bytes)?;
    let (argv_p, env_p, path_p) = (pointers(&argv), pointers(&env), pointers(&paths));
    let mut child = Child {
        stdio: program.stdio,
        tty: program.tty,
        cwd: cwd.as_ptr(),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.as_ptr(),
        group_count: user.groups.len(),
        paths: path_p.as_ptr(),
        argv: argv_p.as_ptr(),
        envp: env_p.as_ptr(),
        stage: Stage::Setup,
        errno: 0,
    };
    let pid = clone_child(&mut child, stack, program.cgroup);
    if pid < 0 {
        return Err(Fail::errno(-pid as i32, "starting a process"));
    }
    if child.errno != 0 {
        // SAFETY: reaps exactly our failed child.
        unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) };
        let what = match child.stage {
            Stage::Directory => format!("working directory {}", String::from_utf8_lossy(cwd_bytes)),
            Stage::User => "changing the user".to_string(),
            Stage::Execute => String::from_utf8_lossy(name).into_owned(),
            Stage::Setup => "preparing the process".to_string(),
        };
        return Err(Fail::errno(child.errno, &what));
    }
    Ok(pid as i32)
}

fn clone_child(child: &mut Child, stack: &mut [u8], cgroup: Option<i32>) -> i64 {
    let mut args = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK) as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: (stack.len() & !15) as u64,
        ..CloneArgs::default()
    };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd as u64;
        let pid = clone3(&args, child);
        // A cgroup that was removed, or a kernel without this flag: run outside of it.
        if !matches!(-pid as i32, libc::EBADF | libc::ENODEV | libc::EINVAL | libc::EOPNOTSUPP | libc::E2BIG) {
            return pid;
        }
        args.flags &= !CLONE_INTO_CGROUP;
        args.cgroup = 0;
    }
    clone3(&args, child)
}

fn clone3(args: &CloneArgs, child: *mut Child) -> i64 {
    let result: i64;
    // SAFETY: the child runs on its own stack, calls `child_main`, which never returns, and the parent is suspended
    // until then (VFORK), so everything that the child reads stays alive. Both see the registers as they were.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as i64 => result,
            in("rdi") args as *const CloneArgs,
            in("rsi") std::mem::size_of::<CloneArgs>(),
            in("r12") child,
            in("r13") child_main as extern "C" fn(*mut c_void) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// Only system calls from here on: memory, also the allocator's, is the parent's. Raw ones for the ids, because glibc's
/// covers would try to change every thread of the parent.
extern "C" fn child_main(arg: *mut c_void) -> ! {
    // SAFETY: `arg` is the parent's `Child`, alive until we execute or exit; all pointers in it are too.
    unsafe {
        let c = &mut *(arg as *mut Child);
        let stage = run_child(c);
        c.errno = (*libc::__errno_location()).max(1);
        c.stage = stage;
        libc::syscall(libc::SYS_exit_group, 127);
        loop {}
    }
}

/// Returns only on failure, with `errno` set. SAFETY: see `child_main`.
unsafe fn run_child(c: &Child) -> Stage {
    let mut none: libc::sigset_t = std::mem::zeroed();
    libc::sigemptyset(&mut none);
    libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    // Rust's start-up ignores SIGPIPE, and that would be inherited.
    let mut default: libc::sigaction = std::mem::zeroed();
    default.sa_sigaction = libc::SIG_DFL;
    libc::sigaction(libc::SIGPIPE, &default, std::ptr::null_mut());
    if libc::setsid() < 0 {
        return Stage::Setup;
    }
    if c.tty && libc::ioctl(c.stdio[0], libc::TIOCSCTTY, 0) < 0 {
        return Stage::Setup;
    }
    for (target, &fd) in c.stdio.iter().enumerate() {
        if libc::dup2(fd, target as i32) < 0 {
            return Stage::Setup;
        }
    }
    // As root first, and again as the user where only that one may (a directory of the host): as container engines do it.
    let entered = libc::chdir(c.cwd) == 0;
    if c.uid != 0 || c.gid != 0 || c.group_count != 0 {
        if libc::syscall(libc::SYS_setgroups, c.group_count, c.groups) < 0
            || libc::syscall(libc::SYS_setresgid, c.gid, c.gid, c.gid) < 0
            || libc::syscall(libc::SYS_setresuid, c.uid, c.uid, c.uid) < 0
        {
            return Stage::User;
        }
    }
    if !entered && libc::chdir(c.cwd) < 0 {
        return Stage::Directory;
    }
    let mut worst = libc::ENOENT;
    let mut path = c.paths;
    while !(*path).is_null() {
        libc::execve(*path, c.argv, c.envp);
        match *libc::__errno_location() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => worst = libc::EACCES,
            other => {
                worst = other;
                break;
            }
        }
        path = path.add(1);
    }
    *libc::__errno_location() = worst;
    Stage::Execute
}
