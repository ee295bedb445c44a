//! What a guest has changed since it booted, as a layer of a container image: the overlay's upper directory, where "deleted"
//! and "opaque" are written as the `.wh.` names of the OCI image format ("Image Layer Filesystem Changeset"), and back.

use crate::files::{is, name, os, stat};
use crate::sys::{self, cstring, Fail, Fd, Result};
use std::os::unix::ffi::OsStrExt;

const WHITEOUT: &[u8] = b".wh.";
pub const OPAQUE: &[u8] = b".wh..wh..opq";
const OVERLAY: &[u8] = b"trusted.overlay.";
/// What Linux allows for the names of a file together, and for one value.
const MAX_XATTR: usize = 65_536;

pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The way to a directory that no path leads to any more.
pub fn path_of(directory: &Fd) -> Vec<u8> {
    format!("/proc/self/fd/{}", directory.raw()).into_bytes()
}

/// Overlay's mark of a deleted name.
pub fn is_whiteout(st: &libc::stat) -> bool {
    is(st, libc::S_IFCHR) && st.st_rdev == 0
}

/// Nothing below it of the base shows through.
pub fn is_opaque(path: &[u8]) -> Result<bool> {
    Ok(get(path, b"trusted.overlay.opaque")?.map_or(false, |value| value == b"y"))
}

/// It was somewhere else in the base: what it holds there belongs to it.
pub fn is_moved(path: &[u8]) -> Result<bool> {
    Ok(get(path, b"trusted.overlay.redirect")?.is_some())
}

pub fn whiteout_of(leaf: &[u8]) -> Vec<u8> {
    [WHITEOUT, leaf].concat()
}

/// What a name in a layer deletes.
#[derive(Debug, PartialEq)]
pub enum Deletes<'a> {
    Name(&'a [u8]),
    /// Everything that the directory had.
    Contents,
}

pub fn deletes(leaf: &[u8]) -> Option<Deletes<'_>> {
    if leaf == OPAQUE {
        return Some(Deletes::Contents);
    }
    leaf.strip_prefix(WHITEOUT).filter(|hidden| !hidden.is_empty() && *hidden != b"." && *hidden != b"..").map(Deletes::Name)
}

/// Extended attributes of a file, not of what a link means, without the overlay's own.
pub fn xattrs(path: &[u8]) -> Result<Xattrs> {
    let c = cstring(path)?;
    let mut names = vec![0u8; MAX_XATTR];
    // SAFETY: a NUL-terminated path and a buffer of the given size.
    let size = unsafe { libc::llistxattr(c.as_ptr(), names.as_mut_ptr() as *mut libc::c_char, names.len()) };
    if size < 0 {
        return match sys::last_errno() {
            libc::EOPNOTSUPP | libc::ENOENT => Ok(Vec::new()),
            errno => Err(Fail::errno(errno, &name(path))),
        };
    }
    names.truncate(size as usize);
    let mut all = Vec::new();
    for key in names.split(|&b| b == 0).filter(|key| !key.is_empty() && !key.starts_with(OVERLAY)) {
        if let Some(value) = get(path, key)? {
            all.push((key.to_vec(), value));
        }
    }
    Ok(all)
}

fn get(path: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>> {
    let (c, k) = (cstring(path)?, cstring(key)?);
    let mut value = vec![0u8; MAX_XATTR];
    // SAFETY: NUL-terminated strings and a buffer of the given size.
    let size = unsafe { libc::lgetxattr(c.as_ptr(), k.as_ptr(), value.as_mut_ptr() as *mut libc::c_void, value.len()) };
    if size < 0 {
        return match sys::last_errno() {
            libc::ENODATA | libc::EOPNOTSUPP | libc::ENOENT => Ok(None),
            errno => Err(Fail::errno(errno, &name(path))),
        };
    }
    value.truncate(size as usize);
    Ok(Some(value))
}

/// Sets them on the leaf itself. After its owner: a change of owner removes capabilities.
pub fn set_xattrs(path: &[u8], xattrs: &Xattrs) -> Result<()> {
    let c = cstring(path)?;
    for (key, value) in xattrs {
        let k = cstring(key)?;
        // SAFETY: NUL-terminated strings and a buffer of the given size.
        let rc = unsafe { libc::lsetxattr(c.as_ptr(), k.as_ptr(), value.as_ptr() as *const libc::c_void, value.len(), 0) };
        sys::check(rc, &format!("{} of {}", name(key), name(path)))?;
    }
    Ok(())
}

/// Removes whatever is under a name, also a whole directory. Nothing there is fine.
pub fn remove(path: &[u8]) -> Result<()> {
    match stat(path, false) {
        Ok(st) if is(&st, libc::S_IFDIR) => std::fs::remove_dir_all(os(path)).map_err(|e| Fail::io(&e, &name(path))),
        Ok(_) => std::fs::remove_file(os(path)).map_err(|e| Fail::io(&e, &name(path))),
        Err(f) if f.errno == libc::ENOENT => Ok(()),
        Err(f) => Err(f),
    }
}

pub fn remove_contents(dir: &[u8]) -> Result<()> {
    for entry in std::fs::read_dir(os(dir)).map_err(|e| Fail::io(&e, &name(dir)))? {
        let entry = entry.map_err(|e| Fail::io(&e, &name(dir)))?;
        remove(entry.path().as_os_str().as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_delete() {
        assert_eq!(deletes(b".wh.gone"), Some(Deletes::Name(b"gone")));
        assert_eq!(deletes(b".wh..wh..opq"), Some(Deletes::Contents));
        assert_eq!(deletes(b"plain.wh.x"), None);
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert_eq!(deletes(bad), None);
        }
        assert_eq!(deletes(&whiteout_of(b"name")), Some(Deletes::Name(b"name")));
    }
}
