//! A walk over a tree without recursion: a deep tree costs descriptors, not stack. Symlinks are followed when asked only, and
//! then one that leads back to a directory above it is an error: a walk of all ways round would not end.

use crate::files::{is, name, os, stat};
use crate::sys::{Fail, Result};
use std::fs::ReadDir;
use std::os::unix::ffi::OsStrExt;

/// Deeper than this is an error, not an open file too many: all jobs at this depth stay below the limit of open files.
const MAX_DEPTH: usize = 400;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Visit {
    /// A directory, before what is in it. Answer false to pass it by.
    Enter,
    /// The same directory, after.
    Leave,
    /// Anything else.
    Leaf,
}

/// Visits everything below `root`, not `root` itself. Depth 1: directly in it. Entries that vanish meanwhile are passed by.
pub fn walk(root: &[u8], visit: impl FnMut(Visit, &[u8], &libc::stat, usize) -> Result<bool>) -> Result<()> {
    walk_as(root, false, visit)
}

/// @param follow a symlink counts as what it means; one that means nothing, as itself
pub fn walk_as(
    root: &[u8],
    follow: bool,
    mut visit: impl FnMut(Visit, &[u8], &libc::stat, usize) -> Result<bool>,
) -> Result<()> {
    let top = stat(root, true)?;
    let mut open: Vec<(Vec<u8>, ReadDir, libc::stat)> = vec![(root.to_vec(), read_dir(root)?, top)];
    while let Some((dir, entries, _)) = open.last_mut() {
        let entry = match entries.next() {
            Some(Ok(entry)) => entry,
            Some(Err(e)) => return Err(Fail::io(&e, &name(dir))),
            None => {
                if let (Some((dir, _, st)), false) = (open.pop(), open.is_empty()) {
                    visit(Visit::Leave, &dir, &st, open.len())?;
                }
                continue;
            }
        };
        let path = join(dir, entry.file_name().as_bytes());
        let found = match stat(&path, follow) {
            Err(f) if follow && matches!(f.errno, libc::ENOENT | libc::ELOOP) => stat(&path, false),
            found => found,
        };
        let st = match found {
            Ok(st) => st,
            Err(f) if f.errno == libc::ENOENT => continue,
            Err(f) => return Err(f),
        };
        let depth = open.len();
        if !is(&st, libc::S_IFDIR) {
            visit(Visit::Leaf, &path, &st, depth)?;
        } else if visit(Visit::Enter, &path, &st, depth)? {
            if follow && open.iter().any(|(_, _, above)| (above.st_dev, above.st_ino) == (st.st_dev, st.st_ino)) {
                let message = format!("{} leads back to a directory above it", name(&path));
                return Err(Fail::new(crate::protocol::status::LIMIT, message));
            }
            if depth >= MAX_DEPTH {
                return Err(Fail::new(crate::protocol::status::LIMIT, format!("more than {} directories deep", MAX_DEPTH)));
            }
            match read_dir(&path) {
                Ok(list) => open.push((path, list, st)),
                Err(f) if f.errno == libc::ENOENT => {}
                Err(f) => return Err(f),
            }
        }
    }
    Ok(())
}

fn read_dir(path: &[u8]) -> Result<ReadDir> {
    std::fs::read_dir(os(path)).map_err(|e| Fail::io(&e, &name(path)))
}

pub fn join(dir: &[u8], entry: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if dir.ends_with(b"/") { b"" } else { b"/" };
    [dir, slash, entry].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_everything_once_and_leaves_after_the_contents() {
        let root = std::env::temp_dir().join(format!("agent-walk-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/f"), b"x").unwrap();
        std::os::unix::fs::symlink(&root, root.join("a/loop")).unwrap();
        let base = root.as_os_str().as_bytes().to_vec();
        let mut seen = Vec::new();
        walk(&base, |v, p, _, d| {
            seen.push((v, String::from_utf8_lossy(&p[base.len()..]).into_owned(), d));
            Ok(true)
        })
        .unwrap();
        let at = |v, p: &str| seen.iter().position(|s| s.0 == v && s.1 == p).unwrap();
        assert_eq!(seen.len(), 6);
        assert!(at(Visit::Enter, "/a") < at(Visit::Leaf, "/a/b/f") && at(Visit::Leaf, "/a/b/f") < at(Visit::Leave, "/a/b"));
        assert_eq!(seen[at(Visit::Leaf, "/a/loop")].2, 2);
        let mut followed = Vec::new();
        let end = walk_as(&base, true, |_, p, _, _| {
            followed.push(p.to_vec());
            Ok(true)
        });
        assert_eq!(end.unwrap_err().status, crate::protocol::status::LIMIT);
        assert!(followed.contains(&join(&base, b"a/loop")) && followed.len() <= 5);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
