//! Changes by the host in its directories, done once more for this kernel, which tells `inotify` of what goes through it and of nothing else. A
//! thread of its own makes, removes and touches what the host has; the kernel asks what is behind the mount to do that, and that is this agent,
//! which knows the thread by its number (the `pid` of FUSE's header) and has nothing done: the file that is to be made is looked up, so is the one
//! that is to be removed, which there is for the kernel only if the host has it no more, and the one that is to be touched is looked at. What
//! nobody watches is left alone.

use crate::fuse;
use crate::sys::{self, Fd};
use crate::volumes::unescaped;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

/// The kinds of directory/src/watch.rs.
const CREATED: u32 = 1;
const REMOVED: u32 = 2;
const CHANGED: u32 = 3;
/// Of what waits to be told: of more only the directories are touched, and of more than twice as many none.
const MOST_WAITING: usize = 4_096;
/// What comes one after the other is told at once. It waits four times as long as the last ones took, too, for the programs to have their time.
const GATHER: Duration = Duration::from_millis(20);
const MOST_REST: Duration = Duration::from_secs(1);
const STACK: usize = 256 * 1024;

/// What the thread is about to do: what its look-ups are answered with depends on it.
pub mod doing {
    pub const NOTHING: u32 = 0;
    pub const MAKING: u32 = 1;
    /// The type that is removed, as in a mode, is in this.
    pub const REMOVING: u32 = 2;
    /// With `MAKING`: a program has looked at it already, and it is made all the same.
    pub const ANEW: u32 = 4;
}

/// One change, as the host has told it.
pub struct Change {
    pub kind: u32,
    /// Its type, as in a mode.
    pub mode: u32,
    /// From the directory on.
    pub path: Vec<u8>,
    /// The kernel did not know that name when it was told. By the time that it is done once more a program may have looked.
    pub unknown: Option<Unknown>,
}

#[derive(Clone)]
pub struct Unknown {
    /// The number of the directory that it is in, for the kernel.
    pub parent: u64,
    pub fuse: Weak<Fd>,
}

/// The last of what waits to be told of one name.
struct Waits {
    kind: u32,
    mode: u32,
    unknown: Option<Unknown>,
}

/// A directory of the host, where it is mounted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub path: Vec<u8>,
    /// Major and minor number: another filesystem may lie there by now.
    pub device: (u32, u32),
}

#[derive(Default)]
struct Waiting {
    changes: BTreeMap<(Place, Vec<u8>), Waits>,
    running: bool,
}

