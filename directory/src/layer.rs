//! A copy's own layer over a directory of the host. What the guest writes, makes and removes is in the layer; everything else is the host's, as it
//! is at that moment. The host's directory itself is mounted read only here, so a fault in this file cannot reach it either.
//!
//! The layer is a directory with `upper`, where each file that was written lies under its own name, `index`, where those lie once more that the
//! host has under several names, and `work`, where what is put into the other two is made first. An attribute says what a file of `upper` is
//! besides itself (`Note`): nothing, because it was removed; another's later state, whose number it keeps; a directory that has more below it. Files
//! in it can always be opened by their user, whatever mode the guest has given them: that one is in the note.

use crate::sys::{self, check, text, uninterrupted, Fd};
use crate::tree::{identity, Identity};
use crate::wire::Body;
use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::collections::HashSet;
use std::hash::Hasher;
use std::os::raw::c_void;

type Done<T> = Result<T, i32>;

/// The guest neither sees it nor sets it.
pub const NOTE: &[u8] = b"user.stacyvm";
const NOTE_KEY: &[u8] = b"user.stacyvm\0";
/// Of a path in it, and the numbers before.
const MOST_NOTE: usize = 4_096 + 64;
/// Numbers of files that the host does not have are beyond all that it has.
const OWN_NUMBERS: u64 = 1 << 61;
/// What an entry costs at least: whoever makes nothing but names fills a disk, too.
const ENTRY_COST: u64 = 4_096;
const PART: usize = 256 * 1024;
const LOOK: i32 = libc::O_PATH | libc::O_NOFOLLOW;
const PLAIN: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
const DIRECTORY: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;

/// What lies below a directory of the layer.
#[derive(Clone, PartialEq, Debug)]
enum Below {
    Nothing,
    /// The one of the same name in what lies below its parent.
    Same,
    /// By its way from the root: it was renamed.
    At(Vec<u8>),
}

/// What of a file of the host stays as it was.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Origin {
    inode: u64,
    device: (u32, u32),
    made: (u64, u32),
}

#[derive(Clone, PartialEq, Debug)]
struct Note {
    /// There is nothing under this name.
    gone: bool,
    /// Where it is not the file's own.
    mode: Option<u32>,
    origin: Option<Origin>,
    /// How many names the file has, where that is not to be seen; 0: it is.
    links: u32,
    below: Below,
}

impl Note {
    /// Of a file without one: it was made here.
    const NONE: Note = Note { gone: false, mode: None, origin: None, links: 0, below: Below::Nothing };

    fn write(&self) -> Vec<u8> {
        let (below, way) = match &self.below {
            Below::Nothing => (0, &[][..]),
            Below::Same => (1, &[][..]),
            Below::At(way) => (2, way.as_slice()),
        };
        let origin = self.origin.unwrap_or(Origin { inode: 0, device: (0, 0), made: (0, 0) });
        let mut bytes = Vec::new();
        for number in [u32::from(self.gone), self.mode.unwrap_or(u32::MAX), self.links, below, origin.device.0, origin.device.1, origin.made.1] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&origin.inode.to_le_bytes());
        bytes.extend_from_slice(&origin.made.0.to_le_bytes());
        bytes.extend_from_slice(way);
        bytes
    }

    fn read(bytes: &[u8]) -> Done<Note> {
        let mut body = Body(bytes);
        let (gone, mode, links, below) = (body.u32()?, body.u32()?, body.u32()?, body.u32()?);
        let (device, nanoseconds) = ((body.u32()?, body.u32()?), body.u32()?);
        let origin = Origin { inode: body.u64()?, device, made: (body.u64()?, nanoseconds) };
        Ok(Note {
            gone: gone != 0,
            mode: Some(mode).filter(|mode| *mode != u32::MAX),
            origin: Some(origin).filter(|origin| origin.inode != 0),
            links,
            below: match below {
                0 => Below::Nothing,
                1 => Below::Same,
                _ => Below::At(body.0.to_vec()),
            },
        })
    }

    fn of(file: &Fd) -> Done<Note> {
        let mut room = [0u8; MOST_NOTE];
        // SAFETY: a name that ends, and room for as many bytes as said.
        match check(unsafe { libc::fgetxattr(file.raw(), NOTE_KEY.as_ptr().cast(), room.as_mut_ptr().cast::<c_void>(), room.len()) } as i64) {
            Ok(got) => Note::read(&room[..got as usize]),
            Err(libc::ENODATA) => Ok(Note::NONE),
            Err(errno) => Err(errno),
        }
    }

    fn put(&self, file: &Fd) -> Done<()> {
        let bytes = self.write();
        // SAFETY: name and value outlive the call.
        check(i64::from(unsafe { libc::fsetxattr(file.raw(), NOTE_KEY.as_ptr().cast(), bytes.as_ptr().cast(), bytes.len(), 0) })).map(|_| ())
    }
}

/// A directory, as both sides have it: one of them at least.
pub struct Merged {
    upper: Option<Fd>,
    pub lower: Option<Fd>,
    /// Of the lower one, from the root.
    way: Vec<u8>,
}

