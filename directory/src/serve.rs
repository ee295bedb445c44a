//! One FUSE request after the other. Whatever a guest asks for is looked for beneath the directory (tree.rs), opened only if it is a
//! file or a directory, and done with the rights of the user that this process runs as.

use crate::layer::{self, Entry, Layer};
use crate::sys::{self, check, text, uninterrupted, Fd};
use crate::tree::{identity, Identity, Tree, ROOT};
use crate::watch::{self, Own, Watches};
use crate::wire::{opcode, Answer, Body, Header, BAD, MAX_IO};
use std::collections::{BTreeSet, HashMap};
use std::os::raw::c_void;

/// What is found under a name the guest's kernel may believe for so long. Directories: their names stay. Everything else is looked up each time, so
/// that a change by the host is seen at once; a file that is open is asked for its size again after a moment.
const DIRECTORY_VALID_NS: u64 = 1_000_000_000;
const FILE_VALID_NS: u64 = 100_000_000;
/// A name that came with a listing: a program that lists looks at each of them next. Whoever opens it sees what is there then (agent/src/fuse.rs).
const LISTED_VALID_NS: u64 = 100_000_000;
/// What is told of each name of such a listing, before the name.
const ENTRY_BYTES: usize = 128;
/// Neither set-user-ID nor the like, set or shown: the host's programs would heed them, the guest's do not (nosuid).
const FILE_BITS: u32 = 0o777;
const DIRECTORY_BITS: u32 = 0o1777;
const MAX_XATTR: usize = 64 * 1024;
/// Those that could not be opened again are no descriptors, and are bounded by this.
const MOST_HANDLES: usize = 16_384;
/// Names of all listings that are under way beside a layer, but for the last one.
const MOST_LISTED: usize = 500_000;

pub struct Handle {
    node: u64,
    /// Absent: it was open before this process was there, and could not be opened again.
    file: Option<Fd>,
    /// What it was opened for.
    access: i32,
    /// The host's, beside a layer, until it is written to.
    hosts: bool,
    /// Of a directory beside a layer: its names, since its listing began.
    names: Option<Vec<Entry>>,
}

pub struct Server {
    tree: Tree,
    handles: HashMap<u64, Handle>,
    next_handle: u64,
    watches: Watches,
    /// Changes by the host that the guest is to be told of.
    changes: Vec<Vec<u8>>,
    read_only: bool,
    /// Whom files of this process's user belong to in the guest.
    shown: (u32, u32),
    own: (u32, u32),
}

type Done = Result<Answer, i32>;

impl Server {
    /// @param own user and group of this process
    /// @param watched directories, at most, whose changes by the host are told
    pub fn new(root: Fd, layer: Option<Layer>, read_only: bool, watched: usize, own: (u32, u32), shown: (u32, u32)) -> Server {
        let (tree, handles, changes) = (Tree::new(root, layer), HashMap::new(), Vec::new());
        let mut server = Server { tree, handles, next_handle: 1, watches: Watches::new(watched), changes, read_only, shown, own };
        server.watches.add(&server.tree, ROOT);
        server
    }

    /// Readable when the host has changed something. Negative: nobody will say.
    pub fn watching(&self) -> i32 {
        self.watches.raw()
    }

    /// What the host has changed since the last time, to be told.
    pub fn changes(&mut self) -> Vec<Vec<u8>> {
        let found = self.watches.take(&self.tree, &[]);
        self.changes.extend(found);
        std::mem::take(&mut self.changes)
    }

    /// Paths of the files that are open to write, from the directory on.
    pub fn open_to_write(&self) -> Vec<Vec<u8>> {
        let nodes: BTreeSet<u64> = self.handles.values().filter(|handle| handle.access != libc::O_RDONLY).map(|handle| handle.node).collect();
        nodes.into_iter().filter_map(|node| self.tree.path(node)).collect()
    }

    /// What a request will change, where that is watched.
    fn own_changes(&self, code: u32, node: u64, mut body: Body) -> Result<Vec<Own>, i32> {
        let named = |skipped: usize, body: &mut Body| -> Result<Own, i32> {
            body.skip(skipped)?;
            Ok((node, body.name()?.to_vec()))
        };
        let mut own = match code {
            opcode::UNLINK | opcode::RMDIR | opcode::SYMLINK => vec![named(0, &mut body)?],
            opcode::MKDIR | opcode::LINK => vec![named(8, &mut body)?],
            opcode::MKNOD | opcode::CREATE => vec![named(16, &mut body)?],
            opcode::RENAME | opcode::RENAME2 => {
                let to = body.u64()?;
                let from = named(if code == opcode::RENAME { 0 } else { 8 }, &mut body)?;
                vec![from, (to, body.name()?.to_vec())]
            }
            opcode::SETATTR | opcode::SETXATTR | opcode::REMOVEXATTR => self.own_name(node),
            opcode::OPEN if body.u32()? as i32 & libc::O_TRUNC != 0 => self.own_name(node),
            opcode::WRITE | opcode::FALLOCATE => self.handles.get(&body.u64()?).map_or(Vec::new(), |handle| self.own_name(handle.node)),
            _ => Vec::new(),
        };
        own.retain(|(directory, _)| self.watches.has(*directory));
        Ok(own)
    }

    fn own_name(&self, node: u64) -> Vec<Own> {
        self.tree.name(node).map(|(directory, name)| (directory, name.to_vec())).into_iter().collect()
    }