#[derive(Default)]
pub struct Replay {
    waiting: Mutex<Waiting>,
    come: Condvar,
    thread: AtomicU32,
    doing: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Replay {
    /// Whether a request of this thread is one of ours. @returns what it is doing
    pub fn asks(&self, thread: u32) -> Option<u32> {
        (thread != 0 && thread == self.thread.load(Ordering::SeqCst)).then(|| self.doing.load(Ordering::SeqCst))
    }

    pub fn add(self: &Arc<Replay>, place: &Place, changes: Vec<Change>) {
        let mut waiting = lock(&self.waiting);
        for Change { kind, mode, path, unknown } in changes {
            let all = &mut waiting.changes;
            // What waits already is told as it is now: a removal must not stand where something was made.
            let known = all.contains_key(&(place.clone(), path.clone()));
            let crowded = all.len() >= MOST_WAITING && !known;
            let path = if crowded { split(&path).0.to_vec() } else { path };
            let (kind, mode) = if crowded { (CHANGED, libc::S_IFDIR) } else { (kind, mode) };
            if all.len() >= 2 * MOST_WAITING && !known {
                continue;
            }
            let last = all.entry((place.clone(), path)).or_insert(Waits { kind, mode, unknown: None });
            last.unknown = unknown.filter(|_| !crowded).or(last.unknown.take());
            // What was made and then written was made.
            if kind != CHANGED || last.kind == REMOVED {
                last.kind = kind;
                last.mode = mode;
            }
        }
        if !waiting.running && !waiting.changes.is_empty() {
            let replay = self.clone();
            waiting.running = std::thread::Builder::new().stack_size(STACK).spawn(move || replay.run()).is_ok();
        }
        self.come.notify_one();
    }

    fn run(&self) {
        // SAFETY: plain call.
        self.thread.store(unsafe { libc::syscall(libc::SYS_gettid) } as u32, Ordering::SeqCst);
        let mut rest = GATHER;
        loop {
            let mut waiting = lock(&self.waiting);
            while waiting.changes.is_empty() {
                waiting = self.come.wait(waiting).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            drop(waiting);
            std::thread::sleep(rest);
            let begun = Instant::now();
            let mut changes = std::mem::take(&mut lock(&self.waiting).changes);
            while let Some(place) = changes.keys().next().map(|(place, _)| place.clone()) {
                let (own, others): (BTreeMap<_, _>, BTreeMap<_, _>) = changes.into_iter().partition(|((of, _), _)| *of == place);
                changes = others;
                self.tell(&place, &own);
            }
            rest = (begun.elapsed() * 4).max(GATHER).min(MOST_REST);
        }
    }

    fn tell(&self, place: &Place, changes: &BTreeMap<(Place, Vec<u8>), Waits>) {
        let watched = watched(place.device);
        let root = match mounted(place) {
            Some(root) if !watched.is_empty() => root,
            _ => return,
        };
        for ((_, path), Waits { kind, mode, unknown }) in changes {
            let (directory, name) = split(path);
            if name.is_empty() {
                touch(&root, b".", &watched, true);
                continue;
            }
            let parent = match beneath(root.raw(), if directory.is_empty() { b"." } else { directory }, libc::O_DIRECTORY) {
                Some(parent) => parent,
                None => continue,
            };
            let parent_watched = inode(&parent, libc::AT_STATX_DONT_SYNC).map_or(false, |inode| watched.contains(&inode));
            let made = match *kind {
                CREATED if parent_watched => {
                    let whole = [&place.path, &b"/"[..], path].concat();
                    self.make(&parent, name, *mode, unknown.as_ref().filter(|_| !holds_mounts(&whole)))
                }
                REMOVED if parent_watched => {
                    self.remove(&parent, name, *mode);
                    continue;
                }
                CHANGED => false,
                _ => continue,
            };
            // One that was made is written, too, and one that was there already has another content.
            if !made || *mode == libc::S_IFREG {
                touch(&parent, name, &watched, parent_watched);
            }
        }
    }

    /// @param unknown what the kernel believes of it by now it was told after it was made, and it is made for it all the same
    /// @returns false: the kernel knew it already
    fn make(&self, parent: &Fd, name: &[u8], mode: u32, unknown: Option<&Unknown>) -> bool {
        let path = match sys::cstring(name) {
            Ok(path) => path,
            Err(_) => return true,
        };
        self.doing.store(doing::MAKING | if unknown.is_some() { doing::ANEW } else { 0 }, Ordering::SeqCst);
        // SAFETY: strings that end and outlive the calls.
        let is_known = || unsafe {
            let made = match mode {
                libc::S_IFDIR => libc::mkdirat(parent.raw(), path.as_ptr(), 0o700),
                libc::S_IFLNK => libc::symlinkat(b"x\0".as_ptr().cast(), parent.raw(), path.as_ptr()),
                _ => libc::mknodat(parent.raw(), path.as_ptr(), libc::S_IFREG | 0o600, 0),
            };
            made != 0 && sys::last_errno() == libc::EEXIST
        };
        let mut known = is_known();
        if let (true, Some(unknown)) = (known, unknown) {
            // Names of directories are believed for a while. Here, since the kernel may wait for a program that waits for the loop.
            if let Some(fuse) = unknown.fuse.upgrade() {
                let _ = sys::write(fuse.raw(), &fuse::outdated_name(unknown.parent, name));
                known = is_known();
            }
        }
        self.doing.store(doing::NOTHING, Ordering::SeqCst);
        !known
    }

    fn remove(&self, parent: &Fd, name: &[u8], mode: u32) {
        if let Ok(name) = sys::cstring(name) {
            self.doing.store(doing::REMOVING | mode, Ordering::SeqCst);
            let flags = if mode == libc::S_IFDIR { libc::AT_REMOVEDIR } else { 0 };
            // SAFETY: a string that ends and outlives the call.
            unsafe { libc::unlinkat(parent.raw(), name.as_ptr(), flags) };
            self.doing.store(doing::NOTHING, Ordering::SeqCst);
        }
    }
}

/// With a new time of its last change, which is the host's.
fn touch(parent: &Fd, name: &[u8], watched: &HashSet<u64>, parent_watched: bool) {
    let file = match beneath(parent.raw(), name, 0) {
        Some(file) => file,
        None => return,
    };
    // What is in the kernel's memory of it holds no longer.
    let own = inode(&file, libc::AT_STATX_FORCE_SYNC);
    if parent_watched || own.map_or(false, |inode| watched.contains(&inode)) {
        let times = [libc::UTIME_OMIT, libc::UTIME_NOW].map(|tv_nsec| libc::timespec { tv_sec: 0, tv_nsec });
        // SAFETY: two times, as the call reads, and an empty path that ends.
        unsafe { libc::utimensat(file.raw(), b"\0".as_ptr().cast(), times.as_ptr(), libc::AT_EMPTY_PATH) };
    }
}

/// A name that is forgotten would take them along.
fn holds_mounts(path: &[u8]) -> bool {
    let table = std::fs::read("/proc/self/mounts").unwrap_or_default();
    let places = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(1));
    places.map(unescaped).any(|place| place.strip_prefix(path).map_or(false, |rest| rest.is_empty() || rest.starts_with(b"/")))
}

/// The directory it is in, and its name there.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// No crossing of mounts, no links, nothing above.
const WITHIN: u64 = 0x01 | 0x02 | 0x04 | 0x08;
const SYS_OPEN_TREE: libc::c_long = 428;
const SYS_OPENAT2: libc::c_long = 437;
const SYS_MOUNT_SETATTR: libc::c_long = 442;
/// Another filesystem that lies there now may have got the number that ours had.
const FUSE: u64 = 0x6573_5546;
const OPEN_TREE_CLONE: libc::c_uint = 1;

/// A descriptor that only names it.
fn beneath(directory: i32, path: &[u8], flags: i32) -> Option<Fd> {
    let path = sys::cstring(path).ok()?;
    let how = OpenHow { flags: (libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW | flags) as u64, mode: 0, resolve: WITHIN };
    // SAFETY: path and structure outlive the call, the size is the structure's.
    let fd = unsafe { libc::syscall(SYS_OPENAT2, directory, path.as_ptr(), &how as *const OpenHow, std::mem::size_of::<OpenHow>()) };
    (fd >= 0).then(|| Fd::own(fd as i32))
}

/// The mount itself once more, in no place, where it may be written to: its programs' may be read only.
fn mounted(place: &Place) -> Option<Fd> {
    let path = sys::cstring(&place.path).ok()?;
    // SAFETY: strings that end, a structure of the size that is said.
    unsafe {
        let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_NO_AUTOMOUNT as libc::c_uint;
        let fd = libc::syscall(SYS_OPEN_TREE, libc::AT_FDCWD, path.as_ptr(), flags);
        let root = (fd >= 0).then(|| Fd::own(fd as i32))?;
        let attributes: [u64; 4] = [0, 1, 0, 0];
        libc::syscall(SYS_MOUNT_SETATTR, root.raw(), b"\0".as_ptr(), libc::AT_EMPTY_PATH, attributes.as_ptr(), std::mem::size_of_val(&attributes));
        let mut kind: libc::statfs = std::mem::zeroed();
        if libc::fstatfs(root.raw(), &mut kind) != 0 || kind.f_type as u64 != FUSE {
            return None;
        }
        let found = looked_at(root.raw(), b"\0", libc::AT_STATX_DONT_SYNC)?;
        Some(root).filter(|_| (found.stx_dev_major, found.stx_dev_minor) == place.device)
    }
}

/// @param path that ends
fn looked_at(directory: i32, path: &[u8], flags: i32) -> Option<libc::statx> {
    // SAFETY: zeroes are a valid structure, which the kernel fills; the path ends.
    unsafe {
        let mut stat: libc::statx = std::mem::zeroed();
        let flags = flags | libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT | libc::AT_SYMLINK_NOFOLLOW;
        let done = libc::statx(directory, path.as_ptr().cast(), flags, libc::STATX_BASIC_STATS, &mut stat);
        (done == 0).then(|| stat)
    }
}

fn inode(file: &Fd, flags: i32) -> Option<u64> {
    looked_at(file.raw(), b"\0", flags).map(|stat| stat.stx_ino)
}

/// Of a mount that nobody may answer for yet.
pub fn device_of(path: &[u8]) -> (u32, u32) {
    let ended = [path, b"\0"].concat();
    looked_at(libc::AT_FDCWD, &ended, libc::AT_STATX_DONT_SYNC).map_or((0, 0), |stat| (stat.stx_dev_major, stat.stx_dev_minor))
}

/// Numbers of the files of this filesystem that programs watch, from what the kernel says of their descriptors.
fn watched((major, minor): (u32, u32)) -> HashSet<u64> {
    let device = format!("sdev:{:x} ", u64::from(major) << 20 | u64::from(minor));
    let mut all = HashSet::new();
    let numbers = |dir: &str| -> Vec<String> {
        let names = std::fs::read_dir(dir).map(|list| list.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect());
        names.unwrap_or_else(|_| Vec::new()).into_iter().filter(|name: &String| name.bytes().all(|byte| byte.is_ascii_digit())).collect()
    };
    for process in numbers("/proc") {
        for fd in numbers(&format!("/proc/{}/fd", process)) {
            let target = std::fs::read_link(format!("/proc/{}/fd/{}", process, fd));
            if !target.map_or(false, |target| target.as_os_str() == "anon_inode:inotify") {
                continue;
            }
            let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{}", process, fd)).unwrap_or_default();
            for line in info.lines().filter(|line| line.contains(&device)) {
                let number = line.split(' ').find_map(|word| word.strip_prefix("ino:"));
                all.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_and_then_written_was_made_and_too_much_is_its_directories() {
        let replay = Arc::new(Replay::default());
        lock(&replay.waiting).running = true;
        let place = Place { path: b"/work".to_vec(), device: (0, 1) };
        let change = |kind: u32, path: &[u8]| Change { kind, mode: libc::S_IFREG, path: path.to_vec(), unknown: None };
        replay.add(&place, vec![change(CREATED, b"d/a"), change(CHANGED, b"d/a"), change(REMOVED, b"d/b"), change(CREATED, b"d/b")]);
        let kinds: Vec<u32> = lock(&replay.waiting).changes.values().map(|waits| waits.kind).collect();
        assert_eq!(kinds, [CREATED, CREATED]);
        replay.add(&place, (0..3 * MOST_WAITING).map(|n| change(CHANGED, format!("d/{}", n).as_bytes())).collect());
        let waiting = lock(&replay.waiting);
        assert_eq!(waiting.changes.len(), MOST_WAITING + 1);
        let directory = waiting.changes.get(&(place, b"d".to_vec())).map(|waits| (waits.kind, waits.mode));
        assert_eq!(directory, Some((CHANGED, libc::S_IFDIR)));
    }
}
