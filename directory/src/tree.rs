//! What the guest's kernel knows by number, and how it is found again: each time anew from the directory's root, by names, never through
//! a link and never above the root. No descriptors are kept for it, so a guest may know any number of files.

use crate::sys::{self, Fd};
use std::collections::HashMap;

pub const ROOT: u64 = 1;
/// Each is some 200 bytes of memory.
const MOST_NODES: usize = 400_000;
/// Directories one in another, beyond which there is a ring.
const MOST_DEPTH: usize = 2_048;
/// The kernel takes 4096 bytes of a path.
const MOST_PATH: usize = 4_000;

/// Which file it was: another one under its name, or with its inode number, is another node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    pub inode: u64,
    /// Of its filesystem and the time of its making.
    pub generation: u64,
}

struct Node {
    parent: u64,
    /// As last seen. Empty once it was removed.
    name: Vec<u8>,
    identity: Identity,
    lookups: u64,
}

pub struct Tree {
    root: Fd,
    nodes: HashMap<u64, Node>,
    known: HashMap<Identity, u64>,
    /// Those that have a name, by it and its directory.
    names: HashMap<(u64, Vec<u8>), u64>,
    next: u64,
}

impl Tree {
    pub fn new(root: Fd) -> Tree {
        Tree { root, nodes: HashMap::new(), known: HashMap::new(), names: HashMap::new(), next: ROOT + 1 }
    }

    pub fn root(&self) -> &Fd {
        &self.root
    }

    /// A descriptor that only names it (O_PATH), and what it is. ESTALE: it is not there any more, or something else is.
    pub fn find(&self, node: u64) -> Result<(Fd, libc::statx), i32> {
        if node == ROOT {
            let found = sys::open_beneath(self.root.raw(), b".", libc::O_PATH | libc::O_DIRECTORY, 0)?;
            let stat = sys::stat(&found)?;
            return Ok((found, stat));
        }
        let wanted = self.nodes.get(&node).ok_or(libc::ESTALE)?;
        let (parent, name) = self.place(node)?;
        let found = sys::open_beneath(parent.raw(), name, libc::O_PATH | libc::O_NOFOLLOW, 0).map_err(gone)?;
        let stat = sys::stat(&found)?;
        if identity(&stat) != wanted.identity {
            return Err(libc::ESTALE);
        }
        Ok((found, stat))
    }

    /// The directory, so that something in it can be named.
    pub fn directory(&self, node: u64) -> Result<Fd, i32> {
        let (found, stat) = self.find(node)?;
        if u32::from(stat.stx_mode) & libc::S_IFMT != libc::S_IFDIR {
            return Err(libc::ENOTDIR);
        }
        Ok(found)
    }

    /// The directory that it is in, and its name there.
    pub fn place(&self, node: u64) -> Result<(Fd, &[u8]), i32> {
        let mut names = Vec::new();
        let mut at = node;
        while at != ROOT {
            let here = self.nodes.get(&at).ok_or(libc::ESTALE)?;
            if here.name.is_empty() || names.len() == MOST_DEPTH {
                return Err(libc::ESTALE);
            }
            names.push(here.name.as_slice());
            at = here.parent;
        }
        let name = names.first().copied().ok_or(libc::EBUSY)?;
        let mut directory = sys::open_beneath(self.root.raw(), b".", libc::O_PATH | libc::O_DIRECTORY, 0)?;
        let mut path = Vec::new();
        for part in names[1..].iter().rev() {
            if path.len() + 1 + part.len() > MOST_PATH {
                directory = sys::open_beneath(directory.raw(), &path, libc::O_PATH | libc::O_DIRECTORY, 0).map_err(gone)?;
                path.clear();
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        if !path.is_empty() {
            directory = sys::open_beneath(directory.raw(), &path, libc::O_PATH | libc::O_DIRECTORY, 0).map_err(gone)?;
        }
        Ok((directory, name))
    }

    pub fn knows(&self, node: u64) -> bool {
        node == ROOT || self.nodes.contains_key(&node)
    }

    /// Its directory's node, and its name there.
    pub fn name(&self, node: u64) -> Option<(u64, &[u8])> {
        self.nodes.get(&node).filter(|known| !known.name.is_empty()).map(|known| (known.parent, known.name.as_slice()))
    }

    /// From the root on, as last seen.
    pub fn path(&self, node: u64) -> Option<Vec<u8>> {
        let mut names = Vec::new();
        let mut at = node;
        while at != ROOT {
            let (parent, name) = self.name(at).filter(|_| names.len() < MOST_DEPTH)?;
            names.push(name);
            at = parent;
        }
        names.reverse();
        Some(names.join(&b'/')).filter(|path| path.len() <= MOST_PATH)
    }

    /// The guest's kernel is told of it once more.
    pub fn remember(&mut self, parent: u64, name: &[u8], stat: &libc::statx) -> Result<u64, i32> {
        let identity = identity(stat);
        let node = match self.known.get(&identity) {
            Some(node) => *node,
            None if self.nodes.len() >= MOST_NODES => return Err(libc::ENFILE),
            None => {
                let node = self.next;
                self.next += 1;
                self.known.insert(identity, node);
                self.nodes.insert(node, Node { parent, name: Vec::new(), identity, lookups: 0 });
                node
            }
        };
        self.put(node, parent, name);
        if let Some(known) = self.nodes.get_mut(&node) {
            known.lookups = known.lookups.saturating_add(1);
        }
        Ok(node)
    }

    pub fn forget(&mut self, node: u64, times: u64) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.lookups = known.lookups.saturating_sub(times);
            if known.lookups == 0 {
                self.clear(node);
                if let Some(known) = self.nodes.remove(&node) {
                    self.known.remove(&known.identity);
                }
            }
        }
    }