    fn forget(&mut self, node: u64, times: u64) {
        self.tree.forget(node, times);
        if self.watches.has(node) && !self.tree.knows(node) {
            self.watches.forget(node);
        }
    }

    /// @returns the answer, if the message has one
    pub fn serve(&mut self, header: &Header, body: &[u8]) -> Option<Vec<u8>> {
        let mut body = Body(body);
        match header.opcode {
            opcode::FORGET => {
                if let Ok(times) = body.u64() {
                    self.forget(header.node, times);
                }
                return None;
            }
            opcode::BATCH_FORGET => {
                let _ = self.batch_forget(&mut body);
                return None;
            }
            opcode::RESTORE => {
                let _ = self.restore(&mut body);
                return None;
            }
            _ => {}
        }
        let own = self.own_changes(header.opcode, header.node, Body(body.0)).unwrap_or_default();
        if !own.is_empty() {
            // What has happened before is the host's.
            let others = self.watches.take(&self.tree, &[]);
            self.changes.extend(others);
        }
        let done = self.call(header.opcode, header.node, &mut body);
        if !own.is_empty() {
            let others = self.watches.take(&self.tree, &own);
            self.changes.extend(others);
        }
        Some(match done {
            Ok(answer) => answer.finish(header.unique),
            Err(errno) => Answer::failure(header.unique, errno),
        })
    }

