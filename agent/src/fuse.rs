//! FUSE's messages (linux/fuse.h, 7.34), as far as they pass by: what the guest's kernel has been told of files is noted here, because
//! it outlives whoever answers on the host. Whoever comes after is told it, and finds the files again by their names.

use std::collections::BTreeMap;

/// Of data in one WRITE or READ: the helper's (directory/src/wire.rs) are the same.
pub const MAX_IO: usize = 256 * 1024;
pub const IN_HEADER: usize = 40;
pub const OUT_HEADER: usize = 16;
/// What is told of a name (struct fuse_entry_out).
const ENTRY: usize = 128;
/// Numbers that no file of the host has: of what is said to be there so that it can be removed.
const MADE_UP: u64 = 1 << 62;
/// Not FUSE's: a change by the host, in the place of an error, from the helper (directory/src/watch.rs).
const NOTICE: u32 = 0x5354_4143;
/// FUSE_NOTIFY_INVAL_INODE, FUSE_NOTIFY_INVAL_ENTRY
const INVAL_INODE: u32 = 2;
const INVAL_ENTRY: u32 = 3;
/// What the kernel wants room for when it hands out a request.
pub const MAX_REQUEST: usize = IN_HEADER + 4096 + MAX_IO;
pub const MAX_ANSWER: usize = OUT_HEADER + MAX_IO;
/// Directories that a helper watches, at most (directory/src/watch.rs).
const MOST_WATCHED: usize = 2_048;
/// Of records in one message to a new helper.
const RESTORE_BYTES: usize = 48 * 1024;

pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const WRITE: u32 = 16;
    pub const RELEASE: u32 = 18;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const RELEASEDIR: u32 = 29;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    /// Not FUSE's: to the next helper.
    pub const RESTORE: u32 = 0x5354_4143;
}
use opcode::*;

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

pub fn opcode_of(request: &[u8]) -> u32 {
    u32_at(request, 4)
}

pub fn unique_of(request: &[u8]) -> u64 {
    u64_at(request, 8)
}

fn text_at(bytes: &[u8], at: usize) -> &[u8] {
    let rest = bytes.get(at..).unwrap_or(&[]);
    rest.split(|byte| *byte == 0).next().unwrap_or(&[])
}

pub fn failure(unique: u64, errno: i32) -> [u8; OUT_HEADER] {
    let mut answer = [0; OUT_HEADER];
    answer[..4].copy_from_slice(&(OUT_HEADER as u32).to_le_bytes());
    answer[4..8].copy_from_slice(&(-errno).to_le_bytes());
    answer[8..].copy_from_slice(&unique.to_le_bytes());
    answer
}

/// ASYNC_READ, ATOMIC_O_TRUNC, BIG_WRITES, AUTO_INVAL_DATA, DO_READDIRPLUS, READDIRPLUS_AUTO (not for a program that wants the names alone), PARALLEL_DIROPS, MAX_PAGES, HANDLE_KILLPRIV_V2. Locks are the guest's kernel's own.
const FLAGS: u32 = 1 | 1 << 3 | 1 << 5 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 18 | 1 << 22 | 1 << 28;

/// The answer to INIT. Nobody on the host needs to be asked, so that a mount never waits.
pub fn init(request: &[u8]) -> Vec<u8> {
    let mut answer = failure(unique_of(request), 0).to_vec();
    let numbers = |answer: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| answer.extend_from_slice(&v.to_le_bytes()));
    let read_ahead = u32_at(request, IN_HEADER + 8).min(MAX_IO as u32);
    // 16 requests of its own accord at once, congested at 12; times in ns; pages in one request.
    numbers(&mut answer, &[7, 34, read_ahead, u32_at(request, IN_HEADER + 12) & FLAGS, 16 | 12 << 16, MAX_IO as u32, 1, (MAX_IO / 4096) as u32]);
    answer.resize(OUT_HEADER + 64, 0);
    let length = answer.len() as u32;
    answer[..4].copy_from_slice(&length.to_le_bytes());
    answer
}

/// What may not be done twice. Of the others it is no harm.
pub fn once_only(request: &[u8]) -> bool {
    match opcode_of(request) {
        SYMLINK | MKNOD | MKDIR | LINK => true,
        CREATE => u32_at(request, IN_HEADER) & libc::O_EXCL as u32 != 0,
        _ => false,
    }
}

