//! Changes of files, by inotify, on a thread that sleeps until there are some.

use crate::files::{is, name, stat};
use crate::jobs::Io;
use crate::protocol::{status, tag, Fields};
use crate::sys::{self, check, cstring, Fail, Fd, Result};
use crate::temporary;
use crate::walk::{join, walk, Visit};
use std::collections::HashMap;

const CREATE: u8 = 1;
const MODIFY: u8 = 2;
const DELETE: u8 = 3;
const RENAME: u8 = 4;
const OVERFLOW: u8 = 5;
/// The two halves of a rename are queued one after the other; a reader may wake between them.
const RENAME_WAIT_MS: i32 = 50;
const MAX_WATCHES: usize = 16_384;
const MASK: u32 = libc::IN_CREATE | libc::IN_MODIFY | libc::IN_ATTRIB | libc::IN_DELETE | libc::IN_MOVED_FROM | libc::IN_MOVED_TO
    | libc::IN_DELETE_SELF | libc::IN_MOVE_SELF | libc::IN_EXCL_UNLINK;

struct Watcher {
    inotify: Fd,
    paths: HashMap<i32, Vec<u8>>,
    recursive: bool,
    /// The first half of a rename, until its second half or the end of the batch.
    moving: Option<(u32, Vec<u8>)>,
}

pub fn watch(io: &mut Io, path: &[u8], recursive: bool) -> Result<Fields> {
    let st = stat(path, true)?;
    // SAFETY: plain integers.
    let fd = check(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) }, "inotify")?;
    let mut watcher = Watcher { inotify: Fd::own(fd), paths: HashMap::new(), recursive, moving: None };
    watcher.add(path)?;
    if recursive && is(&st, libc::S_IFDIR) {
        watcher.add_below(io, path, false)?;
    }
    io.event(Fields::new())?;
    let mut buf = vec![0u8; 65_536];
    loop {
        io.wait_readable(watcher.inotify.raw())?;
        let n = match sys::read(watcher.inotify.raw(), &mut buf) {
            Ok(n) => n,
            Err(libc::EAGAIN) => continue,
            Err(e) => return Err(Fail::errno(e, "inotify")),
        };
        let mut at = 0;
        while at + 16 <= n {
            let field = |o: usize| u32::from_ne_bytes([buf[at + o], buf[at + o + 1], buf[at + o + 2], buf[at + o + 3]]);
            let (wd, mask, cookie, length) = (field(0) as i32, field(4), field(8), field(12) as usize);
            let text = buf.get(at + 16..at + 16 + length).unwrap_or(&[]);
            let entry = text.split(|&b| b == 0).next().unwrap_or(&[]).to_vec();
            at += 16 + length;
            watcher.event(io, wd, mask, cookie, &entry)?;
        }
        if watcher.moving.is_none() || !watcher.more_soon() {
            watcher.moved_away(io)?;
        }
        if watcher.paths.is_empty() {
            return Ok(Fields::new());
        }
    }
}

/// `Some` of a file that the agent writes beside another one: whether it is to take the place of one.
fn replacement(path: &[u8]) -> Option<bool> {
    path.rsplit(|b| *b == b'/').next().and_then(temporary::parse)
}

fn send(io: &mut Io, change: u8, path: &[u8], to: Option<&[u8]>) -> Result<()> {
    let mut f = Fields::new();
    f.u8(tag::CHANGE, change).bytes(tag::PATH, path);
    if let Some(to) = to {
        f.bytes(tag::TO, to);
    }
    io.event(f)
}

impl Watcher {
    fn add(&mut self, path: &[u8]) -> Result<()> {
        if self.paths.len() >= MAX_WATCHES {
            return Err(Fail::new(status::LIMIT, format!("more than {} directories to watch", MAX_WATCHES)));
        }
        let c = cstring(path)?;
        // SAFETY: NUL-terminated.
        let wd = check(unsafe { libc::inotify_add_watch(self.inotify.raw(), c.as_ptr(), MASK) }, &name(path)).map_err(|fail| {
            // The kernel says "no space" for "no watches left".
            match fail.errno {
                libc::ENOSPC => Fail { status: status::LIMIT, ..fail },
                _ => fail,
            }
        })?;
        self.paths.insert(wd, path.to_vec());
        Ok(())
    }

    /// `report`: what is there already came into being before the watch did, and is told as created.
    fn add_below(&mut self, io: &mut Io, path: &[u8], report: bool) -> Result<()> {
        walk(path, |visit, path, _, _| {
            if visit != Visit::Leave {
                if report && replacement(path).is_none() {
                    send(io, CREATE, path, None)?;
                }
                if visit == Visit::Enter {
                    match self.add(path) {
                        Err(f) if f.errno == libc::ENOENT => return Ok(false),
                        result => result?,
                    }
                }
            }
            io.check()?;
            Ok(true)
        })
    }