    fn call(&mut self, code: u32, node: u64, body: &mut Body) -> Done {
        match code {
            opcode::LOOKUP => self.lookup(node, body.name()?),
            opcode::GETATTR => self.getattr(node, body),
            opcode::SETATTR => self.setattr(node, body),
            opcode::READLINK => self.readlink(node),
            opcode::SYMLINK => {
                let name = body.name()?;
                self.symlink(node, name, body.text()?)
            }
            opcode::MKNOD => self.mknod(node, body),
            opcode::MKDIR => self.mkdir(node, body),
            opcode::UNLINK => self.remove(node, body.name()?, false),
            opcode::RMDIR => self.remove(node, body.name()?, true),
            opcode::RENAME => {
                let to = body.u64()?;
                self.rename(node, to, 0, body)
            }
            opcode::RENAME2 => {
                let (to, flags) = (body.u64()?, body.u32()?);
                body.skip(4)?;
                self.rename(node, to, flags, body)
            }
            opcode::LINK => {
                let from = body.u64()?;
                self.link(from, node, body.name()?)
            }
            opcode::OPEN => {
                let flags = body.u32()? as i32;
                let (file, hosts) = self.open_node(node, flags & (libc::O_ACCMODE | libc::O_TRUNC))?;
                self.opened(node, file, (flags & libc::O_ACCMODE, hosts), Answer::new())
            }
            opcode::OPENDIR => {
                let directory = self.tree.directory(node)?;
                let file = sys::open_beneath(directory.raw(), b".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
                self.watches.add(&self.tree, node);
                self.opened(node, file, (libc::O_RDONLY, false), Answer::new())
            }
            opcode::CREATE => self.create(node, body),
            opcode::RELEASE | opcode::RELEASEDIR => {
                self.handles.remove(&body.u64()?);
                if let Some(layer) = self.tree.layer() {
                    layer.freed();
                }
                Ok(Answer::new())
            }
            opcode::READ => self.read(body),
            opcode::WRITE => self.write(body),
            opcode::READDIR | opcode::READDIRPLUS => self.readdir(node, code == opcode::READDIRPLUS, body),
            opcode::FSYNC | opcode::FSYNCDIR => {
                let file = self.handle(body.u64()?)?.raw();
                let data_only = body.u32()? & 1 != 0;
                // SAFETY: a descriptor of ours.
                uninterrupted(|| i64::from(unsafe { if data_only { libc::fdatasync(file) } else { libc::fsync(file) } }))?;
                Ok(Answer::new())
            }
            opcode::STATFS => self.statfs(),
            opcode::ACCESS => self.access(node, body.u32()?),
            opcode::FALLOCATE => self.fallocate(body),
            opcode::LSEEK => self.lseek(body),
            opcode::GETXATTR | opcode::LISTXATTR | opcode::SETXATTR | opcode::REMOVEXATTR => self.attribute(code, node, body),
            _ => Err(libc::ENOSYS),
        }
    }

    fn writable(&self) -> Result<(), i32> {
        if self.read_only {
            return Err(libc::EROFS);
        }
        Ok(())
    }

    fn handle(&self, number: u64) -> Result<&Fd, i32> {
        self.handles.get(&number).ok_or(libc::EBADF)?.file.as_ref().ok_or(libc::ESTALE)
    }

    // What is there

    fn lookup(&mut self, parent: u64, name: &[u8]) -> Done {
        let directory = self.tree.directory(parent)?;
        self.entry(&directory, parent, name, Answer::new())
    }

    /// The guest's kernel learns of what is under that name now.
    fn entry(&mut self, directory: &Fd, parent: u64, name: &[u8], mut answer: Answer) -> Done {
        let (_, stat) = self.tree.look(directory, parent, name)?;
        let node = self.tree.remember(parent, name, &stat)?;
        self.watch(node, &stat);
        let (entry, attributes) = valid(&stat);
        self.told(node, &stat, entry, attributes, &mut answer);
        Ok(answer)
    }

    fn watch(&mut self, node: u64, stat: &libc::statx) {
        if u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFDIR {
            self.watches.add(&self.tree, node);
        }
    }

    /// @param entry for how long the name holds, ns
    /// @param attributes the same for what is known of the file
    fn told(&self, node: u64, stat: &libc::statx, entry: u64, attributes: u64, answer: &mut Answer) {
        answer.u64(node);
        answer.u64(identity(stat).generation);
        answer.u64(entry / 1_000_000_000);
        answer.u64(attributes / 1_000_000_000);
        answer.u32((entry % 1_000_000_000) as u32);
        answer.u32((attributes % 1_000_000_000) as u32);
        self.attributes(stat, answer);
    }

    fn attributes(&self, stat: &libc::statx, answer: &mut Answer) {
        answer.u64(stat.stx_ino);
        answer.u64(stat.stx_size);
        answer.u64(stat.stx_blocks);
        let times = [stat.stx_atime, stat.stx_mtime, stat.stx_ctime];
        for time in &times {
            answer.u64(time.tv_sec as u64);
        }
        for time in &times {
            answer.u32(time.tv_nsec);
        }
        let shown = |id: u32, own: u32, as_what: u32| if id == own { as_what } else { 65_534 };
        let mode = u32::from(stat.stx_mode);
        answer.u32(mode & (libc::S_IFMT | if mode & libc::S_IFMT == libc::S_IFDIR { DIRECTORY_BITS } else { FILE_BITS }));
        answer.u32(stat.stx_nlink);
        answer.u32(shown(stat.stx_uid, self.own.0, self.shown.0));
        answer.u32(shown(stat.stx_gid, self.own.1, self.shown.1));
        answer.u32(0); // devices are nothing but their names here
        answer.u32(stat.stx_blksize.min(1 << 20));
        answer.u32(0);
    }

    fn with_attributes(&self, stat: &libc::statx) -> Answer {
        let mut answer = Answer::new();
        let (_, attributes) = valid(stat);
        answer.u64(attributes / 1_000_000_000);
        answer.u32((attributes % 1_000_000_000) as u32);
        answer.u32(0);
        self.attributes(stat, &mut answer);
        answer
    }

    fn getattr(&mut self, node: u64, body: &mut Body) -> Done {
        let by_handle = body.u32()? & 1 != 0;
        body.skip(4)?;
        let handle = body.u64()?;
        let stat = match self.handles.get(&handle).filter(|h| by_handle && h.node == node).and_then(|h| h.file.as_ref()) {
            Some(file) => self.tree.stat(file)?,
            None => self.stat(node)?,
        };
        Ok(self.with_attributes(&stat))
    }

    fn stat(&self, node: u64) -> Result<libc::statx, i32> {
        match self.tree.find(node) {
            Ok((_, stat)) => Ok(stat),
            Err(errno) => self.tree.stat(self.open_file(node).ok_or(errno)?),
        }
    }

    /// A file that was removed is there as long as it is open; its kernel does not say by which handle it asks.
    fn open_file(&self, node: u64) -> Option<&Fd> {
        self.handles.values().filter(|handle| handle.node == node).find_map(|handle| handle.file.as_ref())
    }

    fn readlink(&mut self, node: u64) -> Done {
        let (link, _) = self.tree.find(node)?;
        let mut answer = Answer::new();
        answer.fill(4096, |room| {
            // SAFETY: an empty path that ends, and room for as many bytes as said.
            check(unsafe { libc::readlinkat(link.raw(), b"\0".as_ptr().cast(), room.as_mut_ptr().cast(), room.len()) } as i64).map(|n| n as usize)
        })?;
        Ok(answer)
    }

    fn access(&mut self, node: u64, mask: u32) -> Done {
        if mask & !7 != 0 {
            return Err(BAD);
        }
        if mask & libc::W_OK as u32 != 0 {
            self.writable()?;
        }
        let (found, _) = self.tree.find(node)?;
        let flags = libc::AT_EMPTY_PATH | libc::AT_EACCESS;
        // SAFETY: an empty path that ends.
        check(unsafe { libc::syscall(libc::SYS_faccessat2, found.raw(), b"\0".as_ptr(), mask, flags) })?;
        Ok(Answer::new())
    }

    fn statfs(&mut self) -> Done {
        // SAFETY: zeroes are a valid structure, which the kernel fills.
        let stat = unsafe {
            let mut stat: libc::statfs = std::mem::zeroed();
            check(i64::from(libc::fstatfs(self.tree.root().raw(), &mut stat)))?;
            stat
        };
        let mut stat = stat;
        if let Some(layer) = self.tree.layer() {
            let (all, left) = layer.room(&|| unnamed(&self.handles));
            let block = (stat.f_bsize as u64).max(1);
            stat.f_blocks = all / block;
            stat.f_bfree = left / block;
            stat.f_bavail = stat.f_bfree;
        }
        let mut answer = Answer::new();
        for number in [stat.f_blocks, stat.f_bfree, stat.f_bavail, stat.f_files, stat.f_ffree] {
            answer.u64(number);
        }
        for number in [stat.f_bsize as u32, 255, stat.f_bsize as u32, 0] {
            answer.u32(number);
        }
        answer.bytes(&[0; 24]);
        Ok(answer)
    }

    // Open files

    /// A file, and nothing else: to open a device or a named pipe can do things.
    /// @returns whether it is the host's, beside a layer, and open to read only until it is written to
    fn open_node(&mut self, node: u64, flags: i32) -> Result<(Fd, bool), i32> {
        if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0 {
            self.writable()?;
        }
        let (_, wanted) = self.tree.find(node)?;
        if u32::from(wanted.stx_mode) & libc::S_IFMT != libc::S_IFREG {
            return Err(libc::EPERM);
        }
        if flags & libc::O_TRUNC != 0 {
            self.raise(node, false)?;
        }
        self.tree.open(node, flags)
    }

    /// Beside a layer: it is written to next, so it has to lie there, and whoever has it open sees it there.
    fn raise(&mut self, node: u64, data: bool) -> Result<(), i32> {
        if self.tree.layer().is_none() {
            return Ok(());
        }
        self.tree.raise(node, data, &|| unnamed(&self.handles))?;
        for handle in self.handles.values_mut().filter(|handle| handle.node == node && handle.hosts) {
            let (file, hosts) = self.tree.open(node, handle.access)?;
            handle.file = Some(file);
            handle.hosts = hosts;
        }
        Ok(())
    }

    /// The same for what is written by way of a handle.
    fn raise_open(&mut self, number: u64) -> Result<(), i32> {
        match self.handles.get(&number).filter(|handle| handle.hosts).map(|handle| handle.node) {
            Some(node) => self.raise(node, true),
            None => Ok(()),
        }
    }

    /// Who has a file open to write goes on writing it when its name is gone.
    fn raise_before_removal(&mut self, parent: u64, name: &[u8]) -> Result<(), i32> {
        match self.tree.node(parent, name) {
            Some(node) if self.handles.values().any(|handle| handle.node == node && handle.hosts && handle.access != libc::O_RDONLY) => self.raise(node, true),
            _ => Ok(()),
        }
    }

    fn opened(&mut self, node: u64, file: Fd, (access, hosts): (i32, bool), mut answer: Answer) -> Done {
        let number = self.next_handle;
        self.next_handle += 1;
        self.handles.insert(number, Handle { node, file: Some(file), access, hosts, names: None });
        answer.u64(number);
        answer.u32(0);
        answer.u32(0);
        Ok(answer)
    }

    fn create(&mut self, parent: u64, body: &mut Body) -> Done {
        let (flags, mode) = (body.u32()? as i32, body.u32()?);
        body.skip(8)?;
        let name = body.name()?;
        self.writable()?;
        if mode & libc::S_IFMT & !libc::S_IFREG != 0 {
            return Err(libc::EPERM);
        }
        let access = flags & libc::O_ACCMODE;
        let how = access | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let mut made = None;
        let mut make = |place: &Fd, name: &[u8], mode: u32| {
            made = Some(sys::open_beneath(place.raw(), name, how, mode & FILE_BITS)?);
            Ok(())
        };
        match self.tree.make(parent, name, libc::S_IFREG | mode & FILE_BITS, &mut make, &|| unnamed(&self.handles)) {
            // The host has made one meanwhile.
            Err(libc::EEXIST) if flags & libc::O_EXCL == 0 => {}
            done => done?,
        }
        let directory = self.tree.directory(parent)?;
        let answer = self.entry(&directory, parent, name, Answer::new())?;
        let node = self.tree.node(parent, name).ok_or(libc::ESTALE)?;
        let opened = match made {
            Some(file) => Ok((file, false)),
            None => self.open_node(node, flags & (libc::O_ACCMODE | libc::O_TRUNC)),
        };
        match opened {
            Ok((file, hosts)) => self.opened(node, file, (access, hosts), answer),
            Err(errno) => {
                // The kernel is not told of it.
                self.tree.forget(node, 1);
                Err(errno)
            }
        }
    }

    fn read(&mut self, body: &mut Body) -> Done {
        let (handle, offset, size) = (body.u64()?, body.u64()?, body.u32()? as usize);
        let file = self.handle(handle)?;
        let mut answer = Answer::new();
        answer.fill(size.min(MAX_IO), |room| sys::read_at(file, room, offset))?;
        Ok(answer)
    }

    fn write(&mut self, body: &mut Body) -> Done {
        let (handle, offset, size, kind) = (body.u64()?, body.u64()?, body.u32()? as usize, body.u32()?);
        body.skip(8)?;
        let flags = body.u32()? as i32;
        body.skip(4)?;
        let bytes = body.take(size)?;
        self.writable()?;
        self.raise_open(handle)?;
        let before = self.charge(handle, bytes.len() as u64)?;
        // The file may have grown since its kernel has asked where it ends. What comes from the kernel's cache has its place.
        let written = if flags & libc::O_APPEND != 0 && kind & FROM_CACHE == 0 {
            sys::append(self.handle(handle)?, bytes)?
        } else {
            sys::write_at(self.handle(handle)?, bytes, offset)?
        };
        self.settle(handle, bytes.len() as u64, before);
        let mut answer = Answer::new();
        answer.u32(written as u32);
        answer.u32(0);
        Ok(answer)
    }

    fn fallocate(&mut self, body: &mut Body) -> Done {
        let (handle, offset, length, mode) = (body.u64()?, body.u64()?, body.u64()?, body.u32()?);
        self.writable()?;
        self.raise_open(handle)?;
        // What only gives back costs nothing, also of a layer that is full.
        let takes = if mode as i32 & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_COLLAPSE_RANGE) == 0 { length } else { 0 };
        let before = self.charge(handle, takes)?;
        let file = self.handle(handle)?.raw();
        // SAFETY: plain integers.
        let done = check(i64::from(unsafe { libc::fallocate(file, mode as i32, offset as libc::off_t, length as libc::off_t) }));
        self.settle(handle, takes, before);
        done.map(|_| Answer::new())
    }