/// What is under a name.
pub struct Found {
    /// Only names it, unless it is a file or directory of the layer.
    pub file: Fd,
    /// With the number of the host's file whose later state it is.
    pub stat: libc::statx,
    note: Note,
    place: Place,
}

#[derive(Clone, PartialEq)]
enum Place {
    Host,
    Upper,
    /// Another name of it was written, this one is the host's still.
    Index(Vec<u8>),
}

impl Found {
    pub fn is_hosts(&self) -> bool {
        self.place == Place::Host
    }

    fn kind(&self) -> u32 {
        kind(&self.stat)
    }
}

pub struct Entry {
    /// Where it stands in a listing, whatever else is in it by then: a listing that goes on leaves nothing out.
    pub place: u64,
    pub name: Vec<u8>,
    pub inode: u64,
    pub kind: u8,
}

/// The same for the same name, in every helper. Two names of one place would be 2^-63 of bad luck, and the second one left out.
fn place_of(name: &[u8]) -> u64 {
    match name {
        b"." => 1,
        b".." => 2,
        _ => {
            let mut hasher = DefaultHasher::new();
            hasher.write(name);
            // An offset is a signed number to the kernel, and the first ones are taken.
            (hasher.finish() >> 1).max(3)
        }
    }
}

/// Bytes of files that have no name any more and are open.
pub type Unnamed<'a> = &'a dyn Fn() -> u64;

pub struct Layer {
    upper: Fd,
    work: Fd,
    index: Fd,
    mount: u64,
    /// Bytes that it may take on disk.
    limit: u64,
    /// At most so many it takes: what was freed is found out when there seems to be no room.
    used: Cell<u64>,
    freed: Cell<bool>,
    next: Cell<u64>,
}