/// What was perhaps appended is not to be there twice: the second time it goes where the kernel has said that the file ends.
pub fn not_appending(request: &mut [u8]) {
    let at = IN_HEADER + 32;
    let flags = u32_at(request, at) & !(libc::O_APPEND as u32);
    if let (WRITE, Some(place)) = (opcode_of(request), request.get_mut(at..at + 4)) {
        place.copy_from_slice(&flags.to_le_bytes());
    }
}

/// The kernel has seen what these take away, so the second attempt finds it missing only if the first one was done.
pub fn missing_means_done(request: &[u8]) -> bool {
    matches!(opcode_of(request), UNLINK | RMDIR | RENAME | RENAME2)
}

struct Node {
    directory: bool,
    parent: u64,
    /// Empty once it was removed.
    name: Vec<u8>,
    inode: u64,
    generation: u64,
    lookups: u64,
    /// What the kernel knows of it came with a listing, and not when its name was looked up.
    listed: bool,
}

struct Open {
    node: u64,
    flags: u32,
    directory: bool,
}

/// What the kernel has been told of.
#[derive(Default)]
pub struct Table {
    nodes: BTreeMap<u64, Node>,
    names: BTreeMap<(u64, Vec<u8>), u64>,
    open: BTreeMap<u64, Open>,
}

impl Table {
    /// A request that was answered without an error, and its answer with header.
    /// @returns the nodes that the kernel is told of by it
    pub fn done(&mut self, request: &[u8], answer: &[u8]) -> Vec<u64> {
        let node = u64_at(request, 16);
        let (body, result) = (IN_HEADER, OUT_HEADER);
        match opcode_of(request) {
            LOOKUP | SYMLINK => return self.told(node, text_at(request, body), result, answer),
            MKDIR | LINK => return self.told(node, text_at(request, body + 8), result, answer),
            MKNOD => return self.told(node, text_at(request, body + 16), result, answer),
            READDIRPLUS => return self.listing(node, answer),
            CREATE => {
                let told = self.told(node, text_at(request, body + 16), result, answer);
                let made = Open { node: told.first().copied().unwrap_or(0), flags: u32_at(request, body), directory: false };
                self.open.insert(u64_at(answer, result + 128), made);
                return told;
            }
            UNLINK | RMDIR => {
                if let Some(gone) = self.names.get(&(node, text_at(request, body).to_vec())).copied() {
                    self.clear(gone);
                }
            }
            RENAME | RENAME2 => {
                let (skip, flags) = if opcode_of(request) == RENAME { (8, 0) } else { (16, u32_at(request, body + 8)) };
                let old = text_at(request, body + skip);
                let new = text_at(request, body + skip + old.len() + 1);
                self.renamed((node, old), (u64_at(request, body), new), flags & libc::RENAME_EXCHANGE != 0);
            }
            OPEN => {
                self.open.insert(u64_at(answer, result), Open { node, flags: u32_at(request, body), directory: false });
            }
            OPENDIR => {
                self.open.insert(u64_at(answer, result), Open { node, flags: 0, directory: true });
            }
            _ => {}
        }
        Vec::new()
    }

    pub fn knows(&self, parent: u64, name: &[u8]) -> bool {
        self.names.contains_key(&(parent, name.to_vec()))
    }

    /// The directory in which the kernel does not know that name. @param path from the root on
    pub fn unknown_in(&self, path: &[u8]) -> Option<u64> {
        let mut parts = path.split(|byte| *byte == b'/');
        let name = parts.next_back()?;
        let parent = parts.try_fold(1, |parent, part| self.names.get(&(parent, part.to_vec())).copied())?;
        Some(parent).filter(|parent| !self.knows(*parent, name))
    }

    /// Requests that the kernel does not wait for, or that fail for nobody.
    pub fn asked(&mut self, request: &[u8]) {
        match opcode_of(request) {
            FORGET => self.forget(u64_at(request, 16), u64_at(request, IN_HEADER)),
            BATCH_FORGET => {
                for each in request.get(IN_HEADER + 8..).unwrap_or(&[]).chunks_exact(16) {
                    self.forget(u64_at(each, 0), u64_at(each, 8));
                }
            }
            RELEASE | RELEASEDIR => {
                self.open.remove(&u64_at(request, IN_HEADER));
            }
            _ => {}
        }
    }