    /// What is to be written to a layer, before it is. @returns bytes that the file takes on disk
    fn charge(&self, handle: u64, bytes: u64) -> Result<u64, i32> {
        match self.tree.layer() {
            Some(layer) => {
                layer.charge(bytes, &|| unnamed(&self.handles))?;
                Ok(on_disk(self.handle(handle)?))
            }
            None => Ok(0),
        }
    }

    /// What of that it has not taken.
    fn settle(&self, handle: u64, charged: u64, before: u64) {
        if let (Some(layer), Ok(file)) = (self.tree.layer(), self.handle(handle)) {
            layer.give_back(charged.saturating_sub(on_disk(file).saturating_sub(before)));
        }
    }

    fn lseek(&mut self, body: &mut Body) -> Done {
        let (handle, offset, whence) = (body.u64()?, body.u64()?, body.u32()? as i32);
        if whence != libc::SEEK_DATA && whence != libc::SEEK_HOLE {
            return Err(BAD);
        }
        let file = self.handle(handle)?.raw();
        // SAFETY: plain integers.
        let found = check(unsafe { libc::lseek(file, offset as libc::off_t, whence) })?;
        let mut answer = Answer::new();
        answer.u64(found as u64);
        Ok(answer)
    }

    /// @param plus with what a lookup of each name would say
    fn readdir(&mut self, node: u64, plus: bool, body: &mut Body) -> Done {
        let (handle, offset, size) = (body.u64()?, body.u64()?, (body.u32()? as usize).min(64 * 1024));
        if self.tree.layer().is_some() {
            return self.readdir_both(node, plus, (handle, offset, size));
        }
        let directory = self.handle(handle)?.raw();
        // Found from the root as for a lookup: what is open may have been moved out by the host.
        let within = if plus && self.handles.get(&handle).map_or(false, |h| h.node == node) { self.tree.directory(node).ok() } else { None };
        let before = if plus { ENTRY_BYTES } else { 0 };
        // SAFETY: plain integers.
        check(unsafe { libc::lseek(directory, offset as libc::off_t, libc::SEEK_SET) })?;
        let mut answer = Answer::new();
        let mut buffer = [0u8; 8 * 1024];
        // Names that do not go into the answer are read again for the next one.
        let buffer = &mut buffer[..if plus { 2 * 1024 } else { 8 * 1024 }];
        loop {
            // SAFETY: the buffer is valid for its length.
            let got = check(unsafe { libc::syscall(libc::SYS_getdents64, directory, buffer.as_mut_ptr(), buffer.len()) })? as usize;
            if got == 0 {
                return Ok(answer);
            }
            let mut entries = Body(&buffer[..got]);
            while !entries.0.is_empty() {
                let (inode, next, length, kind) = (entries.u64()?, entries.u64()?, entries.u16()? as usize, entries.take(1)?[0]);
                let rest = entries.take(length.checked_sub(19).ok_or(libc::EIO)?)?;
                let name = Body(rest).text()?;
                // What is above the directory is not the guest's to know.
                let inode = if name == b".." { 0xffff_ffff } else { inode };
                let padded = (24 + name.len() + 7) & !7;
                if answer.len() + before + padded > size {
                    return Ok(answer);
                }
                if plus {
                    self.listed(within.as_ref(), node, name, &mut answer);
                }
                named(&mut answer, name, (inode, next, kind));
            }
        }
    }

