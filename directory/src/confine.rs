//! Before the first byte of a guest is read: this process sees nothing but its directory, and keeps no right that it does not need.

use crate::holes::holes;
use crate::layer::Layer;
use crate::sys::{self, check, text, Fd};
use std::os::raw::{c_int, c_long, c_uint, c_ulong};

type Done = Result<(), String>;

fn failed(what: &str, errno: i32) -> String {
    format!("{}: {}", what, std::io::Error::from_raw_os_error(errno))
}

/// Open files: each of a guest's costs one.
const MOST_FILES: u64 = 16_384;
/// Of memory, for a guest that asks for all that it can: what it may fill in tree.rs and serve.rs is less than half of it.
const MOST_MEMORY: u64 = 512 << 20;

/// @param hidden of the server: wherever it is seen in the directory there is nothing
/// @param layer where one lies, and how many bytes it may take: the directory itself cannot be written to then
/// @param changed_user what a change of user undoes, to be done again
/// @returns the directory, in a place where nothing else is, its layer, and whom this process is now: user and group
pub fn confine(path: &[u8], hidden: &[u8], layer: Option<(&[u8], u64)>, changed_user: impl FnOnce()) -> Result<(Fd, Option<Layer>, (u32, u32)), String> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let root = sys::open_absolute(path, flags).map_err(|e| failed("the directory", e))?;
    let stat = sys::stat(&root).map_err(|e| failed("the directory", e))?;
    // SAFETY: plain call.
    let is_root = unsafe { libc::geteuid() } == 0;
    limits();
    // Where neither root nor user namespaces can be had, the kernel's own look-ups beneath the directory hold it, and Landlock.
    let holes = holes(path, hidden)?;
    let (own, place) = match namespaces(path, &holes, layer.map(|(place, _)| place), is_root) {
        Ok(own) => own,
        Err(why) if is_root || !holes.is_empty() || layer.is_some() => return Err(why),
        Err(_) => (root, None),
    };
    if is_root {
        become_user(stat.stx_uid, stat.stx_gid)?;
    }
    drop_rights()?;
    changed_user();
    let layer = match (&place, layer) {
        (Some(place), Some((_, bytes))) => Some(Layer::open(&own, place, bytes).map_err(|errno| match errno {
            libc::EOPNOTSUPP => "a copy's own layer needs a filesystem with extended attributes of users below the server's data directory".into(),
            errno => failed("the copy's own layer", errno),
        })?),
        _ => None,
    };
    landlock(&own, place.as_ref())?;
    // SAFETY: plain calls.
    let user = unsafe { (libc::geteuid(), libc::getegid()) };
    seccomp()?;
    Ok((own, layer, user))
}

