//! Operations on names and trees: list, move, copy, chmod, delete, mkdir.

use crate::attributes::{self, describe_with};
use crate::files::{is, make_parents, name, os, stat};
use crate::jobs::Io;
use crate::protocol::{status, tag, Fields};
use crate::sparse::SparseWriter;
use crate::sys::{self, check, cstring, Fail, Result};
use crate::walk::{walk, walk_as, Visit};
use std::os::unix::ffi::OsStrExt;

const PIECE: usize = 32 * 1024;

/// Collects small results into pieces worth sending.
pub struct Body<'a> {
    io: &'a mut Io,
    fields: Fields,
}

impl<'a> Body<'a> {
    pub fn new(io: &'a mut Io) -> Body<'a> {
        Body { io, fields: Fields::new() }
    }
    pub fn add(&mut self, tag: u8, value: &[u8]) -> Result<()> {
        self.fields.bytes(tag, value);
        if self.fields.0.len() >= PIECE {
            self.flush()?;
        }
        Ok(())
    }
    pub fn flush(&mut self) -> Result<()> {
        let piece = std::mem::take(&mut self.fields.0);
        self.io.send(&piece)
    }
    pub fn check(&self) -> Result<()> {
        self.io.check()
    }
}

/// @param follow symlinks are listed as what they mean, and those to directories are entered
/// @param prefix of the names of extended attributes that are told, too
pub fn list(io: &mut Io, path: &[u8], depth: usize, follow: bool, prefix: Option<&[u8]>) -> Result<Fields> {
    let mut body = Body::new(io);
    walk_as(path, follow, |visit, path, st, at| {
        if visit != Visit::Leave {
            body.check()?;
            body.add(tag::ENTRY, &describe_with(path, st, prefix)?.0)?;
        }
        Ok(at < depth)
    })?;
    body.flush()?;
    Ok(Fields::new())
}

pub fn rename(from: &[u8], to: &[u8]) -> Result<()> {
    let (a, b) = (cstring(from)?, cstring(to)?);
    // SAFETY: NUL-terminated strings.
    check(unsafe { libc::rename(a.as_ptr(), b.as_ptr()) }, &format!("{} to {}", name(from), name(to))).map(|_| ())
}

/// When a rename cannot do it: another filesystem, or a directory of the read-only base.
pub fn move_by_copy(io: &mut Io, from: &[u8], to: &[u8]) -> Result<Fields> {
    copy(io, from, to, true, false)?;
    delete(io, from, true)
}

/// @param follow what symlinks mean is copied, in their place
pub fn copy(io: &mut Io, from: &[u8], to: &[u8], recursive: bool, follow: bool) -> Result<Fields> {
    let st = stat(from, follow)?;
    if !is(&st, libc::S_IFDIR) {
        if stat(to, true).map(|t| is(&t, libc::S_IFDIR)).unwrap_or(false) {
            return Err(Fail::errno(libc::EISDIR, &name(to)));
        }
        copy_one(&mut || io.check(), from, to, &st, follow)?;
        return Ok(Fields::new());
    }
    if !recursive {
        return Err(Fail::errno(libc::EISDIR, &name(from)));
    }
    let real = std::fs::canonicalize(os(from)).map_err(|e| Fail::io(&e, &name(from)))?;
    make_parents(to, 0o755, None)?;
    let target = std::fs::canonicalize(os(to)).map_err(|e| Fail::io(&e, &name(to)))?;
    if target.starts_with(&real) {
        return Err(Fail::invalid("a directory cannot be copied into itself"));
    }
    fill(&mut || io.check(), from, to, follow)?;
    attributes(from, to, &st)?;
    Ok(Fields::new())
}

/// Gives a directory that is there what another one has. @param go_on asked now and then
pub fn fill(go_on: &mut dyn FnMut() -> Result<()>, from: &[u8], to: &[u8], follow: bool) -> Result<()> {
    walk_as(from, follow, |visit, path, st, _| {
        go_on()?;
        let there = [to, &path[from.len()..]].concat();
        match visit {
            Visit::Enter => make_parents(&there, 0o700, None)?,
            // The mode comes last: it may forbid what had to be written.
            Visit::Leave => attributes(path, &there, st)?,
            Visit::Leaf => copy_one(go_on, path, &there, st, follow)?,
        }
        Ok(true)
    })
}

/// Owner, mode and extended attributes. Where a place keeps none of the last, they are left behind.
fn attributes(from: &[u8], path: &[u8], st: &libc::stat) -> Result<()> {
    let c = cstring(path)?;
    // SAFETY: NUL-terminated.
    unsafe {
        libc::lchown(c.as_ptr(), st.st_uid, st.st_gid);
        if !is(st, libc::S_IFLNK) {
            check(libc::chmod(c.as_ptr(), st.st_mode & 0o7777), &name(path))?;
        }
    }
    match attributes::set(path, &attributes::all(from)?) {
        Err(f) if f.status == status::NOT_SUPPORTED => Ok(()),
        set => set,
    }
}

fn copy_one(go_on: &mut dyn FnMut() -> Result<()>, from: &[u8], to: &[u8], st: &libc::stat, follow: bool) -> Result<()> {
    match st.st_mode & libc::S_IFMT {
        libc::S_IFLNK => {
            let target = std::fs::read_link(os(from)).map_err(|e| Fail::io(&e, &name(from)))?;
            crate::files::unlink(to);
            std::os::unix::fs::symlink(target, os(to)).map_err(|e| Fail::io(&e, &name(to)))?;
        }
        libc::S_IFREG => {
            let source = sys::open(from, libc::O_RDONLY | if follow { 0 } else { libc::O_NOFOLLOW }, 0)?;
            let target = sys::open(to, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOCTTY, 0o600)?;
            // Holes where it has holes: what was allocated for later stays so.
            let holes = (st.st_blocks as u64) * 512 < st.st_size as u64 && stat(to, true).map_or(false, |st| is(&st, libc::S_IFREG));
            let mut made = SparseWriter::new(&target);
            let mut buf = vec![0; 65_536];
            loop {
                go_on()?;
                let n = sys::read(source.raw(), &mut buf).map_err(|e| Fail::errno(e, &name(from)))?;
                if n == 0 {
                    break;
                }
                let written = if holes { made.write(&buf[..n]) } else { sys::write_all(target.raw(), &buf[..n]) };
                written.map_err(|e| Fail::errno(e, &name(to)))?;
            }
            made.finish().map_err(|e| Fail::errno(e, &name(to)))?;
        }
        // Sockets, pipes and devices have no content.
        _ => return Ok(()),
    }
    attributes(from, to, st)
}

pub fn chmod(path: &[u8], mode: u32) -> Result<()> {
    let c = cstring(path)?;
    // SAFETY: NUL-terminated.
    check(unsafe { libc::chmod(c.as_ptr(), mode & 0o7777) }, &name(path)).map(|_| ())
}

pub fn chmod_tree(io: &mut Io, path: &[u8], mode: u32) -> Result<Fields> {
    chmod(path, mode)?;
    walk(path, |visit, path, st, _| {
        io.check()?;
        if visit != Visit::Leave && !is(st, libc::S_IFLNK) {
            chmod(path, mode)?;
        }
        Ok(true)
    })?;
    Ok(Fields::new())
}

fn remove_directory(path: &[u8]) -> Result<()> {
    let c = cstring(path)?;
    // SAFETY: NUL-terminated.
    check(unsafe { libc::rmdir(c.as_ptr()) }, &name(path)).map(|_| ())
}

pub fn remove_file(path: &[u8]) -> Result<()> {
    let c = cstring(path)?;
    // SAFETY: NUL-terminated.
    check(unsafe { libc::unlink(c.as_ptr()) }, &name(path)).map(|_| ())
}

pub fn delete(io: &mut Io, path: &[u8], recursive: bool) -> Result<Fields> {
    let st = stat(path, false)?;
    if !is(&st, libc::S_IFDIR) {
        remove_file(path)?;
        return Ok(Fields::new());
    }
    if recursive {
        walk(path, |visit, path, _, _| {
            io.check()?;
            match visit {
                Visit::Enter => {}
                Visit::Leave => remove_directory(path)?,
                Visit::Leaf => remove_file(path)?,
            }
            Ok(true)
        })?;
    }
    remove_directory(path)?;
    Ok(Fields::new())
}

pub fn mkdir(path: &[u8], mode: u32, parents: bool, owner: Option<(u32, u32)>) -> Result<()> {
    if parents {
        if let Some(parent) = os(path).parent() {
            make_parents(parent.as_os_str().as_bytes(), 0o755, owner)?;
        }
        return make_parents(path, mode, owner);
    }
    let c = cstring(path)?;
    // SAFETY: NUL-terminated.
    unsafe {
        check(libc::mkdir(c.as_ptr(), mode), &name(path))?;
        libc::chmod(c.as_ptr(), mode);
        if let Some((uid, gid)) = owner {
            libc::lchown(c.as_ptr(), uid, gid);
        }
    }
    Ok(())
}
