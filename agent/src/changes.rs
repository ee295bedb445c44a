//! What the guest's root differs from its base in, as a layer of a container image. Most of it is the overlay's upper directory as
//! it lies there (layer.rs). Two things are not: a directory that was moved holds only what changed in it since, and of a file with
//! several names only those through which it was written. Those are taken from the root as programs see it.

use crate::attributes;
use crate::buffers::PIECE;
use crate::files::{is, name, os, stat};
use crate::identity;
use crate::jobs::Io;
use crate::layer;
use crate::protocol::Fields;
use crate::sys::{self, Fail, Fd, Result};
use crate::tar::{Form, Tree};
use crate::walk::{join, walk, Visit};
use std::collections::HashSet;
use std::io::Read;

const RUN: &[u8] = b"/run";

/// The overlay's parts, which no path leads to.
pub struct Layers {
    pub base: Fd,
    pub upper: Fd,
    /// Files with several names that were written: the overlay's own name for each.
    pub index: Fd,
}

/// Where they can be read, for a job.
pub struct Paths {
    base: Vec<u8>,
    upper: Vec<u8>,
    index: Vec<u8>,
}

impl Layers {
    pub fn open() -> Result<Layers> {
        let open = |path: &str| sys::open(path.as_bytes(), libc::O_PATH | libc::O_DIRECTORY, 0);
        Ok(Layers { base: open("/base")?, upper: open("/rw/upper")?, index: open("/rw/work/index")? })
    }

    pub fn paths(&self) -> Paths {
        Paths { base: layer::path_of(&self.base), upper: layer::path_of(&self.upper), index: layer::path_of(&self.index) }
    }
}

pub fn changes(io: &mut Io, at: &Paths) -> Result<Fields> {
    io.event(Fields::new())?;
    let device = stat(b"/", true)?.st_dev;
    let mut tree = Tree::new(io, Form::Layer);
    let mut moved: HashSet<Vec<u8>> = HashSet::new();
    let cut = at.upper.len() + 1;
    walk(&at.upper, |visit, path, st, _| {
        let inside = &path[cut..];
        if visit == Visit::Enter && layer::is_moved(path)? {
            whole(&mut tree, inside, device)?;
            moved.insert(inside.to_vec());
            return Ok(false);
        }
        if visit != Visit::Leave && stat(&join(b"/", inside), false).map_or(false, |seen| seen.st_dev != device) {
            // Something is mounted on it: what lies below is nothing that a program could have changed, but a build may have (`Unpacking`).
            if visit == Visit::Enter {
                tree.directory(inside, st)?;
            } else if is(st, libc::S_IFREG) && !only_place(at, inside, st) && !only_copied(at, path, inside, st)? {
                tree.add(path, inside, st)?;
            }
            return Ok(false);
        }
        if visit == Visit::Leaf && only_copied(at, path, inside, st)? {
            return Ok(true);
        }
        if visit != Visit::Leave {
            tree.add(path, inside, &seen(inside, st, device))?;
        }
        Ok(true)
    })?;
    if has_files(&at.index)? {
        other_names(&mut tree, at, &moved, device)?;
    }
    run(&mut tree, at, device)?;
    tree.finish()
}

/// A filesystem of its own that began with what the base has there (boot.rs): all of it, in place of that. Not what the agent has in it.
fn run(tree: &mut Tree, at: &Paths, device: libc::dev_t) -> Result<()> {
    let st = stat(RUN, false)?;
    let base = std::fs::read_dir(os(&join(&at.base, &RUN[1..]))).map_or(false, |mut entries| entries.next().is_some());
    let ours = |path: &[u8]| path.starts_with(identity::DIR.as_bytes());
    let mut begun = false;
    if st.st_dev == device {
        return Ok(());
    }
    let mut begin = |tree: &mut Tree| -> Result<()> {
        if !std::mem::replace(&mut begun, true) {
            tree.add(RUN, &RUN[1..], &st)?;
            tree.opaque(&RUN[1..], &st)?;
        }
        Ok(())
    };
    if base {
        begin(tree)?;
    }
    walk(RUN, |visit, path, seen, _| {
        if ours(path) || seen.st_dev != st.st_dev {
            return Ok(false);
        }
        if visit != Visit::Leave {
            begin(tree)?;
            tree.add(path, &path[1..], seen)?;
        }
        Ok(true)
    })
}