    /// Gives it a name, which nothing else has from now on.
    fn put(&mut self, node: u64, parent: u64, name: &[u8]) {
        self.clear(node);
        if let Some(known) = self.nodes.get_mut(&node) {
            known.parent = parent;
            known.name = name.to_vec();
            if let Some(former) = self.names.insert((parent, name.to_vec()), node) {
                if let Some(former) = self.nodes.get_mut(&former) {
                    former.name.clear();
                }
            }
        }
    }

    fn clear(&mut self, node: u64) {
        if let Some(known) = self.nodes.get_mut(&node) {
            let name = std::mem::take(&mut known.name);
            if !name.is_empty() {
                self.names.remove(&(known.parent, name));
            }
        }
    }

    /// As an earlier helper has told it.
    pub fn restore(&mut self, node: u64, parent: u64, identity: Identity, lookups: u64, name: &[u8]) -> Result<(), i32> {
        if node <= ROOT || node == u64::MAX || lookups == 0 || self.nodes.len() >= MOST_NODES {
            return Err(libc::EINVAL);
        }
        self.forget(node, u64::MAX);
        if let Some(other) = self.known.get(&identity).copied() {
            self.forget(other, u64::MAX);
        }
        self.next = self.next.max(node + 1);
        self.known.insert(identity, node);
        self.nodes.insert(node, Node { parent, name: Vec::new(), identity, lookups });
        if !name.is_empty() {
            self.put(node, parent, name);
        }
        Ok(())
    }

    /// What was there under that name is not any more.
    pub fn removed(&mut self, parent: u64, name: &[u8]) {
        if let Some(node) = self.names.get(&(parent, name.to_vec())).copied() {
            self.clear(node);
        }
    }

    /// @param exchange what was there under the new name has the old one now
    pub fn renamed(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), exchange: bool) {
        let moved = self.names.get(&(from.0, from.1.to_vec())).copied();
        let replaced = self.names.get(&(to.0, to.1.to_vec())).copied().filter(|other| Some(*other) != moved);
        if let Some(node) = replaced {
            self.clear(node);
        }
        if let Some(node) = moved {
            self.put(node, to.0, to.1);
        }
        if let (Some(node), true) = (replaced, exchange) {
            self.put(node, from.0, from.1);
        }
    }
}

/// A guest's kernel that is told ESTALE looks the name up again.
fn gone(errno: i32) -> i32 {
    match errno {
        libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV => libc::ESTALE,
        other => other,
    }
}

pub fn identity(stat: &libc::statx) -> Identity {
    let device = u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor);
    let made = (stat.stx_btime.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(u64::from(stat.stx_btime.tv_nsec));
    Identity { inode: stat.stx_ino, generation: device.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ made }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(inode: u64) -> libc::statx {
        // SAFETY: zeroes are a valid structure.
        let mut stat: libc::statx = unsafe { std::mem::zeroed() };
        stat.stx_ino = inode;
        stat
    }

    fn tree() -> Tree {
        Tree::new(sys::open_absolute(b"/", libc::O_PATH).unwrap())
    }

    fn name(tree: &Tree, node: u64) -> (u64, &[u8]) {
        (tree.nodes[&node].parent, &tree.nodes[&node].name)
    }

    #[test]
    fn names_follow_what_is_renamed_removed_and_forgotten() {
        let mut tree = tree();
        let [a, b] = [10, 11].map(|inode| tree.remember(ROOT, &[b'a' + inode as u8 - 10], &stat(inode)).unwrap());
        tree.renamed((ROOT, b"a"), (b, b"x"), false);
        assert_eq!(name(&tree, a), (b, &b"x"[..]));
        tree.renamed((b, b"x"), (ROOT, b"b"), true);
        assert_eq!((name(&tree, a), name(&tree, b)), ((ROOT, &b"b"[..]), (b, &b"x"[..])));
        tree.removed(ROOT, b"b");
        assert_eq!(name(&tree, a).1, b"");
        assert_eq!(tree.place(a).err(), Some(libc::ESTALE));
        // One that is its own parent is found nowhere, and nobody looks for ever.
        assert_eq!(tree.place(b).err(), Some(libc::ESTALE));
        tree.forget(a, 1);
        tree.forget(b, 5);
        assert!(tree.nodes.is_empty() && tree.known.is_empty() && tree.names.is_empty());
    }

    #[test]
    fn a_name_has_one_owner() {
        let mut tree = tree();
        let old = tree.remember(ROOT, b"a", &stat(1)).unwrap();
        let new = tree.remember(ROOT, b"a", &stat(2)).unwrap();
        assert_eq!((name(&tree, old).1, name(&tree, new).1), (&b""[..], &b"a"[..]));
        assert!(tree.restore(9, ROOT, identity(&stat(2)), 1, b"c").is_ok());
        assert_eq!(tree.nodes.len(), 2);
        assert!(tree.restore(ROOT, ROOT, identity(&stat(3)), 1, b"c").is_err());
        assert_eq!(tree.remember(ROOT, b"d", &stat(4)).unwrap(), 10);
    }
}
