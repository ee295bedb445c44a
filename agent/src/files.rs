//! Reading and writing files. Small ones are done at once in the loop; larger ones are jobs.

use crate::buffers::{Buffer, Bytes, PIECE};
use crate::jobs::Io;
use crate::protocol::{tag, Fields, Reader, MAX_PAYLOAD};
use crate::sparse::SparseWriter;
use crate::sys::{self, check, cstring, Fail, Fd, Result};
use crate::temporary;
use crate::user::User;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Up to this size a file is read or written in the loop: one or two system calls.
pub const SMALL: usize = MAX_PAYLOAD;

/// Absolute as it is, relative below the default working directory.
pub fn resolve(path: &[u8], cwd: Option<&[u8]>) -> Result<Vec<u8>> {
    if path.is_empty() {
        return Err(Fail::invalid("an empty path"));
    }
    if path.contains(&0) {
        return Err(Fail::invalid("a NUL byte in a path"));
    }
    if path[0] == b'/' {
        return Ok(path.to_vec());
    }
    Ok([cwd.unwrap_or(b"/"), b"/", path].concat())
}

pub fn path_of(fields: &Reader, which: u8, cwd: Option<&[u8]>) -> Result<Vec<u8>> {
    resolve(fields.bytes(which).ok_or_else(|| Fail::invalid("no path given"))?, cwd)
}

pub fn os(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

pub fn name(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

pub fn stat(path: &[u8], follow: bool) -> Result<libc::stat> {
    let c = cstring(path)?;
    // SAFETY: a zeroed stat is valid, the path is NUL-terminated.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        let rc = if follow { libc::stat(c.as_ptr(), &mut st) } else { libc::lstat(c.as_ptr(), &mut st) };
        check(rc, &name(path))?;
        Ok(st)
    }
}

/// For calls that shall not follow: a symlink is the error that `open` with O_NOFOLLOW gives.
pub fn no_link(path: &[u8]) -> Result<()> {
    if is(&stat(path, false)?, libc::S_IFLNK) {
        return Err(Fail::errno(libc::ELOOP, &name(path)));
    }
    Ok(())
}

pub fn fstat(fd: &Fd) -> Result<libc::stat> {
    // SAFETY: a zeroed stat is valid.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        check(libc::fstat(fd.raw(), &mut st), "fstat")?;
        Ok(st)
    }
}

pub fn is(st: &libc::stat, kind: libc::mode_t) -> bool {
    st.st_mode & libc::S_IFMT == kind
}

/// PATH, KIND, SIZE, MODE, UID, GID, MTIME_S, MTIME_NS, NLINK, INODE and TARGET of a symlink.
pub fn describe(path: &[u8], st: &libc::stat) -> Fields {
    let kind = match st.st_mode & libc::S_IFMT {
        libc::S_IFREG => 1,
        libc::S_IFDIR => 2,
        libc::S_IFLNK => 3,
        _ => 4,
    };
    let mut f = Fields::new();
    f.bytes(tag::PATH, path).u8(tag::KIND, kind).u64(tag::SIZE, st.st_size as u64).u32(tag::MODE, st.st_mode & 0o7777);
    f.u32(tag::UID, st.st_uid).u32(tag::GID, st.st_gid);
    f.u64(tag::MTIME_S, st.st_mtime as u64).u32(tag::MTIME_NS, st.st_mtime_nsec as u32);
    f.u32(tag::NLINK, st.st_nlink as u32).u64(tag::INODE, st.st_ino);
    if kind == 3 {
        if let Ok(target) = std::fs::read_link(os(path)) {
            f.bytes(tag::TARGET, target.as_os_str().as_bytes());
        }
    }
    f
}

/// An open file and the part of it that was asked for.
pub struct ReadJob {
    file: Fd,
    pub stat: Fields,
    offset: u64,
    /// `u64::MAX`: to the end.
    pub length: u64,
    path: Vec<u8>,
}

