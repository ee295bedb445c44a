//! Changes by the host are told to the guest, whose kernel cannot see them and whose agent does them once more for `inotify` (agent/src/replay.rs):
//! those in directories that the guest's kernel knows, of these the newest so many. What this process does itself is not told.
//!
//! A message has the header of an answer, with 0 for the request's number and NOTICE for the error; then kind (4 bytes) and type (4, the bits of a
//! mode) of the change, and the path, from the directory on.

use crate::sys::{check, Fd};
use crate::tree::{Tree, ROOT};
use crate::wire::Answer;
use std::collections::{HashMap, VecDeque};

/// At a time: the guest's requests wait meanwhile, and the host may go on and on.
const MOST_READS: usize = 4;
const NOTICE: u32 = 0x5354_4143;
pub const CREATED: u32 = 1;
pub const REMOVED: u32 = 2;
pub const CHANGED: u32 = 3;
const WANTED: u32 = libc::IN_CREATE | libc::IN_DELETE | libc::IN_MOVED_FROM | libc::IN_MOVED_TO | libc::IN_MODIFY | libc::IN_ATTRIB;
const EVENT_BYTES: usize = 16;

/// A change of our own: the directory's node, and the name in it.
pub type Own = (u64, Vec<u8>);

pub struct Watches {
    /// Absent: the host has none left, and nothing is told.
    inotify: Option<Fd>,
    nodes: HashMap<i32, u64>,
    watches: HashMap<u64, i32>,
    order: VecDeque<u64>,
    most: usize,
}

impl Watches {
    /// @param most directories: the host's user has a limited number of them for all its programs (`fs.inotify.max_user_watches`), and the server
    /// shares out what helpers may take of it. 0: none at all
    pub fn new(most: usize) -> Watches {
        // SAFETY: plain integers.
        let made = if most == 0 { Err(libc::EMFILE) } else { check(i64::from(unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) })) };
        let inotify = made.ok().map(|fd| Fd::own(fd as i32));
        Watches { inotify, nodes: HashMap::new(), watches: HashMap::new(), order: VecDeque::new(), most }
    }

    /// To wait for. Negative: for nothing.
    pub fn raw(&self) -> i32 {
        self.inotify.as_ref().map_or(-1, Fd::raw)
    }

    pub fn has(&self, node: u64) -> bool {
        self.watches.contains_key(&node)
    }

    /// A directory. One that cannot be watched is not: it is served all the same.
    pub fn add(&mut self, tree: &Tree, node: u64) {
        if self.inotify.is_none() || self.has(node) {
            return;
        }
        if let Ok(watch) = self.watch(tree, node) {
            while self.order.len() >= self.most {
                let oldest = self.order.front().copied().unwrap_or(0);
                self.forget(oldest);
            }
            // Another name of the same directory: the host watches it once.
            if let Some(former) = self.nodes.insert(watch, node).filter(|former| *former != node) {
                self.watches.remove(&former);
                self.order.retain(|other| *other != former);
            }
            self.watches.insert(node, watch);
            // The directory itself stays.
            if node != ROOT {
                self.order.push_back(node);
            }
        }
    }

    /// By way of the working directory: a path could be led elsewhere meanwhile.
    fn watch(&self, tree: &Tree, node: u64) -> Result<i32, i32> {
        let directory = tree.hosts_directory(node)?;
        let mask = WANTED | libc::IN_ONLYDIR | libc::IN_DONT_FOLLOW | libc::IN_EXCL_UNLINK;
        // SAFETY: descriptors of ours, and a string that ends.
        unsafe {
            check(i64::from(libc::fchdir(directory.raw())))?;
            let watch = check(i64::from(libc::inotify_add_watch(self.raw(), b".\0".as_ptr().cast(), mask)));
            check(i64::from(libc::fchdir(tree.root().raw())))?;
            watch.map(|watch| watch as i32)
        }
    }

    pub fn forget(&mut self, node: u64) {
        self.order.retain(|other| *other != node);
        if let Some(watch) = self.watches.remove(&node) {
            self.nodes.remove(&watch);
            // SAFETY: plain integers. One that is gone with its directory is an error of no meaning.
            unsafe { libc::inotify_rm_watch(self.raw(), watch) };
        }
    }

    /// What has happened since the last time, but for what is ours.
    pub fn take(&mut self, tree: &Tree, own: &[Own]) -> Vec<Vec<u8>> {
        let mut messages: Vec<Vec<u8>> = Vec::new();
        let mut buffer = [0u8; 16 * 1024];
        for _ in 0..MOST_READS {
            let inotify = match &self.inotify {
                Some(inotify) => inotify,
                None => break,
            };
            // SAFETY: the buffer is valid for its length.
            let got = match check(unsafe { libc::read(inotify.raw(), buffer.as_mut_ptr().cast(), buffer.len()) } as i64) {
                Ok(got) if got > 0 => got as usize,
                _ => break,
            };
            let mut rest = &buffer[..got];
            while let Some((watch, mask, name, next)) = event(rest) {
                rest = next;
                if mask & libc::IN_Q_OVERFLOW != 0 {
                    // Which they were nobody knows: whoever watches looks again.
                    messages.extend(self.watches.keys().filter_map(|node| looked_at_again(tree, *node)));
                } else if mask & libc::IN_IGNORED != 0 {
                    if let Some(node) = self.nodes.get(&watch).copied() {
                        self.forget(node);
                    }
                } else if let Some(node) = self.nodes.get(&watch).copied() {
                    if !name.is_empty() && !own.iter().any(|(directory, ours)| *directory == node && ours.as_slice() == name) {
                        messages.extend(told(tree, node, mask, name).filter(|message| messages.last() != Some(message)));
                    }
                }
            }
        }
        messages
    }
}