    fn event(&mut self, io: &mut Io, wd: i32, mask: u32, cookie: u32, entry: &[u8]) -> Result<()> {
        if mask & libc::IN_Q_OVERFLOW != 0 {
            return send(io, OVERFLOW, b"", None);
        }
        let dir = match self.paths.get(&wd) {
            Some(dir) => dir.clone(),
            None => return Ok(()),
        };
        if mask & libc::IN_IGNORED != 0 {
            self.paths.remove(&wd);
            return Ok(());
        }
        let path = if entry.is_empty() { dir } else { join(&dir, entry) };
        let is_directory = mask & libc::IN_ISDIR != 0;
        // Of a file that we write beside another one only its last change counts, when it becomes the other one.
        if replacement(&path).is_some() && mask & libc::IN_MOVED_FROM == 0 {
            return Ok(());
        }
        if mask & libc::IN_MOVED_FROM != 0 {
            self.moved_away(io)?;
            self.moving = Some((cookie, path));
            return Ok(());
        }
        if mask & libc::IN_MOVED_TO != 0 {
            match self.moving.take() {
                Some((c, from)) if c == cookie => {
                    if let Some(replaces) = replacement(&from) {
                        return send(io, if replaces { MODIFY } else { CREATE }, &path, None);
                    }
                    send(io, RENAME, &from, Some(&path))?;
                    if is_directory {
                        self.renamed(&from, &path);
                    }
                    return Ok(());
                }
                other => {
                    self.moving = other;
                    self.moved_away(io)?;
                }
            }
            send(io, CREATE, &path, None)?;
            return self.entered(io, &path, is_directory);
        }
        self.moved_away(io)?;
        if mask & libc::IN_CREATE != 0 {
            send(io, CREATE, &path, None)?;
            return self.entered(io, &path, is_directory);
        }
        if mask & libc::IN_DELETE != 0 {
            return send(io, DELETE, &path, None);
        }
        if mask & (libc::IN_DELETE_SELF | libc::IN_MOVE_SELF) != 0 {
            // Of a directory below, its parent has told already. What is watched itself has no other messenger.
            let parent = path.iter().rposition(|&b| b == b'/').map(|p| path[..p].to_vec());
            let told = parent.map_or(false, |p| self.paths.values().any(|w| *w == p));
            if !told && mask & libc::IN_DELETE_SELF != 0 {
                return send(io, DELETE, &path, None);
            }
            return Ok(());
        }
        if mask & (libc::IN_MODIFY | libc::IN_ATTRIB) != 0 && !(is_directory && entry.is_empty()) {
            return send(io, MODIFY, &path, None);
        }
        Ok(())
    }

    /// Whether another change comes within the time that the second half of a rename may take.
    fn more_soon(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.inotify.raw(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        unsafe { libc::poll(&mut poll, 1, RENAME_WAIT_MS) > 0 }
    }

    fn entered(&mut self, io: &mut Io, path: &[u8], is_directory: bool) -> Result<()> {
        if !self.recursive || !is_directory {
            return Ok(());
        }
        match self.add(path) {
            Err(f) if f.errno == libc::ENOENT => Ok(()),
            Err(f) => Err(f),
            Ok(()) => match self.add_below(io, path, true) {
                Err(f) if f.errno == libc::ENOENT => Ok(()),
                result => result,
            },
        }
    }

    fn below(&self, dir: &[u8]) -> Vec<i32> {
        let inside = |p: &[u8]| p.starts_with(dir) && matches!(p.get(dir.len()), None | Some(b'/'));
        self.paths.iter().filter(|(_, p)| inside(p)).map(|(wd, _)| *wd).collect()
    }

    fn renamed(&mut self, from: &[u8], to: &[u8]) {
        for wd in self.below(from) {
            if let Some(path) = self.paths.get_mut(&wd) {
                *path = [to, &path[from.len()..]].concat();
            }
        }
    }

    /// The second half of a rename did not come: it went out of what is watched.
    fn moved_away(&mut self, io: &mut Io) -> Result<()> {
        match self.moving.take() {
            Some((_, path)) => {
                for wd in self.below(&path) {
                    // SAFETY: plain integers. The kernel confirms with IN_IGNORED, which forgets the path.
                    unsafe { libc::inotify_rm_watch(self.inotify.raw(), wd) };
                }
                match replacement(&path) {
                    Some(_) => Ok(()),
                    None => send(io, DELETE, &path, None),
                }
            }
            None => Ok(()),
        }
    }
}