impl ReadJob {
    pub fn open(fields: &Reader, cwd: Option<&[u8]>) -> Result<ReadJob> {
        let path = path_of(fields, tag::PATH, cwd)?;
        if !fields.number(tag::FOLLOW).map_or(true, |f| f != 0) {
            no_link(&path)?;
        }
        // Not blocking: a FIFO without a writer must not hold us.
        let file = sys::open(&path, libc::O_RDONLY | libc::O_NOCTTY | libc::O_NONBLOCK, 0)?;
        let st = fstat(&file)?;
        if is(&st, libc::S_IFDIR) {
            return Err(Fail::errno(libc::EISDIR, &name(&path)));
        }
        let offset = fields.number(tag::OFFSET).unwrap_or(0);
        let mut length = fields.number(tag::LENGTH).unwrap_or(u64::MAX);
        // Files in /proc and /sys say 0 and have content: those are read to the end.
        if is(&st, libc::S_IFREG) && st.st_size > 0 {
            length = length.min((st.st_size as u64).saturating_sub(offset));
        }
        if offset > 0 {
            // SAFETY: plain integers.
            let rc = unsafe { libc::lseek(file.raw(), offset.min(i64::MAX as u64) as libc::off_t, libc::SEEK_SET) };
            if rc < 0 {
                return Err(Fail::last(&name(&path)));
            }
        }
        Ok(ReadJob { stat: describe(&path, &st), file, offset, length, path })
    }

    pub fn is_small(&self) -> bool {
        self.length <= SMALL as u64
    }

    /// Reads on. @returns 0 at the end
    fn piece(&mut self, into: &mut [u8]) -> Result<usize> {
        let want = (into.len() as u64).min(self.length) as usize;
        let n = match sys::read(self.file.raw(), &mut into[..want]) {
            Ok(n) => n,
            Err(libc::EAGAIN) => 0,
            Err(e) => return Err(Fail::errno(e, &name(&self.path))),
        };
        self.offset += n as u64;
        self.length -= n as u64;
        Ok(n)
    }

    /// All of a small one.
    pub fn all(&mut self) -> Result<Vec<u8>> {
        let mut all = vec![0; self.length.min(SMALL as u64) as usize];
        let mut size = 0;
        while size < all.len() {
            match self.piece(&mut all[size..])? {
                0 => break,
                n => size += n,
            }
        }
        all.truncate(size);
        Ok(all)
    }

    pub fn run(mut self, io: &mut Io) -> Result<Fields> {
        while self.length > 0 {
            let mut buffer = Buffer::new();
            match self.piece(&mut buffer.payload()[..PIECE])? {
                0 => break,
                n => io.send_buffer(buffer, n)?,
            }
        }
        Ok(Fields::new())
    }
}

/// Whom new files belong to: the call's user or the default one; `None` for root.
pub fn owner(fields: &Reader, user: Option<&[u8]>) -> Result<Option<(u32, u32)>> {
    match fields.bytes(tag::USER).or(user) {
        Some(spec) => User::resolve(spec).map(|u| Some((u.uid, u.gid)).filter(|o| *o != (0, 0))),
        None => Ok(None),
    }
}

/// What WRITE asks for, checked.
pub struct WriteJob {
    path: Vec<u8>,
    mode: Option<u32>,
    offset: Option<u64>,
    append: bool,
    atomic: bool,
    exclusive: bool,
    parents: bool,
    /// A symlink at the path is written through; else it is replaced.
    follow: bool,
    owner: Option<(u32, u32)>,
}

impl WriteJob {
    pub fn new(fields: &Reader, cwd: Option<&[u8]>, user: Option<&[u8]>) -> Result<WriteJob> {
        let owner = owner(fields, user)?;
        Ok(WriteJob {
            path: path_of(fields, tag::PATH, cwd)?,
            mode: fields.number(tag::MODE).map(|m| m as u32 & 0o7777),
            offset: fields.number(tag::OFFSET),
            append: fields.flag(tag::APPEND),
            atomic: fields.flag(tag::ATOMIC),
            exclusive: fields.flag(tag::EXCLUSIVE),
            parents: fields.flag(tag::PARENTS),
            follow: fields.number(tag::FOLLOW).map_or(true, |f| f != 0),
            owner,
        })
    }

