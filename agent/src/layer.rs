//! What a guest has changed since it booted, as a layer of a container image: the overlay's upper directory, where "deleted"
//! and "opaque" are written as the `.wh.` names of the OCI image format ("Image Layer Filesystem Changeset"), and back.

use crate::attributes::get;
use crate::files::{is, name, os, stat};
use crate::sys::{Fail, Fd, Result};
use std::os::unix::ffi::OsStrExt;

const WHITEOUT: &[u8] = b".wh.";
pub const OPAQUE: &[u8] = b".wh..wh..opq";

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

/// A name that a layer cannot hold, since there it would delete another.
pub fn unspeakable(leaf: &[u8]) -> bool {
    leaf.starts_with(WHITEOUT)
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

/// What is mounted in it stays.
pub fn remove_contents(dir: &[u8]) -> Result<()> {
    let device = stat(dir, true)?.st_dev;
    for entry in std::fs::read_dir(os(dir)).map_err(|e| Fail::io(&e, &name(dir)))? {
        let entry = entry.map_err(|e| Fail::io(&e, &name(dir)))?;
        let path = entry.path();
        let path = path.as_os_str().as_bytes();
        if stat(path, false).map_or(true, |st| st.st_dev == device) {
            remove(path)?;
        }
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