impl Layer {
    /// @param root of the host's directory
    /// @param place of the layer, which is this process's user's
    pub fn open(root: &Fd, place: &Fd, limit: u64) -> Done<Layer> {
        let part = |name: &'static [u8]| -> Done<Fd> {
            let path = text(name)?;
            // SAFETY: a string that ends and outlives the call.
            match check(i64::from(unsafe { libc::mkdirat(place.raw(), path.as_ptr(), 0o700) })) {
                Ok(_) | Err(libc::EEXIST) => sys::open_beneath(place.raw(), name, libc::O_RDONLY | libc::O_DIRECTORY, 0),
                Err(errno) => Err(errno),
            }
        };
        let (upper, work, index) = (part(b"upper")?, part(b"work")?, part(b"index")?);
        // What an earlier process has begun.
        for entry in entries(&work)? {
            purge(&work, &entry.name)?;
        }
        let mount = sys::mount_id(&upper)?;
        let layer = Layer { upper, work, index, mount, limit, used: Cell::new(limit), freed: Cell::new(true), next: Cell::new(0) };
        if Note::of(&layer.upper)? == Note::NONE {
            let stat = sys::stat(root)?;
            layer.dress(&layer.upper, &stat, Below::Same)?;
        }
        Ok(layer)
    }

    // Where things are

    /// @param names from the root on
    pub fn walk(&self, root: &Fd, names: &[&[u8]]) -> Done<Merged> {
        let top = |fd: &Fd| sys::open_beneath(fd.raw(), b".", libc::O_PATH | libc::O_DIRECTORY, 0);
        let mut at = Merged { upper: Some(top(&self.upper)?), lower: Some(top(root)?), way: Vec::new() };
        for name in names {
            at = self.enter(root, &at, name)?;
        }
        Ok(at)
    }

    pub fn enter(&self, root: &Fd, at: &Merged, name: &[u8]) -> Done<Merged> {
        let same = |way: &[u8]| -> Vec<u8> { if way.is_empty() { name.to_vec() } else { [way, b"/", name].concat() } };
        let beneath = |lower: &Option<Fd>| match lower {
            Some(lower) => sys::open_beneath(lower.raw(), name, DIRECTORY, 0),
            None => Err(libc::ENOENT),
        };
        let (file, stat, note) = match self.in_upper(at, name)? {
            Some(found) => found,
            None => return Ok(Merged { upper: None, lower: Some(beneath(&at.lower)?), way: same(&at.way) }),
        };
        if note.gone {
            return Err(libc::ENOENT);
        }
        if kind(&stat) != libc::S_IFDIR {
            return Err(libc::ENOTDIR);
        }
        let (lower, way) = match note.below {
            Below::Nothing => (None, Vec::new()),
            Below::Same => (beneath(&at.lower).ok(), same(&at.way)),
            Below::At(way) => (sys::open_beneath(root.raw(), &way, DIRECTORY, 0).ok(), way),
        };
        Ok(Merged { upper: Some(file), lower, way })
    }

    pub fn look(&self, root: &Fd, at: &Merged, name: &[u8]) -> Done<Found> {
        if let Some((file, mut stat, note)) = self.in_upper(at, name)? {
            if note.gone {
                return Err(libc::ENOENT);
            }
            shown(&mut stat, &note);
            if note.below != Below::Nothing {
                let own = self.enter(root, at, name)?;
                self.both(&own, &mut stat);
            }
            return Ok(Found { file, stat, note, place: Place::Upper });
        }
        let lower = at.lower.as_ref().ok_or(libc::ENOENT)?;
        let file = sys::open_beneath(lower.raw(), name, LOOK, 0)?;
        let stat = sys::stat(&file)?;
        if kind(&stat) == libc::S_IFREG && stat.stx_nlink > 1 {
            let key = key_of(&identity(&stat));
            if let Some((file, mut stat, note)) = self.entry_in(&self.index, &key)? {
                shown(&mut stat, &note);
                return Ok(Found { file, stat, note, place: Place::Index(key) });
            }
        }
        Ok(Found { file, stat, note: Note::NONE, place: Place::Host })
    }

    /// The directory itself, by no name.
    pub fn root(&self, root: &Fd) -> Done<(Fd, libc::statx)> {
        let own = self.walk(root, &[])?;
        let mut stat = sys::stat(&self.upper)?;
        shown(&mut stat, &Note::of(&self.upper)?);
        self.both(&own, &mut stat);
        Ok((sys::copy(&self.upper)?, stat))
    }

    /// Of an open file of either side: the layer is a mount of its own.
    pub fn shown(&self, file: &Fd, mut stat: libc::statx) -> Done<libc::statx> {
        if sys::mount_id(file)? == self.mount {
            shown(&mut stat, &Note::of(file)?);
        }
        Ok(stat)
    }

    pub fn root_of(&self) -> &Fd {
        &self.upper
    }

    /// What the host changes in a directory is news there, too.
    fn both(&self, own: &Merged, stat: &mut libc::statx) {
        stat.stx_nlink = 1;
        if let Some(lower) = own.lower.as_ref().and_then(|lower| sys::stat(lower).ok()) {
            let later = |a: libc::statx_timestamp, b: libc::statx_timestamp| if (a.tv_sec, a.tv_nsec) < (b.tv_sec, b.tv_nsec) { b } else { a };
            stat.stx_mtime = later(stat.stx_mtime, lower.stx_mtime);
            stat.stx_ctime = later(stat.stx_ctime, lower.stx_ctime);
        }
    }

    /// The file that was found, or ESTALE. One of the host's is opened to read only, whatever is asked for.
    pub fn open_found(&self, at: &Merged, name: &[u8], found: &Found, flags: i32) -> Done<Fd> {
        let flags = flags & !libc::O_TRUNC | PLAIN;
        let file = match (&found.place, &at.upper, &at.lower) {
            (Place::Index(key), _, _) => sys::open_beneath(self.index.raw(), key, flags, 0)?,
            (Place::Upper, Some(upper), _) => sys::open_beneath(upper.raw(), name, flags, 0)?,
            (_, _, Some(lower)) => sys::open_beneath(lower.raw(), name, flags & !libc::O_ACCMODE, 0)?,
            _ => return Err(libc::ESTALE),
        };
        if identity(&sys::stat(&file)?) != identity(&sys::stat(&found.file)?) {
            return Err(libc::ESTALE);
        }
        Ok(file)
    }

    fn in_upper(&self, at: &Merged, name: &[u8]) -> Done<Option<(Fd, libc::statx, Note)>> {
        at.upper.as_ref().map_or(Ok(None), |upper| self.entry_in(upper, name))
    }

    fn entry_in(&self, directory: &Fd, name: &[u8]) -> Done<Option<(Fd, libc::statx, Note)>> {
        match sys::open_beneath(directory.raw(), name, libc::O_RDONLY | PLAIN, 0) {
            Ok(file) => {
                let (stat, note) = (sys::stat(&file)?, Note::of(&file)?);
                Ok(Some((file, stat, note)))
            }
            Err(libc::ENOENT) => Ok(None),
            Err(libc::ELOOP) => {
                let link = sys::open_beneath(directory.raw(), name, LOOK, 0)?;
                let stat = sys::stat(&link)?;
                Ok(Some((link, stat, Note::NONE)))
            }
            Err(errno) => Err(errno),
        }
    }

    /// All names in it, each once, with `.` and `..`.
    pub fn list(&self, at: &Merged) -> Done<Vec<Entry>> {
        let dots = [&b"."[..], b".."].map(|name| Entry { place: place_of(name), name: name.to_vec(), inode: 0xffff_ffff, kind: libc::DT_DIR });
        let mut all: Vec<Entry> = Vec::from(dots);
        let mut hidden = HashSet::new();
        if let Some(upper) = &at.upper {
            for mut entry in entries(&readable(upper)?)? {
                hidden.insert(entry.name.clone());
                match self.entry_in(upper, &entry.name)? {
                    Some((_, _, note)) if note.gone => continue,
                    Some((_, mut stat, note)) => {
                        shown(&mut stat, &note);
                        entry.inode = stat.stx_ino;
                    }
                    None => continue,
                }
                all.push(entry);
            }
        }
        if let Some(lower) = &at.lower {
            all.extend(entries(&readable(lower)?)?.into_iter().filter(|entry| !hidden.contains(&entry.name)));
        }
        all.sort_by_key(|entry| entry.place);
        Ok(all)
    }

    fn is_empty(&self, at: &Merged) -> Done<bool> {
        Ok(self.list(at)?.len() == 2)
    }

    // What it may take

    /// @throws ENOSPC
    pub fn charge(&self, bytes: u64, unnamed: Unnamed) -> Done<()> {
        if self.used.get().saturating_add(bytes) > self.limit && self.freed.replace(false) {
            let mut seen = HashSet::new();
            self.used.set(weigh(&self.upper, &mut seen)?.saturating_add(unnamed()));
        }
        let used = self.used.get().saturating_add(bytes);
        if used > self.limit {
            return Err(libc::ENOSPC);
        }
        self.used.set(used);
        Ok(())
    }

    /// Of what was charged so much was not taken.
    pub fn give_back(&self, bytes: u64) {
        self.used.set(self.used.get().saturating_sub(bytes));
    }

    /// Something is gone, or shorter.
    pub fn freed(&self) {
        self.freed.set(true);
    }

    /// Bytes in all, and those that are left.
    pub fn room(&self, unnamed: Unnamed) -> (u64, u64) {
        let _ = self.charge(0, unnamed);
        (self.limit, self.limit.saturating_sub(self.used.get()))
    }

    // What is brought into it

    /// @param data of a file that is cut off next nothing needs to be copied
    pub fn raise(&self, root: &Fd, names: &[&[u8]], data: bool, unnamed: Unnamed) -> Done<()> {
        let (name, above) = match names.split_last() {
            Some(split) => split,
            None => return Ok(()),
        };
        let at = self.raise_way(root, above, unnamed)?;
        let found = self.look(root, &at, name)?;
        match (&found.place, found.kind()) {
            (Place::Upper, _) => Ok(()),
            (Place::Index(key), _) => {
                let (from, to) = (text(key)?, text(name)?);
                // SAFETY: strings that end and outlive the call.
                check(i64::from(unsafe { libc::linkat(self.index.raw(), from.as_ptr(), raw(&at.upper), to.as_ptr(), 0) })).map(|_| ())
            }
            (Place::Host, libc::S_IFDIR) => self.raise_directory(&at, name, unnamed),
            (Place::Host, libc::S_IFREG) => self.raise_file(&at, name, &found, data, unnamed),
            (Place::Host, libc::S_IFLNK) => self.raise_link(&at, name, &found, unnamed),
            _ => Err(libc::EPERM),
        }
    }

    /// Every directory on the way.
    pub fn raise_way(&self, root: &Fd, names: &[&[u8]], unnamed: Unnamed) -> Done<Merged> {
        let mut at = self.walk(root, &[])?;
        for name in names {
            let mut next = self.enter(root, &at, name)?;
            if next.upper.is_none() {
                self.raise_directory(&at, name, unnamed)?;
                next = self.enter(root, &at, name)?;
            }
            at = next;
        }
        Ok(at)
    }

    fn raise_directory(&self, at: &Merged, name: &[u8], unnamed: Unnamed) -> Done<()> {
        let lower = at.lower.as_ref().ok_or(libc::ENOENT)?;
        let source = sys::open_beneath(lower.raw(), name, DIRECTORY, 0)?;
        let stat = sys::stat(&source)?;
        self.charge(ENTRY_COST, unnamed)?;
        let made = self.temporary();
        make_directory(&self.work, &made, 0o700)?;
        let file = sys::open_beneath(self.work.raw(), &made, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        self.dress(&file, &stat, Below::Same)?;
        if let Ok(readable) = readable(&source) {
            copy_attributes(&readable, &file)?;
        }
        set_times(&file, &stat)?;
        self.place_at(&made, at, name, libc::RENAME_NOREPLACE)
    }

    fn raise_file(&self, at: &Merged, name: &[u8], found: &Found, data: bool, unnamed: Unnamed) -> Done<()> {
        let source = self.open_found(at, name, found, libc::O_RDONLY)?;
        let stat = sys::stat(&source)?;
        self.charge(ENTRY_COST + if data { stat.stx_blocks.saturating_mul(512) } else { 0 }, unnamed)?;
        let made = self.temporary();
        let file = sys::open_beneath(self.work.raw(), &made, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600)?;
        if data {
            copy_data(&source, &file, stat.stx_size)?;
        }
        copy_attributes(&source, &file)?;
        self.dress(&file, &stat, Below::Nothing)?;
        set_times(&file, &stat)?;
        if stat.stx_nlink > 1 {
            let (from, key) = (text(&made)?, text(&key_of(&identity(&stat)))?);
            // SAFETY: strings that end and outlive the call.
            check(i64::from(unsafe { libc::linkat(self.work.raw(), from.as_ptr(), self.index.raw(), key.as_ptr(), 0) }))?;
        }
        self.place_at(&made, at, name, libc::RENAME_NOREPLACE)
    }

    /// It can have no note, so it is another file from now on.
    fn raise_link(&self, at: &Merged, name: &[u8], found: &Found, unnamed: Unnamed) -> Done<()> {
        let mut room = [0u8; 4_096];
        // SAFETY: an empty path that ends, and room for as many bytes as said.
        let length = check(unsafe { libc::readlinkat(found.file.raw(), b"\0".as_ptr().cast(), room.as_mut_ptr().cast(), room.len()) } as i64)? as usize;
        self.charge(ENTRY_COST, unnamed)?;
        let made = self.temporary();
        let (target, path) = (text(&room[..length])?, text(&made)?);
        // SAFETY: strings that end and outlive the call.
        check(i64::from(unsafe { libc::symlinkat(target.as_ptr(), self.work.raw(), path.as_ptr()) }))?;
        self.place_at(&made, at, name, libc::RENAME_NOREPLACE)
    }

    /// As a file of the host is, but for what its user may do with it.
    fn dress(&self, file: &Fd, of: &libc::statx, below: Below) -> Done<()> {
        let mode = u32::from(of.stx_mode);
        let origin = Origin { inode: of.stx_ino, device: (of.stx_dev_major, of.stx_dev_minor), made: (of.stx_btime.tv_sec as u64, of.stx_btime.tv_nsec) };
        let links = if mode & libc::S_IFMT == libc::S_IFREG && of.stx_nlink > 1 { of.stx_nlink } else { 0 };
        Note { origin: Some(origin), links, below, ..Note::NONE }.put(file)?;
        set_mode(file, mode)
    }

    // Changes

    /// Makes something new. @param make is told where, under which name, and with which mode
    pub fn make(&self, root: &Fd, above: &[&[u8]], name: &[u8], mode: u32, make: &mut dyn FnMut(&Fd, &[u8], u32) -> Done<()>, unnamed: Unnamed) -> Done<()> {
        match self.look(root, &self.walk(root, above)?, name) {
            Ok(_) => return Err(libc::EEXIST),
            Err(libc::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        self.charge(ENTRY_COST, unnamed)?;
        let at = self.raise_way(root, above, unnamed)?;
        let upper = at.upper.as_ref().ok_or(libc::ESTALE)?;
        let hides = self.entry_in(upper, name)?.is_some();
        let made = if hides { self.temporary() } else { name.to_vec() };
        let place = if hides { &self.work } else { upper };
        make(place, &made, mode | least(mode))?;
        if let (Ok(file), true) = (sys::open_beneath(place.raw(), &made, libc::O_RDONLY | PLAIN, 0), mode & least(mode) != least(mode)) {
            set_mode(&file, mode)?;
        }
        if hides {
            // A directory cannot take the place of a file.
            self.place_at(&made, &at, name, libc::RENAME_EXCHANGE)?;
            purge(&self.work, &made)?;
        }
        Ok(())
    }

    /// @param unnamed as for `charge`
    pub fn remove(&self, root: &Fd, above: &[&[u8]], name: &[u8], directory: bool, unnamed: Unnamed) -> Done<()> {
        let at = self.walk(root, above)?;
        let found = self.look(root, &at, name)?;
        match (found.kind() == libc::S_IFDIR, directory) {
            (true, false) => return Err(libc::EISDIR),
            (false, true) => return Err(libc::ENOTDIR),
            (true, true) if !self.is_empty(&self.enter(root, &at, name)?)? => return Err(libc::ENOTEMPTY),
            _ => {}
        }
        let at = self.raise_way(root, above, unnamed)?;
        if has(&at.lower, name) {
            self.hide(&at, name)?;
        } else {
            let aside = self.temporary();
            rename(at.upper.as_ref().ok_or(libc::ESTALE)?, name, &self.work, &aside, 0)?;
            purge(&self.work, &aside)?;
        }
        self.freed();
        self.other_links(&found, -1)
    }

    /// From now on there is nothing under that name.
    fn hide(&self, at: &Merged, name: &[u8]) -> Done<()> {
        let made = self.gone()?;
        match self.in_upper(at, name)? {
            Some(_) => {
                self.place_at(&made, at, name, libc::RENAME_EXCHANGE)?;
                purge(&self.work, &made)
            }
            None => self.place_at(&made, at, name, libc::RENAME_NOREPLACE),
        }
    }

    /// A file that says that there is none. There are no more of them than names of the host, so that they are not charged: what is full can be cleared.
    /// @returns its name in `work`
    fn gone(&self) -> Done<Vec<u8>> {
        let made = self.temporary();
        let file = sys::open_beneath(self.work.raw(), &made, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600)?;
        Note { gone: true, ..Note::NONE }.put(&file)?;
        Ok(made)
    }

    /// A file with names that are the host's still has one more, or one less. Without any nobody finds it.
    fn other_links(&self, found: &Found, more: i64) -> Done<()> {
        if let (true, Some(origin)) = (found.note.links > 0, found.note.origin) {
            let links = (i64::from(found.note.links) + more).max(0) as u32;
            if links > 0 {
                return Note { links, ..found.note.clone() }.put(&found.file);
            }
            let key = text(&key_of(&identity(&origin.stat())))?;
            // SAFETY: a string that ends and outlives the call.
            unsafe { libc::unlinkat(self.index.raw(), key.as_ptr(), 0) };
        }
        Ok(())
    }

    pub fn link(&self, root: &Fd, from: &[&[u8]], above: &[&[u8]], name: &[u8], unnamed: Unnamed) -> Done<()> {
        self.raise(root, from, true, unnamed)?;
        let (old, old_above) = from.split_last().ok_or(libc::EPERM)?;
        let source = self.walk(root, old_above)?;
        let upper = raw(&source.upper);
        let from = text(old)?;
        let mut make = |place: &Fd, name: &[u8], _: u32| {
            let to = text(name)?;
            // SAFETY: strings that end and outlive the call.
            check(i64::from(unsafe { libc::linkat(upper, from.as_ptr(), place.raw(), to.as_ptr(), 0) })).map(|_| ())
        };
        self.make(root, above, name, 0o777, &mut make, unnamed)?;
        self.other_links(&self.look(root, &source, old)?, 1)
    }

    /// @param flags RENAME_NOREPLACE or RENAME_EXCHANGE
    pub fn rename(&self, root: &Fd, from: (&[&[u8]], &[u8]), to: (&[&[u8]], &[u8]), flags: u32, unnamed: Unnamed) -> Done<()> {
        let (old, new) = (from.1, to.1);
        let (source, target) = (self.walk(root, from.0)?, self.walk(root, to.0)?);
        let moved = self.look(root, &source, old)?;
        let replaced = match self.look(root, &target, new) {
            Err(libc::ENOENT) => None,
            found => Some(found?),
        };
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        match &replaced {
            None if exchange => return Err(libc::ENOENT),
            Some(_) if flags & libc::RENAME_NOREPLACE != 0 => return Err(libc::EEXIST),
            // Two names of one file.
            Some(there) if identity(&there.stat) == identity(&moved.stat) => return Ok(()),
            Some(there) if !exchange => match (moved.kind() == libc::S_IFDIR, there.kind() == libc::S_IFDIR) {
                (true, false) => return Err(libc::ENOTDIR),
                (false, true) => return Err(libc::EISDIR),
                (true, true) if !self.is_empty(&self.enter(root, &target, new)?)? => return Err(libc::ENOTEMPTY),
                _ => {}
            },
            _ => {}
        }
        // What lies in itself: the kernel would see it only after both were raised.
        let inside = |outer: (&[&[u8]], &[u8]), inner: &[&[u8]]| inner.len() > outer.0.len() && inner.starts_with(outer.0) && inner[outer.0.len()] == outer.1;
        if inside(from, to.0) || (exchange && inside(to, from.0)) {
            return Err(libc::EINVAL);
        }
        let whole = |(above, name): (&[&[u8]], &[u8])| -> Vec<Vec<u8>> { above.iter().copied().chain(Some(name)).map(<[u8]>::to_vec).collect() };
        for place in [Some(from), Some(to).filter(|_| exchange)].iter().flatten() {
            let names = whole(*place);
            let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
            self.raise(root, &names, true, unnamed)?;
            self.keep_below(root, &names)?;
        }
        let target = self.raise_way(root, to.0, unnamed)?;
        let source = self.walk(root, from.0)?;
        let (a, b) = (source.upper.as_ref().ok_or(libc::ESTALE)?, target.upper.as_ref().ok_or(libc::ESTALE)?);
        if exchange {
            return rename(a, old, b, new, libc::RENAME_EXCHANGE);
        }
        let there = self.entry_in(b, new)?;
        let is_gone = there.as_ref().map_or(false, |(_, _, note)| note.gone);
        if !is_gone && there.is_some() && moved.kind() == libc::S_IFDIR {
            // Only what hides the host's is in it.
            let names = whole(to);
            let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
            self.clear(root, &names)?;
        }
        match (has(&source.lower, old), is_gone, there.is_some()) {
            (true, false, true) => {
                rename(a, old, b, new, 0)?;
                let hides = self.gone()?;
                self.place_at(&hides, &source, old, libc::RENAME_NOREPLACE)?;
            }
            (true, _, _) => {
                if !is_gone {
                    let hides = self.gone()?;
                    self.place_at(&hides, &target, new, libc::RENAME_NOREPLACE)?;
                }
                rename(a, old, b, new, libc::RENAME_EXCHANGE)?;
            }
            (false, true, _) => {
                rename(a, old, b, new, libc::RENAME_EXCHANGE)?;
                purge(a, old)?;
            }
            (false, false, _) => rename(a, old, b, new, 0)?,
        }
        self.freed();
        replaced.map_or(Ok(()), |replaced| self.other_links(&replaced, -1))
    }

    /// A directory of the layer has below it what it had, wherever it goes.
    fn keep_below(&self, root: &Fd, names: &[&[u8]]) -> Done<()> {
        let (name, above) = names.split_last().ok_or(libc::EBUSY)?;
        let at = self.walk(root, above)?;
        if let Some((file, _, note)) = self.in_upper(&at, name)?.filter(|(_, _, note)| note.below == Below::Same) {
            let own = self.enter(root, &at, name)?;
            let below = if own.lower.is_some() { Below::At(own.way) } else { Below::Nothing };
            Note { below, ..note }.put(&file)?;
        }
        Ok(())
    }

    /// An empty directory has nothing below it either.
    fn clear(&self, root: &Fd, names: &[&[u8]]) -> Done<()> {
        let own = self.walk(root, names)?;
        let upper = readable(own.upper.as_ref().ok_or(libc::ESTALE)?)?;
        let note = Note::of(&upper)?;
        if note != Note::NONE {
            Note { below: Below::Nothing, ..note }.put(&upper)?;
        }
        for entry in entries(&upper)? {
            purge(&upper, &entry.name)?;
        }
        Ok(())
    }

    fn temporary(&self) -> Vec<u8> {
        self.next.set(self.next.get() + 1);
        self.next.get().to_string().into_bytes()
    }

    fn place_at(&self, made: &[u8], at: &Merged, name: &[u8], flags: u32) -> Done<()> {
        rename(&self.work, made, at.upper.as_ref().ok_or(libc::ESTALE)?, name, flags)
    }
}

impl Origin {
    fn stat(&self) -> libc::statx {
        // SAFETY: zeroes are a valid structure.
        let mut stat: libc::statx = unsafe { std::mem::zeroed() };
        self.put(&mut stat);
        stat
    }

    fn put(&self, stat: &mut libc::statx) {
        stat.stx_ino = self.inode;
        stat.stx_dev_major = self.device.0;
        stat.stx_dev_minor = self.device.1;
        stat.stx_btime.tv_sec = self.made.0 as i64;
        stat.stx_btime.tv_nsec = self.made.1;
    }
}

/// What the guest is told of a file of the layer.
fn shown(stat: &mut libc::statx, note: &Note) {
    match &note.origin {
        Some(origin) => origin.put(stat),
        None => stat.stx_ino |= OWN_NUMBERS,
    }
    if let Some(mode) = note.mode {
        stat.stx_mode = (u32::from(stat.stx_mode) & libc::S_IFMT | mode & 0o7777) as u16;
    }
    if note.links > 0 {
        stat.stx_nlink = note.links;
    }
}

/// What its user must be allowed so that this process can work with it.
fn least(mode: u32) -> u32 {
    if mode & libc::S_IFMT == libc::S_IFDIR { 0o700 } else { 0o600 }
}

/// @param file of the layer @param mode with its type
pub fn set_mode(file: &Fd, mode: u32) -> Done<()> {
    let note = Note::of(file)?;
    let (bits, least) = (mode & 0o1777, least(mode));
    let wanted = Some(bits).filter(|bits| bits & least != least);
    if wanted != note.mode {
        Note { mode: wanted, ..note }.put(file)?;
    }
    // SAFETY: plain integers.
    check(i64::from(unsafe { libc::fchmod(file.raw(), bits | least) })).map(|_| ())
}

fn kind(stat: &libc::statx) -> u32 {
    u32::from(stat.stx_mode) & libc::S_IFMT
}

fn key_of(identity: &Identity) -> Vec<u8> {
    format!("{:x}-{:x}", identity.inode, identity.generation).into_bytes()
}

fn raw(fd: &Option<Fd>) -> i32 {
    fd.as_ref().map_or(-1, Fd::raw)
}

fn has(directory: &Option<Fd>, name: &[u8]) -> bool {
    directory.as_ref().map_or(false, |directory| sys::open_beneath(directory.raw(), name, LOOK, 0).is_ok())
}

fn readable(directory: &Fd) -> Done<Fd> {
    sys::open_beneath(directory.raw(), b".", libc::O_RDONLY | libc::O_DIRECTORY, 0)
}

fn make_directory(place: &Fd, name: &[u8], mode: u32) -> Done<()> {
    let path = text(name)?;
    // SAFETY: a string that ends and outlives the call.
    check(i64::from(unsafe { libc::mkdirat(place.raw(), path.as_ptr(), mode) })).map(|_| ())
}

fn rename(from: &Fd, old: &[u8], to: &Fd, new: &[u8], flags: u32) -> Done<()> {
    let (a, b) = (text(old)?, text(new)?);
    // SAFETY: strings that end and outlive the call.
    check(unsafe { libc::syscall(libc::SYS_renameat2, from.raw(), a.as_ptr(), to.raw(), b.as_ptr(), flags) }).map(|_| ())
}

/// Without `.` and `..`. @param directory open to read
fn entries(directory: &Fd) -> Done<Vec<Entry>> {
    // SAFETY: plain integers.
    check(unsafe { libc::lseek(directory.raw(), 0, libc::SEEK_SET) })?;
    let mut all = Vec::new();
    let mut buffer = [0u8; 32 * 1024];
    loop {
        // SAFETY: the buffer is valid for its length.
        let got = check(unsafe { libc::syscall(libc::SYS_getdents64, directory.raw(), buffer.as_mut_ptr(), buffer.len()) })? as usize;
        if got == 0 {
            return Ok(all);
        }
        let mut rest = Body(&buffer[..got]);
        while !rest.0.is_empty() {
            let (inode, _, length, kind) = (rest.u64()?, rest.u64()?, rest.u16()? as usize, rest.take(1)?[0]);
            let name = Body(rest.take(length.checked_sub(19).ok_or(libc::EIO)?)?).text()?;
            if name != b"." && name != b".." {
                all.push(Entry { place: place_of(name), name: name.to_vec(), inode, kind });
            }
        }
    }
}

/// With all that is in it. What is not there is none the worse.
fn purge(place: &Fd, name: &[u8]) -> Done<()> {
    let path = text(name)?;
    // SAFETY: strings that end and outlive the calls.
    match check(i64::from(unsafe { libc::unlinkat(place.raw(), path.as_ptr(), 0) })) {
        Err(libc::EISDIR) => {
            let directory = sys::open_beneath(place.raw(), name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?;
            for entry in entries(&directory)? {
                purge(&directory, &entry.name)?;
            }
            check(i64::from(unsafe { libc::unlinkat(place.raw(), path.as_ptr(), libc::AT_REMOVEDIR) })).map(|_| ())
        }
        Err(libc::ENOENT) => Ok(()),
        done => done.map(|_| ()),
    }
}

/// Bytes on disk of all that is in it, each file once.
fn weigh(directory: &Fd, seen: &mut HashSet<u64>) -> Done<u64> {
    let mut all = 0u64;
    for entry in entries(&readable(directory)?)? {
        let file = sys::open_beneath(directory.raw(), &entry.name, LOOK, 0)?;
        let stat = sys::stat(&file)?;
        if stat.stx_nlink > 1 && kind(&stat) == libc::S_IFREG && !seen.insert(stat.stx_ino) {
            continue;
        }
        all = all.saturating_add(stat.stx_blocks.saturating_mul(512).max(ENTRY_COST));
        if kind(&stat) == libc::S_IFDIR {
            all = all.saturating_add(weigh(&file, seen)?);
        }
    }
    Ok(all)
}

/// Holes stay holes.
fn copy_data(from: &Fd, to: &Fd, length: u64) -> Done<()> {
    // SAFETY: plain integers.
    let seek = |offset: u64, what: i32| check(unsafe { libc::lseek(from.raw(), offset as libc::off_t, what) }).map(|at| at as u64);
    let mut buffer = vec![0u8; PART];
    let mut at = 0;
    while at < length {
        at = match seek(at, libc::SEEK_DATA) {
            Err(libc::ENXIO) => break,
            found => found?,
        };
        let end = seek(at, libc::SEEK_HOLE)?.min(length);
        while at < end {
            let part = ((end - at) as usize).min(PART);
            let got = sys::read_at(from, &mut buffer[..part], at)?;
            // Whatever the host cuts off meanwhile is not there any more.
            if got == 0 || sys::write_at(to, &buffer[..got], at)? != got {
                return if got == 0 { Ok(()) } else { Err(libc::ENOSPC) };
            }
            at += got as u64;
        }
    }
    // SAFETY: plain integers.
    uninterrupted(|| i64::from(unsafe { libc::ftruncate(to.raw(), length as libc::off_t) })).map(|_| ())
}

/// Those that the guest may see.
fn copy_attributes(from: &Fd, to: &Fd) -> Done<()> {
    let mut room = vec![0u8; 64 * 1024];
    // SAFETY: room for as many bytes as said, here and below; names end.
    let got = match check(unsafe { libc::flistxattr(from.raw(), room.as_mut_ptr().cast(), room.len()) } as i64) {
        Err(libc::EOPNOTSUPP) => return Ok(()),
        got => got? as usize,
    };
    let names = room[..got].to_vec();
    for name in names.split(|byte| *byte == 0).filter(|name| visible(name)) {
        let key = text(name)?;
        let got = check(unsafe { libc::fgetxattr(from.raw(), key.as_ptr(), room.as_mut_ptr().cast::<c_void>(), room.len()) } as i64)? as usize;
        check(i64::from(unsafe { libc::fsetxattr(to.raw(), key.as_ptr(), room.as_ptr().cast(), got, 0) }))?;
    }
    Ok(())
}

/// Whether a guest may see, and set, an attribute of that name where there is a layer.
pub fn visible(name: &[u8]) -> bool {
    name.starts_with(b"user.") && name != NOTE
}

fn set_times(file: &Fd, of: &libc::statx) -> Done<()> {
    let times = [of.stx_atime, of.stx_mtime].map(|time| libc::timespec { tv_sec: time.tv_sec, tv_nsec: i64::from(time.tv_nsec) });
    // SAFETY: two times, as the call reads.
    check(i64::from(unsafe { libc::futimens(file.raw(), times.as_ptr()) })).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let origin = Origin { inode: 7, device: (8, 1), made: (1_700_000_000, 5) };
        for note in [
            Note::NONE,
            Note { gone: true, ..Note::NONE },
            Note { mode: Some(0), origin: Some(origin), links: 3, below: Below::At(b"a/b".to_vec()), gone: false },
            Note { origin: Some(origin), below: Below::Same, ..Note::NONE },
        ] {
            assert_eq!(Note::read(&note.write()), Ok(note.clone()));
        }
        for length in 0..44 {
            assert!(Note::read(&vec![1; length]).is_err());
        }
    }
}