/// It was made for something to be mounted on it (identity.rs).
fn only_place(at: &Paths, inside: &[u8], st: &libc::stat) -> bool {
    st.st_size == 0 && stat(&join(&at.base, inside), false).is_err()
}

/// The base has the very same there: it was opened for writing, and nothing was written.
fn only_copied(at: &Paths, path: &[u8], inside: &[u8], st: &libc::stat) -> Result<bool> {
    let below = join(&at.base, inside);
    let lower = match stat(&below, false) {
        Ok(lower) if is(st, libc::S_IFREG) && st.st_nlink == 1 && told(&lower) == told(st) => lower,
        _ => return Ok(false),
    };
    // What the base has in a directory that was made anew is not seen through it.
    for (cut, _) in inside.iter().enumerate().filter(|(_, &byte)| byte == b'/') {
        if layer::is_opaque(&join(&at.upper, &inside[..cut]))? {
            return Ok(false);
        }
    }
    Ok(attributes::all(path)? == attributes::all(&below)? && same_bytes(path, &below, lower.st_size as u64)?)
}

fn told(st: &libc::stat) -> [i64; 6] {
    [i64::from(st.st_mode), st.st_size, i64::from(st.st_uid), i64::from(st.st_gid), st.st_mtime, st.st_mtime_nsec]
}

fn same_bytes(one: &[u8], other: &[u8], size: u64) -> Result<bool> {
    let open = |path: &[u8]| std::fs::File::open(os(path)).map_err(|e| Fail::io(&e, &name(path)));
    let (mut a, mut b) = (open(one)?, open(other)?);
    let (mut first, mut second) = (vec![0u8; PIECE], vec![0u8; PIECE]);
    let mut left = size;
    while left > 0 {
        let length = left.min(PIECE as u64) as usize;
        let read = |file: &mut std::fs::File, into: &mut [u8]| file.read_exact(into).map_err(|e| Fail::io(&e, &name(one)));
        read(&mut a, &mut first[..length])?;
        read(&mut b, &mut second[..length])?;
        if first[..length] != second[..length] {
            return Ok(false);
        }
        left -= length as u64;
    }
    Ok(true)
}

/// The file as programs see it: its number there is that of all its names.
fn seen(inside: &[u8], st: &libc::stat, device: libc::dev_t) -> libc::stat {
    if !is(st, libc::S_IFREG) || st.st_nlink < 2 {
        return *st;
    }
    // A mount may hide it.
    stat(&join(b"/", inside), false).ok().filter(|seen| seen.st_dev == device && is(seen, libc::S_IFREG)).unwrap_or(*st)
}

/// A directory with all that programs see in it, in place of whatever the base has there.
fn whole(tree: &mut Tree, inside: &[u8], device: libc::dev_t) -> Result<()> {
    let top = join(b"/", inside);
    tree.add(&top, inside, &stat(&top, false)?)?;
    tree.opaque(inside, &stat(&top, false)?)?;
    walk(&top, |visit, path, st, _| {
        // What is mounted there is no part of the root.
        if st.st_dev != device {
            return Ok(false);
        }
        if visit != Visit::Leave {
            tree.add(path, &path[1..], st)?;
        }
        Ok(true)
    })
}

fn has_files(index: &[u8]) -> Result<bool> {
    let mut found = false;
    walk(index, |_, _, st, _| {
        found |= !is(st, libc::S_IFDIR) && !layer::is_whiteout(st);
        Ok(false)
    })?;
    Ok(found)
}

/// Names that lead to a written file, and that have no entry in the upper directory.
fn other_names(tree: &mut Tree, at: &Paths, moved: &HashSet<Vec<u8>>, device: libc::dev_t) -> Result<()> {
    walk(b"/", |visit, path, st, _| {
        let inside = &path[1..];
        if st.st_dev != device {
            return Ok(false);
        }
        if visit != Visit::Leaf {
            return Ok(!moved.contains(inside));
        }
        let lower = match (stat(&join(&at.upper, inside), false), stat(&join(&at.base, inside), false)) {
            (Err(_), Ok(lower)) => lower,
            _ => return Ok(true),
        };
        // A copy is younger than the base.
        if (lower.st_ctime, lower.st_ctime_nsec) != (st.st_ctime, st.st_ctime_nsec) {
            tree.add(path, inside, st)?;
        }
        Ok(true)
    })
}
