//! What the guest's kernel knows by number, and how it is found again: each time anew from the directory's root, by names, never through
//! a link and never above the root. No descriptors are kept for it, so a guest may know any number of files. Where a copy has a layer of its own
//! (layer.rs), names are looked for there first.

use crate::layer::{Layer, Unnamed};
use crate::sys::{self, check, text, uninterrupted, Fd};
use std::collections::HashMap;

pub const ROOT: u64 = 1;
/// Of memory for all nodes together, which a guest fills as it likes: some 400,000 of them.
const MOST_BYTES: usize = 128 << 20;
/// Of one, beside its name, which is there twice.
const NODE_BYTES: usize = 256;
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
    layer: Option<Layer>,
    nodes: HashMap<u64, Node>,
    known: HashMap<Identity, u64>,
    /// Those that have a name, by it and its directory.
    names: HashMap<(u64, Vec<u8>), u64>,
    next: u64,
    bytes: usize,
}

impl Tree {
    pub fn new(root: Fd, layer: Option<Layer>) -> Tree {
        Tree { root, layer, nodes: HashMap::new(), known: HashMap::new(), names: HashMap::new(), next: ROOT + 1, bytes: 0 }
    }

    pub fn root(&self) -> &Fd {
        &self.root
    }

    pub fn layer(&self) -> Option<&Layer> {
        self.layer.as_ref()
    }

    /// A descriptor that only names it (O_PATH), and what it is. ESTALE: it is not there any more, or something else is.
    pub fn find(&self, node: u64) -> Result<(Fd, libc::statx), i32> {
        if let Some(layer) = &self.layer {
            if node == ROOT {
                return layer.root(&self.root);
            }
            let names = self.names(node)?;
            let (name, above) = names.split_last().ok_or(libc::EBUSY)?;
            let found = layer.look(&self.root, &layer.walk(&self.root, above).map_err(gone)?, name).map_err(gone)?;
            return self.same(node, &found.stat).map(|()| (found.file, found.stat));
        }
        if node == ROOT {
            let found = sys::open_beneath(self.root.raw(), b".", libc::O_PATH | libc::O_DIRECTORY, 0)?;
            let stat = sys::stat(&found)?;
            return Ok((found, stat));
        }
        let (parent, name) = self.place(node)?;
        let found = sys::open_beneath(parent.raw(), name, libc::O_PATH | libc::O_NOFOLLOW, 0).map_err(gone)?;
        let stat = sys::stat(&found)?;
        self.same(node, &stat).map(|()| (found, stat))
    }

    fn same(&self, node: u64, stat: &libc::statx) -> Result<(), i32> {
        let wanted = self.nodes.get(&node).ok_or(libc::ESTALE)?;
        if identity(stat) == wanted.identity { Ok(()) } else { Err(libc::ESTALE) }
    }

    /// The directory, so that something in it can be named.
    pub fn directory(&self, node: u64) -> Result<Fd, i32> {
        let (found, stat) = self.find(node)?;
        if u32::from(stat.stx_mode) & libc::S_IFMT != libc::S_IFDIR {
            return Err(libc::ENOTDIR);
        }
        Ok(found)
    }

    /// From the root on.
    fn names(&self, node: u64) -> Result<Vec<&[u8]>, i32> {
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
        names.reverse();
        Ok(names)
    }