    /// The same of the layer and what is below it.
    fn readdir_both(&mut self, node: u64, plus: bool, (number, offset, size): (u64, u64, usize)) -> Done {
        let handle = self.handles.get_mut(&number).filter(|handle| handle.node == node).ok_or(libc::EBADF)?;
        let names = match handle.names.take() {
            Some(names) if offset != 0 => names,
            _ => self.tree.list(node)?,
        };
        let (within, own) = self.tree.find(node)?;
        let mut answer = Answer::new();
        let next = names.partition_point(|entry| entry.place <= offset);
        for Entry { place, name, inode, kind } in names.iter().skip(next) {
            if answer.len() + if plus { ENTRY_BYTES } else { 0 } + ((24 + name.len() + 7) & !7) > size {
                break;
            }
            if plus {
                self.listed(Some(&within), node, name, &mut answer);
            }
            let inode = if name == b"." { own.stx_ino } else { *inode };
            named(&mut answer, name, (inode, *place, *kind));
        }
        let listed: usize = self.handles.values().filter_map(|handle| handle.names.as_ref()).map(Vec::len).sum();
        if listed + names.len() > MOST_LISTED {
            // They are read again when they go on.
            self.handles.values_mut().for_each(|handle| handle.names = None);
        }
        if let Some(handle) = self.handles.get_mut(&number) {
            handle.names = Some(names);
        }
        Ok(answer)
    }

    /// The guest's kernel learns of one name of a listing, or, with zeroes, that it has to look it up itself.
    fn listed(&mut self, directory: Option<&Fd>, parent: u64, name: &[u8], answer: &mut Answer) {
        let found = directory.filter(|_| name != b"." && name != b"..").and_then(|directory| {
            let (_, stat) = self.tree.look(directory, parent, name).ok()?;
            Some((self.tree.remember(parent, name, &stat).ok()?, stat))
        });
        match found {
            Some((node, stat)) => {
                self.watch(node, &stat);
                let (entry, attributes) = valid(&stat);
                self.told(node, &stat, entry.max(LISTED_VALID_NS), attributes, answer);
            }
            None => answer.bytes(&[0; ENTRY_BYTES]),
        }
    }