    /// The file to write to, and the temporary name if it is to be renamed.
    fn open(&mut self) -> Result<(Fd, Option<Vec<u8>>)> {
        match self.try_open() {
            Err(fail) if fail.errno == libc::ENOENT && self.parents => {
                if let Some(parent) = os(&self.path).parent() {
                    make_parents(parent.as_os_str().as_bytes(), 0o755, self.owner)?;
                }
                self.try_open()
            }
            result => result,
        }
    }

    fn try_open(&mut self) -> Result<(Fd, Option<Vec<u8>>)> {
        let mode = self.mode.unwrap_or(0o644);
        let found = stat(&self.path, self.follow);
        let replaces = found.is_ok();
        let existing = match found {
            // The link goes, what it means stays.
            Ok(st) if is(&st, libc::S_IFLNK) && self.atomic && !self.exclusive => None,
            Ok(st) if is(&st, libc::S_IFLNK) => return Err(Fail::errno(if self.exclusive { libc::EEXIST } else { libc::ELOOP }, &name(&self.path))),
            Ok(st) => Some(st),
            Err(f) if f.errno == libc::ENOENT => None,
            Err(f) => return Err(f),
        };
        if let Some(st) = &existing {
            if self.exclusive {
                return Err(Fail::errno(libc::EEXIST, &name(&self.path)));
            }
            if is(st, libc::S_IFDIR) {
                return Err(Fail::errno(libc::EISDIR, &name(&self.path)));
            }
        }
        let regular = existing.as_ref().map_or(true, |st| is(st, libc::S_IFREG));
        if !self.atomic || self.append || self.offset.is_some() || !regular {
            let mut flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NOCTTY | libc::O_NONBLOCK;
            if self.append {
                flags |= libc::O_APPEND;
            }
            if self.exclusive {
                flags |= libc::O_EXCL;
            }
            if !self.append && self.offset.is_none() {
                flags |= libc::O_TRUNC;
            }
            let file = sys::open(&self.path, flags, mode)?;
            if let Some(offset) = self.offset {
                // SAFETY: plain integers.
                if unsafe { libc::lseek(file.raw(), offset.min(i64::MAX as u64) as libc::off_t, libc::SEEK_SET) } < 0 {
                    return Err(Fail::last(&name(&self.path)));
                }
            }
            if existing.is_none() {
                self.own(&file, self.owner);
            }
            if existing.is_none() || self.mode.is_some() {
                set_mode(&file, mode)?;
            }
            return Ok((file, None));
        }
        // Through a symlink: the file that it means is replaced, not the link.
        if let (true, Ok(true)) = (self.follow, stat(&self.path, false).map(|st| is(&st, libc::S_IFLNK))) {
            if let Ok(real) = std::fs::canonicalize(os(&self.path)) {
                self.path = real.as_os_str().as_bytes().to_vec();
            }
        }
        let cut = self.path.iter().rposition(|&b| b == b'/').map_or(0, |p| p + 1);
        if cut == self.path.len() {
            return Err(Fail::errno(libc::EISDIR, &name(&self.path)));
        }
        let beside = [&self.path[..cut], temporary::make(replaces).as_bytes()].concat();
        let file = match sys::open(&beside, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600) {
            Ok(file) => file,
            // /proc and /sys take no new files beside theirs: what is there is written in place.
            Err(f) if existing.is_some() && matches!(f.errno, libc::ENOENT | libc::EACCES | libc::EPERM) => {
                return Ok((sys::open(&self.path, libc::O_WRONLY | libc::O_TRUNC, 0)?, None));
            }
            // Nobody has asked for a file of the temporary name.
            Err(f) => return Err(Fail::errno(f.errno, &name(&self.path))),
        };
        let (mode, owner) = match &existing {
            Some(st) => (self.mode.unwrap_or(st.st_mode & 0o7777), Some((st.st_uid, st.st_gid)).filter(|o| *o != (0, 0))),
            None => (mode, self.owner),
        };
        self.own(&file, owner);
        if let Err(fail) = set_mode(&file, mode) {
            unlink(&beside);
            return Err(fail);
        }
        Ok((file, Some(beside)))
    }