fn event(bytes: &[u8]) -> Option<(i32, u32, &[u8], &[u8])> {
    let number = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    let (watch, mask, length) = (number(0)?, number(4)?, number(12)? as usize);
    let padded = bytes.get(EVENT_BYTES..EVENT_BYTES + length)?;
    let name = padded.split(|byte| *byte == 0).next().unwrap_or(&[]);
    Some((watch as i32, mask, name, &bytes[EVENT_BYTES + length..]))
}

fn told(tree: &Tree, node: u64, mask: u32, name: &[u8]) -> Option<Vec<u8>> {
    // It is below the directory that is shared, still: a watch goes where the directory goes.
    let directory = tree.directory(node).ok()?;
    let mut path = tree.path(node)?;
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    if mask & (libc::IN_DELETE | libc::IN_MOVED_FROM) != 0 {
        let kind = if mask & libc::IN_ISDIR != 0 { libc::S_IFDIR } else { libc::S_IFREG };
        return Some(message(REMOVED, kind, &path));
    }
    if mask & (libc::IN_CREATE | libc::IN_MOVED_TO) == 0 {
        return Some(message(CHANGED, 0, &path));
    }
    let (_, stat) = tree.look(&directory, node, name).ok()?;
    let kind = u32::from(stat.stx_mode) & libc::S_IFMT;
    Some(message(CREATED, kind, &path)).filter(|_| [libc::S_IFREG, libc::S_IFDIR, libc::S_IFLNK].contains(&kind))
}

/// The directory itself, as if it had changed.
pub fn looked_at_again(tree: &Tree, node: u64) -> Option<Vec<u8>> {
    tree.directory(node).ok()?;
    let path = if node == ROOT { Vec::new() } else { tree.path(node)? };
    Some(message(CHANGED, libc::S_IFDIR, &path))
}

fn message(kind: u32, mode: u32, path: &[u8]) -> Vec<u8> {
    let mut answer = Answer::new();
    answer.u32(kind);
    answer.u32(mode);
    answer.bytes(path);
    let mut bytes = answer.finish(0);
    bytes[4..8].copy_from_slice(&NOTICE.to_le_bytes());
    bytes
}