    // Changes

    fn setattr(&mut self, node: u64, body: &mut Body) -> Done {
        let valid = body.u32()?;
        body.skip(4)?;
        let (handle, size) = (body.u64()?, body.u64()?);
        body.skip(8)?;
        let seconds = [body.u64()?, body.u64()?];
        body.skip(8)?;
        let nanoseconds = [body.u32()?, body.u32()?];
        body.skip(4)?;
        let mode = body.u32()?;
        self.writable()?;
        if valid & (SET_MODE | SET_SIZE | SET_ATIME | SET_MTIME) != 0 {
            match self.raise(node, valid & SET_SIZE == 0 || size > 0) {
                // What has no name any more lies in the layer, or is the host's and stays as it is.
                Err(libc::ESTALE) => {}
                done => done?,
            }
        }
        let by_handle = self.handles.get(&handle).filter(|h| valid & SET_HANDLE != 0 && h.node == node).and_then(|h| h.file.as_ref());
        let open = match by_handle.or_else(|| if self.tree.find(node).is_err() { self.open_file(node) } else { None }) {
            Some(file) => Some(sys::copy(file)?),
            None => None,
        };
        if valid & SET_MODE != 0 {
            self.set_mode(node, open.as_ref(), mode)?;
        }
        // Whom a file belongs to does not change: it is the host's user's, whatever a guest calls it.
        if valid & SET_SIZE != 0 {
            let length = i64::try_from(size).map_err(|_| libc::EFBIG)?;
            let by_name = if open.is_none() { Some(self.open_node(node, libc::O_WRONLY)?.0) } else { None };
            if let Some(file) = open.as_ref().or(by_name.as_ref()) {
                // SAFETY: plain integers.
                uninterrupted(|| i64::from(unsafe { libc::ftruncate(file.raw(), length) }))?;
            }
            if let Some(layer) = self.tree.layer() {
                layer.freed();
            }
        }
        if valid & (SET_ATIME | SET_MTIME) != 0 {
            let time = |set: u32, now: u32, at: usize| libc::timespec {
                tv_sec: seconds[at] as libc::time_t,
                tv_nsec: match (valid & set != 0, valid & now != 0) {
                    (false, _) => libc::UTIME_OMIT,
                    (true, true) => libc::UTIME_NOW,
                    (true, false) => i64::from(nanoseconds[at].min(999_999_999)),
                },
            };
            let times = [time(SET_ATIME, SET_ATIME_NOW, 0), time(SET_MTIME, SET_MTIME_NOW, 1)];
            match &open {
                // SAFETY: two times, as the call reads.
                Some(file) => check(i64::from(unsafe { libc::futimens(file.raw(), times.as_ptr()) }))?,
                None => {
                    let (found, _) = self.tree.find(node)?;
                    // SAFETY: as above, and an empty path that ends.
                    check(i64::from(unsafe { libc::utimensat(found.raw(), b"\0".as_ptr().cast(), times.as_ptr(), libc::AT_EMPTY_PATH) }))?
                }
            };
        }
        let stat = match &open {
            Some(file) => self.tree.stat(file)?,
            None => self.stat(node)?,
        };
        Ok(self.with_attributes(&stat))
    }

    fn set_mode(&mut self, node: u64, open: Option<&Fd>, mode: u32) -> Result<(), i32> {
        if self.tree.layer().is_some() {
            let (found, stat) = match open {
                Some(file) => (sys::copy(file)?, sys::stat(file)?),
                None => self.tree.find(node)?,
            };
            return match u32::from(stat.stx_mode) & libc::S_IFMT {
                kind if kind == libc::S_IFDIR || kind == libc::S_IFREG => layer::set_mode(&found, kind | mode & if kind == libc::S_IFDIR { DIRECTORY_BITS } else { FILE_BITS }),
                _ => Err(libc::EOPNOTSUPP),
            };
        }
        if let Some(file) = open {
            // SAFETY: plain integers.
            return check(i64::from(unsafe { libc::fchmod(file.raw(), mode & FILE_BITS) })).map(|_| ());
        }
        let (found, stat) = self.tree.find(node)?;
        let bits = match u32::from(stat.stx_mode) & libc::S_IFMT {
            libc::S_IFDIR => DIRECTORY_BITS,
            libc::S_IFREG => FILE_BITS,
            _ => return Err(libc::EOPNOTSUPP),
        };
        // SAFETY: an empty path that ends.
        let done = check(unsafe { libc::syscall(FCHMODAT2, found.raw(), b"\0".as_ptr(), mode & bits, libc::AT_EMPTY_PATH) });
        if !matches!(done, Err(libc::ENOSYS)) {
            return done.map(|_| ());
        }
        // Before Linux 6.6 only what can be opened can be changed without going by its name.
        let (file, _) = self.tree.open(node, libc::O_RDONLY).or_else(|_| self.tree.open(node, libc::O_WRONLY))?;
        // SAFETY: plain integers.
        check(i64::from(unsafe { libc::fchmod(file.raw(), mode & bits) })).map(|_| ())
    }