    fn own(&self, file: &Fd, owner: Option<(u32, u32)>) {
        if let Some((uid, gid)) = owner {
            // SAFETY: plain integers. We are root; a filesystem without owners is the only failure, and no harm.
            unsafe { libc::fchown(file.raw(), uid, gid) };
        }
    }

    /// Writes the pieces that `next` gives until it gives `None`.
    fn write(mut self, mut next: impl FnMut() -> Result<Option<Bytes>>) -> Result<Fields> {
        let (file, beside) = self.open()?;
        let mut size = 0u64;
        let result = (|| {
            let failed = |e| Fail::errno(e, &name(&self.path));
            // One that is written in place may have anything where zeros are sent.
            let mut made = beside.as_ref().map(|_| SparseWriter::new(&file));
            while let Some(piece) = next()? {
                match &mut made {
                    Some(made) => made.write(&piece),
                    None => sys::write_all(file.raw(), &piece),
                }
                .map_err(failed)?;
                size += piece.len() as u64;
            }
            if let Some(made) = made {
                made.finish().map_err(failed)?;
            }
            if let Some(beside) = &beside {
                let (from, to) = (cstring(beside)?, cstring(&self.path)?);
                // SAFETY: NUL-terminated strings.
                check(unsafe { libc::rename(from.as_ptr(), to.as_ptr()) }, &name(&self.path))?;
            }
            Ok(())
        })();
        if let (Err(_), Some(beside)) = (&result, &beside) {
            unlink(beside);
        }
        result?;
        let mut f = Fields::new();
        f.u64(tag::SIZE, size);
        Ok(f)
    }

    pub fn run_small(self, body: Vec<u8>) -> Result<Fields> {
        let mut body = Some(Bytes::Own(body));
        self.write(|| Ok(body.take()))
    }

    pub fn run(self, io: &mut Io) -> Result<Fields> {
        self.write(|| io.read())
    }
}

fn set_mode(file: &Fd, mode: u32) -> Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::fchmod(file.raw(), mode) }, "chmod").map(|_| ())
}

pub fn unlink(path: &[u8]) {
    if let Ok(c) = cstring(path) {
        // SAFETY: NUL-terminated.
        unsafe { libc::unlink(c.as_ptr()) };
    }
}

/// Creates a directory and those above it. One that is there already is fine.
pub fn make_parents(path: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    let c = cstring(path)?;
    // SAFETY: NUL-terminated.
    if unsafe { libc::mkdir(c.as_ptr(), mode) } == 0 {
        // SAFETY: as above.
        unsafe {
            libc::chmod(c.as_ptr(), mode);
            if let Some((uid, gid)) = owner {
                libc::lchown(c.as_ptr(), uid, gid);
            }
        }
        return Ok(());
    }
    match sys::last_errno() {
        libc::EEXIST => match stat(path, true) {
            Ok(st) if is(&st, libc::S_IFDIR) => Ok(()),
            _ => Err(Fail::errno(libc::ENOTDIR, &name(path))),
        },
        libc::ENOENT => match os(path).parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                make_parents(parent.as_os_str().as_bytes(), mode, owner)?;
                // The parent is there now, so this cannot come back here for ever.
                // SAFETY: NUL-terminated.
                if unsafe { libc::mkdir(c.as_ptr(), mode) } < 0 && sys::last_errno() != libc::EEXIST {
                    return Err(Fail::last(&name(path)));
                }
                // SAFETY: as above.
                unsafe {
                    libc::chmod(c.as_ptr(), mode);
                    if let Some((uid, gid)) = owner {
                        libc::lchown(c.as_ptr(), uid, gid);
                    }
                }
                Ok(())
            }
            _ => Err(Fail::errno(libc::ENOENT, &name(path))),
        },
        e => Err(Fail::errno(e, &name(path))),
    }
}