    /// The directory that it is in, and its name there.
    fn place(&self, node: u64) -> Result<(Fd, &[u8]), i32> {
        let names = self.names(node)?;
        let (name, above) = names.split_last().ok_or(libc::EBUSY)?;
        let mut directory = sys::open_beneath(self.root.raw(), b".", libc::O_PATH | libc::O_DIRECTORY, 0)?;
        let mut path = Vec::new();
        for part in above {
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

    /// What is under that name now. @param directory what `directory` has found for the parent
    pub fn look(&self, directory: &Fd, parent: u64, name: &[u8]) -> Result<(Fd, libc::statx), i32> {
        if let Some(layer) = &self.layer {
            let at = layer.walk(&self.root, &self.names(parent)?).map_err(gone)?;
            return layer.look(&self.root, &at, name).map(|found| (found.file, found.stat));
        }
        let found = sys::open_beneath(directory.raw(), name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
        let stat = sys::stat(&found)?;
        Ok((found, stat))
    }

    /// The file that the node is, or ESTALE: the host may have put another one in its place.
    /// @returns whether it is the host's, beside a layer: it is open to read only, whatever was asked for
    pub fn open(&self, node: u64, flags: i32) -> Result<(Fd, bool), i32> {
        if let (Some(layer), true) = (&self.layer, node != ROOT) {
            let names = self.names(node)?;
            let (name, above) = names.split_last().ok_or(libc::EBUSY)?;
            let at = layer.walk(&self.root, above).map_err(gone)?;
            let found = layer.look(&self.root, &at, name).map_err(gone)?;
            self.same(node, &found.stat)?;
            let file = layer.open_found(&at, name, &found, flags)?;
            cut(&file, flags)?;
            return Ok((file, found.is_hosts()));
        }
        if node == ROOT {
            let place = self.layer.as_ref().map_or(&self.root, Layer::root_of);
            return sys::open_beneath(place.raw(), b".", libc::O_RDONLY | libc::O_DIRECTORY, 0).map(|file| (file, false));
        }
        let (_, wanted) = self.find(node)?;
        let (directory, name) = self.place(node)?;
        open_same(&directory, name, flags, &wanted).map(|file| (file, false))
    }

    /// Of an open file, as the guest is told it.
    pub fn stat(&self, file: &Fd) -> Result<libc::statx, i32> {
        let stat = sys::stat(file)?;
        self.layer.as_ref().map_or(Ok(stat), |layer| layer.shown(file, stat))
    }

    /// What is to be watched for changes by the host.
    pub fn hosts_directory(&self, node: u64) -> Result<Fd, i32> {
        match &self.layer {
            None => self.directory(node),
            Some(layer) => {
                self.directory(node)?;
                layer.walk(&self.root, &self.names(node)?)?.lower.ok_or(libc::ENOENT)
            }
        }
    }

    /// All names in a directory, where there is a layer.
    pub fn list(&self, node: u64) -> Result<Vec<crate::layer::Entry>, i32> {
        let layer = self.layer.as_ref().ok_or(libc::ENOSYS)?;
        layer.list(&layer.walk(&self.root, &self.names(node)?).map_err(gone)?)
    }

    /// The node that has a name, if the guest's kernel knows it.
    pub fn node(&self, parent: u64, name: &[u8]) -> Option<u64> {
        self.names.get(&(parent, name.to_vec())).copied()
    }

    // Changes, in the layer if there is one

    /// What is to be written is in the layer from now on. @param data false: it is cut off next
    pub fn raise(&self, node: u64, data: bool, unnamed: Unnamed) -> Result<(), i32> {
        match &self.layer {
            Some(layer) => layer.raise(&self.root, &self.names(node)?, data, unnamed),
            None => Ok(()),
        }
    }

    /// @param make is told where, under which name, and with which mode
    pub fn make(&self, parent: u64, name: &[u8], mode: u32, make: &mut dyn FnMut(&Fd, &[u8], u32) -> Result<(), i32>, unnamed: Unnamed) -> Result<(), i32> {
        let directory = self.directory(parent)?;
        match &self.layer {
            Some(layer) => layer.make(&self.root, &self.names(parent)?, name, mode, make, unnamed),
            None => make(&directory, name, mode),
        }
    }

    /// @param directory it is to be one
    pub fn remove(&mut self, parent: u64, name: &[u8], directory: bool, unnamed: Unnamed) -> Result<(), i32> {
        let place = self.directory(parent)?;
        match &self.layer {
            Some(layer) => layer.remove(&self.root, &self.names(parent)?, name, directory, unnamed)?,
            None => {
                let (at, flags) = (text(name)?, if directory { libc::AT_REMOVEDIR } else { 0 });
                // SAFETY: a string that ends and outlives the call.
                check(i64::from(unsafe { libc::unlinkat(place.raw(), at.as_ptr(), flags) }))?;
            }
        }
        self.removed(parent, name);
        Ok(())
    }

    pub fn link(&self, from: u64, parent: u64, name: &[u8], unnamed: Unnamed) -> Result<(), i32> {
        let target = self.directory(parent)?;
        if let Some(layer) = &self.layer {
            return layer.link(&self.root, &self.names(from)?, &self.names(parent)?, name, unnamed);
        }
        let (source, old) = self.place(from)?;
        let (a, b) = (text(old)?, text(name)?);
        // SAFETY: strings that end and outlive the call. A link at the old name is not followed.
        check(i64::from(unsafe { libc::linkat(source.raw(), a.as_ptr(), target.raw(), b.as_ptr(), 0) })).map(|_| ())
    }

    pub fn rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32, unnamed: Unnamed) -> Result<(), i32> {
        let (source, target) = (self.directory(from.0)?, self.directory(to.0)?);
        if let Some(moved) = self.node(from.0, from.1) {
            self.room_for(self.growth(moved, to.1))?;
        }
        match &self.layer {
            Some(layer) => layer.rename(&self.root, (&self.names(from.0)?, from.1), (&self.names(to.0)?, to.1), flags, unnamed)?,
            None => {
                let (a, b) = (text(from.1)?, text(to.1)?);
                // SAFETY: as above.
                check(unsafe { libc::syscall(libc::SYS_renameat2, source.raw(), a.as_ptr(), target.raw(), b.as_ptr(), flags) })?;
            }
        }
        self.renamed(from, to, flags & libc::RENAME_EXCHANGE != 0);
        Ok(())
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
            Some(node) => {
                self.room_for(self.growth(*node, name))?;
                *node
            }
            None => {
                self.room_for(NODE_BYTES + name_bytes(name))?;
                let node = self.next;
                self.next += 1;
                self.bytes += NODE_BYTES;
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

    /// @throws ENFILE. Who wants no more is never refused.
    fn room_for(&self, more: usize) -> Result<(), i32> {
        if more > 0 && self.bytes + more > MOST_BYTES { Err(libc::ENFILE) } else { Ok(()) }
    }

    /// What this name takes beyond that which the node has, bytes.
    fn growth(&self, node: u64, name: &[u8]) -> usize {
        let has = self.nodes.get(&node).filter(|known| !known.name.is_empty()).map_or(0, |known| name_bytes(&known.name));
        name_bytes(name).saturating_sub(has)
    }

    pub fn forget(&mut self, node: u64, times: u64) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.lookups = known.lookups.saturating_sub(times);
            if known.lookups == 0 {
                self.clear(node);
                if let Some(known) = self.nodes.remove(&node) {
                    self.known.remove(&known.identity);
                    self.bytes -= NODE_BYTES;
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
            self.bytes += name_bytes(name);
            if let Some(former) = self.names.insert((parent, name.to_vec()), node) {
                self.bytes -= name_bytes(name);
                if let Some(former) = self.nodes.get_mut(&former) {
                    former.name = Vec::new();
                }
            }
        }
    }

    fn clear(&mut self, node: u64) {
        if let Some(known) = self.nodes.get_mut(&node) {
            let name = std::mem::take(&mut known.name);
            if !name.is_empty() {
                self.bytes -= name_bytes(&name);
                self.names.remove(&(known.parent, name));
            }
        }
    }

    /// As an earlier helper has told it.
    pub fn restore(&mut self, node: u64, parent: u64, identity: Identity, lookups: u64, name: &[u8]) -> Result<(), i32> {
        if node <= ROOT || node == u64::MAX || lookups == 0 {
            return Err(libc::EINVAL);
        }
        self.room_for(NODE_BYTES + name_bytes(name))?;
        self.forget(node, u64::MAX);
        if let Some(other) = self.known.get(&identity).copied() {
            self.forget(other, u64::MAX);
        }
        self.next = self.next.max(node + 1);
        self.known.insert(identity, node);
        self.nodes.insert(node, Node { parent, name: Vec::new(), identity, lookups });
        self.bytes += NODE_BYTES;
        if !name.is_empty() {
            self.put(node, parent, name);
        }
        Ok(())
    }

    /// What was there under that name is not any more.
    fn removed(&mut self, parent: u64, name: &[u8]) {
        if let Some(node) = self.names.get(&(parent, name.to_vec())).copied() {
            self.clear(node);
        }
    }

    /// @param exchange what was there under the new name has the old one now
    fn renamed(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), exchange: bool) {
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

fn name_bytes(name: &[u8]) -> usize {
    2 * (name.len() + 16)
}

/// A guest's kernel that is told ESTALE looks the name up again.
fn gone(errno: i32) -> i32 {
    match errno {
        libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV => libc::ESTALE,
        other => other,
    }
}

/// The file that was looked at, or ESTALE.
fn open_same(directory: &Fd, name: &[u8], flags: i32, wanted: &libc::statx) -> Result<Fd, i32> {
    let plain = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = sys::open_beneath(directory.raw(), name, flags & !libc::O_TRUNC | plain, 0)?;
    if identity(&sys::stat(&file)?) != identity(wanted) {
        return Err(libc::ESTALE);
    }
    cut(&file, flags)?;
    Ok(file)
}

fn cut(file: &Fd, flags: i32) -> Result<(), i32> {
    if flags & libc::O_TRUNC != 0 {
        // SAFETY: plain integers.
        uninterrupted(|| i64::from(unsafe { libc::ftruncate(file.raw(), 0) }))?;
    }
    Ok(())
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
        Tree::new(sys::open_absolute(b"/", libc::O_PATH).unwrap(), None)
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
        assert_eq!(tree.bytes, 0);
    }

    #[test]
    fn names_that_grow_need_room_as_new_ones_do() {
        let mut tree = tree();
        let a = tree.remember(ROOT, b"a", &stat(1)).unwrap();
        tree.remember(ROOT, b"bb", &stat(2)).unwrap();
        let taken = tree.bytes;
        tree.bytes = MOST_BYTES;
        assert_eq!(tree.remember(ROOT, b"c", &stat(3)), Err(libc::ENFILE));
        // Another name of the same file, and the same one.
        assert_eq!(tree.remember(ROOT, &[b'a'; 255], &stat(1)), Err(libc::ENFILE));
        assert_eq!(tree.remember(ROOT, b"b", &stat(1)), Ok(a));
        // It is refused before anything is renamed.
        assert_eq!(tree.rename((ROOT, b"b"), (ROOT, &[b'a'; 255]), 0, &|| 0), Err(libc::ENFILE));
        assert_eq!(tree.rename((ROOT, b"b"), (ROOT, b"no"), libc::RENAME_EXCHANGE, &|| 0), Err(libc::ENFILE));
        assert_eq!(tree.rename((ROOT, b"bb"), (ROOT, b"n"), 0, &|| 0), Err(libc::ENOENT));
        assert_eq!((name(&tree, a), tree.bytes), ((ROOT, &b"b"[..]), MOST_BYTES));
        tree.bytes = taken;
        assert_eq!(tree.remember(ROOT, &[b'a'; 255], &stat(1)), Ok(a));
        assert_eq!(tree.bytes, taken + 2 * 254);
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