    /// @param at where in the answer the entry begins
    fn told(&mut self, parent: u64, name: &[u8], at: usize, answer: &[u8]) -> Vec<u64> {
        let number = u64_at(answer, at);
        if number <= 1 {
            return Vec::new();
        }
        let (generation, inode) = (u64_at(answer, at + 8), u64_at(answer, at + 40));
        let fresh = Node { directory: type_in(answer, at) == libc::S_IFDIR, parent, name: Vec::new(), inode, generation, lookups: 0, listed: false };
        let node = self.nodes.entry(number).or_insert(fresh);
        node.lookups = node.lookups.saturating_add(1);
        node.listed = false;
        self.put(number, parent, name);
        vec![number]
    }

    /// Entries, each before its inode (8 bytes), offset (8), length of its name (4), type (4), and the name, up to the next multiple of 8.
    fn listing(&mut self, parent: u64, answer: &[u8]) -> Vec<u64> {
        let mut all = Vec::new();
        let mut at = OUT_HEADER;
        loop {
            let start = at + ENTRY + 24;
            let length = u32_at(answer, at + ENTRY + 16) as usize;
            let name = match answer.get(start..start.saturating_add(length)) {
                Some(name) if length > 0 => name,
                _ => return all,
            };
            let told = self.told(parent, name, at, answer);
            for node in told {
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.listed = true;
                }
                all.push(node);
            }
            at = start + ((length + 7) & !7);
        }
    }

    /// Whether a program that opens it would believe a size that was told with a listing. Says so once: the kernel is to ask for it again.
    pub fn opened_as_listed(&mut self, request: &[u8]) -> Option<u64> {
        let number = u64_at(request, 16);
        let node = self.nodes.get_mut(&number).filter(|_| opcode_of(request) == OPEN)?;
        std::mem::take(&mut node.listed).then(|| number)
    }

    pub fn forget(&mut self, number: u64, times: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.lookups = node.lookups.saturating_sub(times);
            if node.lookups == 0 {
                self.clear(number);
                self.nodes.remove(&number);
            }
        }
    }

    fn put(&mut self, number: u64, parent: u64, name: &[u8]) {
        self.clear(number);
        if let Some(node) = self.nodes.get_mut(&number) {
            node.parent = parent;
            node.name = name.to_vec();
            if let Some(former) = self.names.insert((parent, name.to_vec()), number) {
                if let Some(former) = self.nodes.get_mut(&former) {
                    former.name.clear();
                }
            }
        }
    }

    fn clear(&mut self, number: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            let name = std::mem::take(&mut node.name);
            self.names.remove(&(node.parent, name));
        }
    }

    fn renamed(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), exchange: bool) {
        let at = |names: &BTreeMap<(u64, Vec<u8>), u64>, (parent, name): (u64, &[u8])| names.get(&(parent, name.to_vec())).copied();
        let moved = at(&self.names, from);
        let replaced = at(&self.names, to).filter(|other| Some(*other) != moved);
        if let Some(number) = replaced {
            self.clear(number);
        }
        if let Some(number) = moved {
            self.put(number, to.0, to.1);
        }
        if let (Some(number), true) = (replaced, exchange) {
            self.put(number, from.0, from.1);
        }
    }

    /// Messages that tell all of it to somebody new.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = Vec::new();
        let mut add = |record: Vec<u8>| match all.last_mut() {
            Some(last) if last.len() + record.len() <= RESTORE_BYTES => last.extend_from_slice(&record),
            _ => all.push([&[0; IN_HEADER][..], &record].concat()),
        };
        for (number, node) in &self.nodes {
            let mut record = 1u32.to_le_bytes().to_vec();
            for value in [*number, node.parent, node.inode, node.generation, node.lookups] {
                record.extend_from_slice(&value.to_le_bytes());
            }
            record.extend_from_slice(&(node.name.len() as u32).to_le_bytes());
            record.extend_from_slice(&node.name);
            add(record);
        }
        for (number, open) in &self.open {
            let mut record = 2u32.to_le_bytes().to_vec();
            record.extend_from_slice(&number.to_le_bytes());
            record.extend_from_slice(&open.node.to_le_bytes());
            record.extend_from_slice(&open.flags.to_le_bytes());
            record.extend_from_slice(&u32::from(open.directory).to_le_bytes());
            add(record);
        }
        // What has happened in them meanwhile the next one is to tell of.
        let directories: Vec<u64> = self.nodes.iter().filter(|(_, node)| node.directory).map(|(number, _)| *number).collect();
        let newest = directories.iter().copied().skip(directories.len().saturating_sub(MOST_WATCHED));
        for number in Some(1).filter(|_| !self.nodes.is_empty()).into_iter().chain(newest) {
            add([&3u32.to_le_bytes()[..], &number.to_le_bytes()].concat());
        }
        for message in &mut all {
            let length = message.len() as u32;
            message[..4].copy_from_slice(&length.to_le_bytes());
            message[4..8].copy_from_slice(&RESTORE.to_le_bytes());
        }
        all
    }
}

