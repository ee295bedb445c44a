//! Extended attributes of files.

use crate::files::{describe, name, os};
use crate::protocol::{tag, Fields};
use crate::sys::{self, cstring, Fail, Result};
use std::os::unix::ffi::OsStrExt;

const OVERLAY: &[u8] = b"trusted.overlay.";
/// What Linux allows for the names of a file together, and for one value.
const MAX: usize = 65_536;
/// What `describe_with` tells of one file, names and values together: it has to fit into a frame.
const MAX_TOLD: usize = 16_384;

pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Those of a file, not of what a link means, without the overlay's own.
pub fn all(path: &[u8]) -> Result<Xattrs> {
    let mut found = Vec::new();
    for key in names(path)?.split(|&b| b == 0).filter(|key| !key.is_empty() && !key.starts_with(OVERLAY)) {
        if let Some(value) = get(path, key)? {
            found.push((key.to_vec(), value));
        }
    }
    Ok(found)
}

/// Each with a NUL behind it.
fn names(path: &[u8]) -> Result<Vec<u8>> {
    let c = cstring(path)?;
    let list = |names: &mut Vec<u8>| {
        // SAFETY: a NUL-terminated path and a buffer of the given size.
        let size = unsafe { libc::llistxattr(c.as_ptr(), names.as_mut_ptr() as *mut libc::c_char, names.len()) };
        match (size, sys::last_errno()) {
            (0.., _) => Ok(size as usize),
            (_, libc::EOPNOTSUPP | libc::ENOENT) => Ok(0),
            (_, errno) => Err(Fail::errno(errno, &name(path))),
        }
    };
    // Most files have none: their size is asked for first, without a buffer.
    let mut names = Vec::new();
    if list(&mut names)? > 0 {
        names.resize(MAX, 0);
        let size = list(&mut names)?;
        names.truncate(size);
    }
    Ok(names)
}

pub fn get(path: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>> {
    let (c, k) = (cstring(path)?, cstring(key)?);
    let mut value = vec![0u8; MAX];
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
pub fn set(path: &[u8], xattrs: &Xattrs) -> Result<()> {
    let c = cstring(path)?;
    for (key, value) in xattrs {
        let k = cstring(key)?;
        // SAFETY: NUL-terminated strings and a buffer of the given size.
        let rc = unsafe { libc::lsetxattr(c.as_ptr(), k.as_ptr(), value.as_ptr() as *const libc::c_void, value.len(), 0) };
        sys::check(rc, &format!("{} of {}", name(key), name(path)))?;
    }
    Ok(())
}

/// From now on those of what the path means whose names begin with `prefix` are these.
pub fn replace(path: &[u8], prefix: &[u8], wanted: &Xattrs) -> Result<()> {
    let real = std::fs::canonicalize(os(path)).map_err(|e| Fail::io(&e, &name(path)))?;
    let real = real.as_os_str().as_bytes();
    let c = cstring(real)?;
    for (key, _) in all(real)?.iter().filter(|(key, _)| key.starts_with(prefix) && !wanted.iter().any(|(k, _)| k == key)) {
        let k = cstring(key)?;
        // SAFETY: NUL-terminated strings.
        sys::check(unsafe { libc::lremovexattr(c.as_ptr(), k.as_ptr()) }, &format!("{} of {}", name(key), name(path)))?;
    }
    set(real, wanted)
}

/// As `describe`, with an ATTRIBUTE (name, NUL, value) for each whose name begins with `prefix`, as far as there is room.
pub fn describe_with(path: &[u8], st: &libc::stat, prefix: Option<&[u8]>) -> Result<Fields> {
    let mut fields = describe(path, st);
    let prefix = match prefix {
        Some(prefix) => prefix,
        None => return Ok(fields),
    };
    let mut room = MAX_TOLD;
    for (key, value) in all(path)?.iter().filter(|(key, _)| key.starts_with(prefix)) {
        let told = [&key[..], b"\0", value].concat();
        if let Some(left) = room.checked_sub(told.len()) {
            room = left;
            fields.bytes(tag::ATTRIBUTE, &told);
        }
    }
    Ok(fields)
}

/// An ATTRIBUTE: name, NUL, value.
pub fn parse(told: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let cut = told.iter().position(|&b| b == 0).ok_or_else(|| Fail::invalid("an attribute without a value"))?;
    Ok((told[..cut].to_vec(), told[cut + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::stat;
    use crate::protocol::Reader;

    #[test]
    fn those_of_a_prefix_are_told_and_replaced_and_no_others() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!(".attributes-{}", std::process::id()));
        let path = file.as_os_str().as_bytes();
        std::fs::write(&file, b"x").unwrap();
        let told = |prefix: Option<&[u8]>| {
            let fields = describe_with(path, &stat(path, false).unwrap(), prefix).unwrap();
            let mut all: Vec<_> = Reader::new(&fields.0).unwrap().all(tag::ATTRIBUTE).map(|each| parse(each).unwrap()).collect();
            all.sort();
            all
        };
        let pair = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        let own = vec![pair("user.own", "kept")];
        set(path, &own).unwrap();
        replace(path, b"user.e2b.", &vec![pair("user.e2b.a", "1"), pair("user.e2b.b", "")]).unwrap();
        assert_eq!(told(Some(b"user.e2b.")), vec![pair("user.e2b.a", "1"), pair("user.e2b.b", "")]);
        replace(path, b"user.e2b.", &vec![pair("user.e2b.b", "2")]).unwrap();
        assert_eq!(told(Some(b"user.e2b.")), vec![pair("user.e2b.b", "2")]);
        assert_eq!(told(Some(b"user.own")), own);
        assert_eq!(told(None), vec![]);
        // What one file has is bounded; ext4 itself has less room than this.
        assert!(parse(b"no value").is_err());
        std::fs::remove_file(&file).unwrap();
    }
}