    fn symlink(&mut self, parent: u64, name: &[u8], target: &[u8]) -> Done {
        self.writable()?;
        let target = text(target)?;
        let mut make = |place: &Fd, name: &[u8], _: u32| {
            let at = text(name)?;
            // SAFETY: strings that end and outlive the call.
            check(i64::from(unsafe { libc::symlinkat(target.as_ptr(), place.raw(), at.as_ptr()) })).map(|_| ())
        };
        self.make(parent, name, libc::S_IFLNK | 0o777, &mut make)
    }

    fn mknod(&mut self, parent: u64, body: &mut Body) -> Done {
        let mode = body.u32()?;
        body.skip(12)?;
        let name = body.name()?;
        self.writable()?;
        // Devices would be the host's, and pipes and sockets lead nowhere between the two.
        if mode & libc::S_IFMT & !libc::S_IFREG != 0 {
            return Err(libc::EPERM);
        }
        let how = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut make = |place: &Fd, name: &[u8], mode: u32| sys::open_beneath(place.raw(), name, how, mode & FILE_BITS).map(|_| ());
        self.make(parent, name, libc::S_IFREG | mode & FILE_BITS, &mut make)
    }

    fn mkdir(&mut self, parent: u64, body: &mut Body) -> Done {
        let mode = body.u32()?;
        body.skip(4)?;
        let name = body.name()?;
        self.writable()?;
        let mut make = |place: &Fd, name: &[u8], mode: u32| {
            let at = text(name)?;
            // SAFETY: a string that ends and outlives the call.
            check(i64::from(unsafe { libc::mkdirat(place.raw(), at.as_ptr(), mode & DIRECTORY_BITS) })).map(|_| ())
        };
        self.make(parent, name, libc::S_IFDIR | mode & DIRECTORY_BITS, &mut make)
    }

    /// Something new, of which the guest's kernel is told.
    fn make(&mut self, parent: u64, name: &[u8], mode: u32, make: &mut dyn FnMut(&Fd, &[u8], u32) -> Result<(), i32>) -> Done {
        self.tree.make(parent, name, mode, make, &|| unnamed(&self.handles))?;
        let directory = self.tree.directory(parent)?;
        self.entry(&directory, parent, name, Answer::new())
    }

    fn remove(&mut self, parent: u64, name: &[u8], directory: bool) -> Done {
        self.writable()?;
        self.raise_before_removal(parent, name)?;
        let handles = &self.handles;
        self.tree.remove(parent, name, directory, &|| unnamed(handles))?;
        Ok(Answer::new())
    }

    fn rename(&mut self, from: u64, to: u64, flags: u32, body: &mut Body) -> Done {
        let (old, new) = (body.name()?, body.name()?);
        self.writable()?;
        if flags & !(libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE) != 0 {
            return Err(BAD);
        }
        self.raise_before_removal(to, new)?;
        if let Some(node) = self.tree.node(from, old) {
            // Who has it open sees what becomes of it.
            self.raise(node, true)?;
        }
        let handles = &self.handles;
        self.tree.rename((from, old), (to, new), flags, &|| unnamed(handles))?;
        Ok(Answer::new())
    }

    fn link(&mut self, from: u64, parent: u64, name: &[u8]) -> Done {
        self.writable()?;
        let (_, stat) = self.tree.find(from)?;
        if u32::from(stat.stx_mode) & libc::S_IFMT != libc::S_IFREG {
            return Err(libc::EPERM);
        }
        self.raise(from, true)?;
        self.tree.link(from, parent, name, &|| unnamed(&self.handles))?;
        let target = self.tree.directory(parent)?;
        self.entry(&target, parent, name, Answer::new())
    }

    // Extended attributes