/// The type of what an entry tells of, as in a mode. @param at where the entry begins
fn type_in(answer: &[u8], at: usize) -> u32 {
    u32_at(answer, at + 100) & libc::S_IFMT
}

/// The thread that asks.
pub fn thread_of(request: &[u8]) -> u32 {
    u32_at(request, 32)
}

/// The name in a request that makes or looks up something, and the type of what it makes.
pub fn made_by(request: &[u8]) -> Option<(&[u8], u32)> {
    let (skip, kind) = match opcode_of(request) {
        LOOKUP => (0, 0),
        SYMLINK => (0, libc::S_IFLNK),
        MKDIR => (8, libc::S_IFDIR),
        MKNOD => (16, libc::S_IFREG),
        _ => return None,
    };
    Some((text_at(request, IN_HEADER + skip), kind))
}

/// The name in a request that looks up or removes something.
pub fn named_in(request: &[u8]) -> &[u8] {
    text_at(request, IN_HEADER)
}

/// The same request with another body: what is only looked at has the same answer as what is done.
fn instead(request: &[u8], opcode: u32, body: &[u8]) -> Vec<u8> {
    let mut other = [request.get(..IN_HEADER).unwrap_or(&[]), body].concat();
    let length = other.len() as u32;
    other[..4].copy_from_slice(&length.to_le_bytes());
    other[4..8].copy_from_slice(&opcode.to_le_bytes());
    other
}

pub fn look_up_instead(request: &[u8], name: &[u8]) -> Vec<u8> {
    instead(request, LOOKUP, &[name, b"\0"].concat())
}

pub fn look_at_instead(request: &[u8]) -> Vec<u8> {
    instead(request, GETATTR, &[0; 16])
}

/// Whether the answer to a look-up tells of something of that type.
pub fn tells_of(answer: &[u8], kind: u32) -> bool {
    type_in(answer, OUT_HEADER) == kind
}

/// The answer to a look-up of what the host has no more, for the kernel to remove it. @param count a new one each time
pub fn made_up(unique: u64, count: u64, kind: u32) -> Vec<u8> {
    let mut answer = failure(unique, 0).to_vec();
    answer.resize(OUT_HEADER + ENTRY, 0);
    let mut put = |at: usize, bytes: &[u8]| answer[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &((OUT_HEADER + ENTRY) as u32).to_le_bytes());
    put(OUT_HEADER, &(MADE_UP + count).to_le_bytes());
    put(OUT_HEADER + 40, &(MADE_UP + count).to_le_bytes());
    put(OUT_HEADER + 100, &(kind | 0o700).to_le_bytes());
    put(OUT_HEADER + 104, &(if kind == libc::S_IFDIR { 2u32 } else { 1 }).to_le_bytes());
    answer
}

/// What the helper tells of its own accord.
pub fn change_in(answer: &[u8]) -> Option<crate::replay::Change> {
    let path = answer.get(OUT_HEADER + 8..).filter(|path| u32_at(answer, 4) == NOTICE && path.len() <= 4096)?;
    Some(crate::replay::Change { kind: u32_at(answer, OUT_HEADER), mode: u32_at(answer, OUT_HEADER + 4) & libc::S_IFMT, path: path.to_vec(), unknown: None })
}