fn limits() {
    let set = |which, most: u64| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure is ours. A limit that cannot be set stays as low as it was.
        unsafe {
            libc::getrlimit(which, &mut limit);
            limit.rlim_cur = most.min(limit.rlim_max);
            libc::setrlimit(which, &limit);
        }
    };
    set(libc::RLIMIT_NOFILE, MOST_FILES);
    set(libc::RLIMIT_AS, MOST_MEMORY);
    set(libc::RLIMIT_CORE, 0);
    // SAFETY: plain calls.
    unsafe {
        libc::umask(0);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

const SYS_OPEN_TREE: c_long = 428;
const SYS_MOVE_MOUNT: c_long = 429;
const OPEN_TREE_CLONE: c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;
const SYS_MOUNT_SETATTR: c_long = 442;
const ATTR_RDONLY: u64 = 1;
const AT_RECURSIVE: c_uint = 0x8000;

/// A view of files in which the directory is all that there is, and a copy's layer beside it.
fn namespaces(path: &[u8], holes: &[Vec<u8>], layer: Option<&[u8]>, is_root: bool) -> Result<(Fd, Option<Fd>), String> {
    let doing = |what: &'static str| move |errno| failed(what, errno);
    // SAFETY: plain calls, with strings that end.
    unsafe {
        let (uid, gid) = (libc::geteuid(), libc::getegid());
        let user = if is_root { 0 } else { libc::CLONE_NEWUSER };
        let all = libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;
        check(i64::from(libc::unshare(user | all))).map_err(doing("namespaces"))?;
        if !is_root {
            let write = |file: &str, line: String| std::fs::write(file, line).map_err(|e| format!("{}: {}", file, e));
            write("/proc/self/setgroups", "deny".into())?;
            write("/proc/self/uid_map", format!("{} {} 1", uid, uid))?;
            write("/proc/self/gid_map", format!("{} {} 1", gid, gid))?;
        }
        let none = std::ptr::null();
        check(i64::from(libc::mount(none, b"/\0".as_ptr().cast(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()))).map_err(doing("mounts"))?;
        // Of this namespace: mounts of the former one cannot be copied.
        let copy = |path: &[u8], more: c_uint| {
            let root = sys::open_absolute(path, libc::O_PATH | libc::O_DIRECTORY)?;
            let flags = OPEN_TREE_CLONE | more | libc::AT_EMPTY_PATH as c_uint | libc::O_CLOEXEC as c_uint;
            check(libc::syscall(SYS_OPEN_TREE, root.raw(), b"\0".as_ptr(), flags)).map(|tree| Fd::own(tree as c_int))
        };
        let tree = copy(path, AT_RECURSIVE).map_err(doing("a mount of the directory"))?;
        let layer = layer.map(|path| copy(path, 0).map_err(doing("a mount of the copy's layer"))).transpose()?;
        // An empty place for it, which the pivot leaves behind.
        let empty = text(b"/tmp").map_err(doing("/tmp"))?;
        check(i64::from(libc::mount(b"none\0".as_ptr().cast(), empty.as_ptr(), b"tmpfs\0".as_ptr().cast(), 0, none.cast()))).map_err(doing("an empty root"))?;
        check(i64::from(libc::chdir(empty.as_ptr()))).map_err(doing("the empty root"))?;
        for name in [&b"directory\0"[..], b"layer\0", b"former\0"] {
            check(i64::from(libc::mkdir(name.as_ptr().cast(), 0o700))).map_err(doing("the empty root"))?;
        }
        let guard = |tree: &Fd, place: &[u8], more: c_ulong| -> Result<(), i32> {
            let place = place.as_ptr();
            check(libc::syscall(SYS_MOVE_MOUNT, tree.raw(), b"\0".as_ptr(), libc::AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH))?;
            let guarded = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            // What the directory's own mount forbids must stay forbidden.
            let mut stat: libc::statvfs = std::mem::zeroed();
            check(i64::from(libc::statvfs(place.cast(), &mut stat)))?;
            let kept = [(libc::ST_RDONLY, libc::MS_RDONLY), (libc::ST_NOATIME, libc::MS_NOATIME), (libc::ST_NODIRATIME, libc::MS_NODIRATIME), (libc::ST_RELATIME, libc::MS_RELATIME)];
            let more = kept.iter().filter(|(flag, _)| stat.f_flag & flag != 0).fold(more, |all, (_, flag)| all | flag);
            check(i64::from(libc::mount(none, place.cast(), none, guarded | more, none.cast()))).map(|_| ())
        };
        // Below a layer nothing is written.
        let access = if layer.is_some() { libc::MS_RDONLY } else { 0 };
        guard(&tree, b"directory\0", access).map_err(doing("the directory's mount without devices"))?;
        if let Some(layer) = &layer {
            guard(layer, b"layer\0", 0).map_err(doing("the mount of the copy's layer"))?;
            read_only_below()?;
        }
        for hole in holes {
            cover(hole).map_err(doing("hiding the server's own files"))?;
        }
        check(libc::syscall(libc::SYS_pivot_root, b".\0".as_ptr(), b"former\0".as_ptr())).map_err(doing("leaving the host's files"))?;
        check(i64::from(libc::umount2(b"/former\0".as_ptr().cast(), libc::MNT_DETACH))).map_err(doing("leaving the host's files"))?;
        let layer = layer.map(|_| sys::open_absolute(b"/layer", libc::O_PATH | libc::O_DIRECTORY).map_err(doing("the copy's layer"))).transpose()?;
        check(i64::from(libc::chdir(b"/directory\0".as_ptr().cast()))).map_err(doing("the directory"))?;
        let own = sys::open_beneath(libc::AT_FDCWD, b".", libc::O_PATH | libc::O_DIRECTORY, 0).map_err(doing("the directory"))?;
        Ok((own, layer))
    }
}

/// What is mounted somewhere in the directory, too.
fn read_only_below() -> Done {
    let attributes: [u64; 4] = [ATTR_RDONLY, 0, 0, 0];
    // SAFETY: a path that ends, and a structure of the size that is said.
    let done = check(unsafe { libc::syscall(SYS_MOUNT_SETATTR, libc::AT_FDCWD, b"directory\0".as_ptr(), AT_RECURSIVE, attributes.as_ptr(), std::mem::size_of_val(&attributes)) });
    done.map(|_| ()).map_err(|errno| failed("mounts of the directory to read only", errno))
}

/// Nothing is seen at the way's end, and what leads there stays where it is: a guest that could rename a part of it would have the next helper
/// cover something else. What is a mount of this namespace cannot be renamed in it.
fn cover(way: &[u8]) -> Result<(), i32> {
    let none = std::ptr::null();
    let mut ends: Vec<usize> = way.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).collect();
    ends.push(way.len());
    for end in ends {
        let place = text(&[b"directory/", &way[..end]].concat())?;
        // SAFETY: plain calls, with strings that end.
        let done = check(i64::from(unsafe {
            if end < way.len() {
                libc::mount(place.as_ptr(), place.as_ptr(), none, libc::MS_BIND | libc::MS_REC, none.cast())
            } else {
                let empty = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV;
                libc::mount(b"none\0".as_ptr().cast(), place.as_ptr(), b"tmpfs\0".as_ptr().cast(), empty, b"mode=0\0".as_ptr().cast())
            }
        }));
        match done {
            // Another mount lies over it already.
            Err(libc::ENOENT) => return Ok(()),
            done => done.map(|_| ())?,
        }
    }
    Ok(())
}

/// Started by root: what a guest does is done by the directory's owner.
fn become_user(uid: u32, gid: u32) -> Done {
    // SAFETY: plain calls.
    unsafe {
        check(i64::from(libc::setgroups(0, std::ptr::null()))).map_err(|e| failed("groups", e))?;
        check(i64::from(libc::setresgid(gid, gid, gid))).map_err(|e| failed("the group", e))?;
        check(i64::from(libc::setresuid(uid, uid, uid))).map_err(|e| failed("the user", e))?;
    }
    Ok(())
}

/// linux/capability.h, version 3
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

fn drop_rights() -> Done {
    // SAFETY: plain calls; header and data are as the kernel wants them.
    unsafe {
        check(i64::from(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))).map_err(|e| failed("no new privileges", e))?;
        for capability in 0..64 {
            // Those that the kernel does not know, and all where there are none, are errors of no meaning.
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        let header = CapabilityHeader { version: 0x2008_0522, pid: 0 };
        let none = [0u32; 6];
        check(libc::syscall(libc::SYS_capset, &header, none.as_ptr())).map_err(|e| failed("capabilities", e))?;
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
    Ok(())
}

const SYS_LANDLOCK_CREATE_RULESET: c_long = 444;
const SYS_LANDLOCK_ADD_RULE: c_long = 445;
const SYS_LANDLOCK_RESTRICT_SELF: c_long = 446;
/// linux/landlock.h: all rights of the first version, and REFER and TRUNCATE of the second and third.
const FIRST_RIGHTS: u64 = (1 << 13) - 1;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
/// To read files and directories.
const READS: u64 = 1 << 2 | 1 << 3;
/// To execute, and to make devices, sockets and pipes.
const NEVER: u64 = 1 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11;

#[repr(C, packed)]
struct BeneathRule {
    allowed: u64,
    parent: i32,
}

/// A kernel without Landlock has the other bounds.
fn landlock(root: &Fd, layer: Option<&Fd>) -> Done {
    // SAFETY: the structures are as the kernel wants them and outlive the calls.
    unsafe {
        let version = libc::syscall(SYS_LANDLOCK_CREATE_RULESET, std::ptr::null::<u64>(), 0usize, 1u32);
        if version <= 0 {
            return Ok(());
        }
        let handled = FIRST_RIGHTS | if version >= 2 { REFER } else { 0 } | if version >= 3 { TRUNCATE } else { 0 };
        // The first version refuses every rename and link between directories, which would break programs.
        if version < 2 {
            return Ok(());
        }
        let rules = check(libc::syscall(SYS_LANDLOCK_CREATE_RULESET, &handled, std::mem::size_of::<u64>(), 0u32)).map_err(|e| failed("Landlock", e))?;
        let rules = Fd::own(rules as c_int);
        let all = handled & !NEVER;
        let rooms = [(Some(root), if layer.is_some() { all & READS } else { all }), (layer, all)];
        for (room, allowed) in rooms.iter().filter_map(|(room, allowed)| room.map(|room| (room, *allowed))) {
            let rule = BeneathRule { allowed, parent: room.raw() };
            check(libc::syscall(SYS_LANDLOCK_ADD_RULE, rules.raw(), 1u32, &rule, 0u32)).map_err(|e| failed("Landlock", e))?;
        }
        check(libc::syscall(SYS_LANDLOCK_RESTRICT_SELF, rules.raw(), 0u32)).map_err(|e| failed("Landlock", e))?;
    }
    Ok(())
}

/// Everything that serve.rs does, and the allocator. Nothing else: no program is started, no process looked at, nothing connected.
const CALLS: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_openat2,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_pwritev2,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_faccessat2,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    FCHMODAT2,
    libc::SYS_utimensat,
    libc::SYS_symlinkat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_fgetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fremovexattr,
    libc::SYS_fcntl,
    libc::SYS_fchdir,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    libc::SYS_poll,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
const FCHMODAT2: c_long = 452;
/// How a program ends itself after a panic: refused, it would go on for ever.
const ENDS: &[c_long] = &[libc::SYS_rt_sigaction, libc::SYS_tgkill];

const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL: u32 = 0x8000_0000;

fn seccomp() -> Done {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let (load, jump_equal, give) = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::BPF_RET | libc::BPF_K);
    let mut program = vec![step(load, 0, 0, 4), step(jump_equal, 1, 0, AUDIT_ARCH_X86_64), step(give, 0, 0, KILL), step(load, 0, 0, 0)];
    for call in CALLS {
        program.push(step(jump_equal, 0, 1, *call as u32));
        program.push(step(give, 0, 0, ALLOW));
    }
    for call in ENDS {
        program.push(step(jump_equal, 0, 1, *call as u32));
        program.push(step(give, 0, 0, KILL));
    }
    // An error, as an older kernel would give it: nothing that works today stops when the C library tries something newer first.
    program.push(step(give, 0, 0, ERRNO | libc::ENOSYS as u32));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program outlives the call.
    check(i64::from(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER as c_ulong, &filter) })).map_err(|e| failed("seccomp", e))?;
    Ok(())
}