    fn attribute(&mut self, code: u32, node: u64, body: &mut Body) -> Done {
        let (size, flags) = match code {
            opcode::REMOVEXATTR => (0, 0),
            _ => (body.u32()? as usize, body.u32()? as i32),
        };
        let name = if code == opcode::LISTXATTR { None } else { Some(text(body.text()?)?) };
        // What the host's kernel or other programs act upon is none of the guest's.
        if name.as_ref().map_or(false, |name| !name.as_bytes().starts_with(b"user.")) {
            return Err(libc::EOPNOTSUPP);
        }
        // What a layer keeps there is its own.
        let layered = self.tree.layer().is_some();
        if name.as_ref().map_or(false, |name| layered && !layer::visible(name.as_bytes())) {
            return Err(if code == opcode::SETXATTR { libc::EPERM } else { libc::ENODATA });
        }
        if matches!(code, opcode::SETXATTR | opcode::REMOVEXATTR) {
            self.writable()?;
            self.raise(node, true).or_else(|errno| if errno == libc::ESTALE { Ok(()) } else { Err(errno) })?;
            if let Some(layer) = self.tree.layer() {
                layer.charge(size.min(MAX_XATTR) as u64, &|| unnamed(&self.handles))?;
            }
        }
        let file = match self.tree.find(node) {
            Ok((_, stat)) if !matches!(u32::from(stat.stx_mode) & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR) => return Err(libc::EOPNOTSUPP),
            Ok(_) => self.tree.open(node, libc::O_RDONLY)?.0,
            Err(errno) => sys::copy(self.open_file(node).ok_or(errno)?)?,
        };
        let mut answer = Answer::new();
        let name_pointer = name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr());
        match code {
            opcode::SETXATTR => {
                let value = body.take(size.min(MAX_XATTR))?;
                // SAFETY: name and value outlive the call.
                check(i64::from(unsafe { libc::fsetxattr(file.raw(), name_pointer, value.as_ptr().cast(), value.len(), flags) }))?;
            }
            opcode::REMOVEXATTR => {
                // SAFETY: the name outlives the call.
                check(i64::from(unsafe { libc::fremovexattr(file.raw(), name_pointer) }))?;
            }
            _ => {
                let mut room = vec![0u8; MAX_XATTR];
                // SAFETY: room for as many bytes as said.
                let got = check(unsafe {
                    match code {
                        opcode::LISTXATTR => libc::flistxattr(file.raw(), room.as_mut_ptr().cast(), room.len()),
                        _ => libc::fgetxattr(file.raw(), name_pointer, room.as_mut_ptr().cast::<c_void>(), room.len()),
                    }
                } as i64)? as usize;
                let mut value = room.get(..got).unwrap_or(&[]).to_vec();
                if code == opcode::LISTXATTR {
                    let names = value.split(|byte| *byte == 0).filter(|name| if layered { layer::visible(name) } else { name.starts_with(b"user.") });
                    value = names.flat_map(|name| [name, b"\0"].concat()).collect();
                }
                match size {
                    0 => {
                        answer.u32(value.len() as u32);
                        answer.u32(0);
                    }
                    size if size < value.len() => return Err(libc::ERANGE),
                    _ => answer.bytes(&value),
                }
            }
        }
        Ok(answer)
    }

    // What an earlier helper has told

    fn batch_forget(&mut self, body: &mut Body) -> Result<(), i32> {
        let count = body.u32()?;
        body.skip(4)?;
        for _ in 0..count {
            let (node, times) = (body.u64()?, body.u64()?);
            self.forget(node, times);
        }
        Ok(())
    }

    /// Nodes (1, number, parent, inode, generation, lookups, length and name) and, after all of these, open files (2, number, node, flags, whether it is a
    /// directory) and directories to watch (3, node). It comes from the guest, and can name nothing that the guest could not name otherwise.
    fn restore(&mut self, body: &mut Body) -> Result<(), i32> {
        while !body.0.is_empty() {
            let kind = body.u32()?;
            if kind == 3 {
                // What has happened in it meanwhile nobody has seen.
                let node = body.u64()?;
                self.watches.add(&self.tree, node);
                self.changes.extend(watch::looked_at_again(&self.tree, node));
            } else if kind == 1 {
                let (node, parent) = (body.u64()?, body.u64()?);
                let identity = Identity { inode: body.u64()?, generation: body.u64()? };
                let (lookups, length) = (body.u64()?, body.u32()? as usize);
                let name = body.take(length)?;
                // Empty: it was removed.
                if length > 0 {
                    Body(&[name, b"\0"].concat()).name()?;
                }
                self.tree.restore(node, parent, identity, lookups, name)?;
            } else {
                let (number, node, flags, directory) = (body.u64()?, body.u64()?, body.u32()? as i32, body.u32()? != 0);
                if number == u64::MAX || self.handles.len() >= MOST_HANDLES {
                    return Err(BAD);
                }
                let access = if self.read_only { libc::O_RDONLY } else { flags & libc::O_ACCMODE };
                let file = if directory {
                    let found = self.tree.directory(node);
                    found.and_then(|found| sys::open_beneath(found.raw(), b".", libc::O_RDONLY | libc::O_DIRECTORY, 0)).map(|file| (file, false))
                } else {
                    // What was open to write before only reads now where nothing may be written any more.
                    self.open_node(node, access)
                };
                let hosts = matches!(file, Ok((_, true)));
                self.next_handle = self.next_handle.max(number + 1);
                self.handles.insert(number, Handle { node, file: file.ok().map(|(file, _)| file), access, hosts, names: None });
            }
        }
        Ok(())
    }
}

const FROM_CACHE: u32 = 1;
const SET_MODE: u32 = 1;
const SET_SIZE: u32 = 1 << 3;
const SET_ATIME: u32 = 1 << 4;
const SET_MTIME: u32 = 1 << 5;
const SET_HANDLE: u32 = 1 << 6;
const SET_ATIME_NOW: u32 = 1 << 7;
const SET_MTIME_NOW: u32 = 1 << 8;
const FCHMODAT2: libc::c_long = 452;

/// One name of a listing. @param about its number, where the listing goes on after it, and its type
fn named(answer: &mut Answer, name: &[u8], (inode, next, kind): (u64, u64, u8)) {
    answer.u64(inode);
    answer.u64(next);
    answer.u32(name.len() as u32);
    answer.u32(u32::from(kind));
    answer.bytes(name);
    answer.bytes(&[0; 8][..(8 - name.len() % 8) % 8]);
}

fn on_disk(file: &Fd) -> u64 {
    sys::stat(file).map_or(0, |stat| stat.stx_blocks.saturating_mul(512))
}

/// Bytes on disk of files that are open and have no name any more.
fn unnamed(handles: &HashMap<u64, Handle>) -> u64 {
    let files = handles.values().filter(|handle| !handle.hosts).filter_map(|handle| sys::stat(handle.file.as_ref()?).ok());
    files.filter(|stat| stat.stx_nlink == 0).map(|stat| stat.stx_blocks.saturating_mul(512)).sum()
}

/// For how long the name, and what is known of it, hold: ns.
fn valid(stat: &libc::statx) -> (u64, u64) {
    if u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFDIR {
        (DIRECTORY_VALID_NS, DIRECTORY_VALID_NS)
    } else {
        (0, FILE_VALID_NS)
    }
}