/// To the kernel, of its own accord: what it knows of the node (not what it has read of it) holds no longer.
pub fn outdated(node: u64) -> [u8; OUT_HEADER + 24] {
    let mut message = [0; OUT_HEADER + 24];
    message[..4].copy_from_slice(&(OUT_HEADER as u32 + 24).to_le_bytes());
    message[4..8].copy_from_slice(&INVAL_INODE.to_le_bytes());
    message[OUT_HEADER..OUT_HEADER + 8].copy_from_slice(&node.to_le_bytes());
    message[OUT_HEADER + 8..OUT_HEADER + 16].copy_from_slice(&(-1i64).to_le_bytes());
    message
}

/// The same of a name: it is looked up again.
pub fn outdated_name(parent: u64, name: &[u8]) -> Vec<u8> {
    let mut message = vec![0; OUT_HEADER];
    message.extend_from_slice(&parent.to_le_bytes());
    message.extend_from_slice(&(name.len() as u32).to_le_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(name);
    message.push(0);
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_le_bytes());
    message[4..8].copy_from_slice(&INVAL_ENTRY.to_le_bytes());
    message
}

/// The kernel will not have what it was told of: it had stopped waiting.
pub fn forget_message(node: u64) -> Vec<u8> {
    let mut message = vec![0; IN_HEADER + 8];
    message[..4].copy_from_slice(&(IN_HEADER as u32 + 8).to_le_bytes());
    message[4..8].copy_from_slice(&FORGET.to_le_bytes());
    message[16..24].copy_from_slice(&node.to_le_bytes());
    message[IN_HEADER..].copy_from_slice(&1u64.to_le_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
        let mut request = vec![0; IN_HEADER];
        request[4..8].copy_from_slice(&opcode.to_le_bytes());
        request[16..24].copy_from_slice(&node.to_le_bytes());
        request.extend_from_slice(body);
        request
    }

    fn entry(node: u64) -> Vec<u8> {
        let mut answer = vec![0; OUT_HEADER + 144];
        answer[OUT_HEADER..OUT_HEADER + 8].copy_from_slice(&node.to_le_bytes());
        answer[OUT_HEADER + 128..OUT_HEADER + 136].copy_from_slice(&(node + 100).to_le_bytes());
        answer
    }

    #[test]
    fn names_follow_what_the_kernel_does() {
        let mut table = Table::default();
        table.done(&request(LOOKUP, 1, b"dir\0"), &entry(2));
        table.done(&request(CREATE, 2, &[&[2, 0, 0, 0][..], &[0; 12], b"new\0"].concat()), &entry(3));
        let name = |table: &Table, node: u64| (table.nodes[&node].parent, String::from_utf8(table.nodes[&node].name.clone()).unwrap());
        assert_eq!(name(&table, 3), (2, "new".into()));
        assert_eq!([&b"dir/new"[..], b"dir/other", b"other", b"none/new"].map(|path| table.unknown_in(path)), [None, Some(2), Some(1), None]);
        assert_eq!((table.open[&103].node, table.open[&103].flags), (3, 2));
        table.done(&request(RENAME2, 2, &[&1u64.to_le_bytes()[..], &[0; 8], b"new\0moved\0"].concat()), &[0; 16]);
        assert_eq!(name(&table, 3), (1, "moved".into()));
        table.done(&request(RENAME, 1, &[&1u64.to_le_bytes()[..], b"moved\0dir\0"].concat()), &[0; 16]);
        assert_eq!((name(&table, 3), name(&table, 2)), ((1, "dir".into()), (1, "".into())));
        table.done(&request(UNLINK, 1, b"dir\0"), &[0; 16]);
        assert_eq!(name(&table, 3).1, "");
        let told = table.messages().concat();
        assert_eq!((told.len(), u32_at(&told, 0) as usize), (40 + 2 * 48 + 28 + 12, told.len()));
        table.asked(&request(RELEASE, 3, &103u64.to_le_bytes()));
        table.asked(&request(BATCH_FORGET, 0, &[2u64, 3, 1, 2, 1].map(u64::to_le_bytes).concat()));
        assert!(table.nodes.is_empty() && table.names.is_empty() && table.open.is_empty());
        assert!(table.messages().is_empty());
    }

    #[test]
    fn what_is_done_once_more_only_looks() {
        let make = request(MKNOD, 2, &[&[0; 16][..], b"file\0"].concat());
        let (name, kind) = made_by(&make).unwrap();
        assert_eq!((name, kind), (&b"file"[..], libc::S_IFREG));
        let look = look_up_instead(&make, name);
        assert_eq!((opcode_of(&look), u32_at(&look, 0), u64_at(&look, 16), &look[IN_HEADER..]), (LOOKUP, 45, 2, &b"file\0"[..]));
        let touch = look_at_instead(&request(SETATTR, 3, &[9; 88]));
        assert_eq!((opcode_of(&touch), touch.len(), u64_at(&touch, 16), &touch[IN_HEADER..]), (GETATTR, 56, 3, &[0; 16][..]));
        assert!(tells_of(&made_up(7, 1, libc::S_IFDIR), libc::S_IFDIR) && unique_of(&made_up(7, 1, 0)) == 7);
        // Of a directory the next helper is told that it is one: of many the newest.
        let mut table = Table::default();
        let mut answer = entry(2);
        answer[OUT_HEADER + 100..OUT_HEADER + 104].copy_from_slice(&libc::S_IFDIR.to_le_bytes());
        table.done(&request(LOOKUP, 1, b"d\0"), &answer);
        assert_eq!(table.messages().concat()[IN_HEADER + 49..], [&3u32.to_le_bytes()[..], &1u64.to_le_bytes(), &3u32.to_le_bytes(), &2u64.to_le_bytes()].concat()[..]);
        for node in 3..5_000u64 {
            answer[OUT_HEADER..OUT_HEADER + 8].copy_from_slice(&node.to_le_bytes());
            table.done(&request(LOOKUP, 1, format!("{}\0", node).as_bytes()), &answer);
        }
        let told = table.messages().into_iter().map(|message| message[IN_HEADER..].to_vec()).collect::<Vec<_>>().concat();
        assert_eq!(told[told.len() - 2_048 * 12..][..12], [&3u32.to_le_bytes()[..], &2_952u64.to_le_bytes()].concat()[..]);
    }

    #[test]
    fn a_listing_tells_of_each_name_once() {
        let listed = |node: u64, name: &[u8]| {
            let padding = vec![0; (8 - name.len() % 8) % 8];
            let head = [&[9; 16][..], &(name.len() as u32).to_le_bytes(), &[0; 4]].concat();
            [&entry(node)[OUT_HEADER..OUT_HEADER + ENTRY], &head, name, &padding].concat()
        };
        let answer = [&[0; OUT_HEADER][..], &listed(0, b"."), &listed(5, b"eight888"), &listed(6, b"x")].concat();
        let mut table = Table::default();
        table.done(&request(LOOKUP, 1, b"d\0"), &entry(2));
        assert_eq!(table.done(&request(READDIRPLUS, 2, &[0; 40]), &answer), [5, 6]);
        assert_eq!((table.nodes[&5].name.as_slice(), table.nodes[&6].parent), (&b"eight888"[..], 2));
        // What was listed is asked for again by whoever opens it; what was looked up is not.
        table.done(&request(LOOKUP, 2, b"x\0"), &entry(6));
        let opened = |table: &mut Table, node: u64| table.opened_as_listed(&request(OPEN, node, &[0; 8]));
        assert_eq!([opened(&mut table, 5), opened(&mut table, 5), opened(&mut table, 6)], [Some(5), None, None]);
        table.forget(5, 1);
        table.forget(6, 2);
        assert_eq!(table.nodes.len(), 1);
        for length in 0..answer.len() {
            Table::default().done(&request(READDIRPLUS, 2, &[0; 40]), &answer[..length]);
        }
    }

    #[test]
    fn what_was_perhaps_appended_has_its_place_the_second_time() {
        let body = [&[0; 32][..], &(libc::O_APPEND | libc::O_WRONLY).to_le_bytes(), &[0; 4], b"more"].concat();
        let mut write = request(WRITE, 3, &body);
        not_appending(&mut write);
        assert_eq!(u32_at(&write, IN_HEADER + 32), libc::O_WRONLY as u32);
        let mut other = request(OPEN, 3, &body);
        not_appending(&mut other);
        assert_eq!(other, request(OPEN, 3, &body));
    }

    #[test]
    fn a_cut_request_is_no_fault() {
        let mut table = Table::default();
        for opcode in 0..60 {
            for length in 0..IN_HEADER + 20 {
                let whole = request(opcode, 1, &[7; 20]);
                table.done(&whole[..length], &[1; 20]);
                not_appending(&mut whole[..length].to_vec());
                table.asked(&whole[..length]);
            }
        }
    }
}
