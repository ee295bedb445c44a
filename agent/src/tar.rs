//! A directory as a tar stream (POSIX.1-2001 pax), out and in.

use crate::buffers::{Buffer, Bytes, PIECE};
use crate::files::{is, name, os, stat};
use crate::jobs::Io;
use crate::attributes::{self, Xattrs};
use crate::layer::{self, Deletes};
use crate::protocol::{status, Fields};
use crate::sparse::SparseWriter;
use crate::sys::{self, check, cstring, Fail, Fd, Result};
use crate::walk::{walk_as, Visit};
use std::collections::HashMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

const BLOCK: usize = 512;
/// An extended header or a long name is never this large.
const MAX_EXTENDED: u64 = 1 << 20;
/// Above this many files with several names, further ones are written in full.
const MAX_LINKS: usize = 65_536;
/// Of directories' names that wait for their times. Further ones keep the time of their unpacking.
const MAX_WAITING_NAMES: usize = 16 << 20;
/// How pax archives name extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

// ---- out

struct Writer<'a> {
    io: &'a mut Io,
    buffer: Buffer,
    used: usize,
}

impl<'a> Writer<'a> {
    fn new(io: &'a mut Io) -> Writer<'a> {
        Writer { io, buffer: Buffer::new(), used: 0 }
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let n = bytes.len().min(PIECE - self.used);
            self.buffer.payload()[self.used..self.used + n].copy_from_slice(&bytes[..n]);
            self.advance(n)?;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Up to `max` bytes of a file. @returns 0 at its end
    fn read(&mut self, file: &Fd, max: u64) -> std::result::Result<usize, i32> {
        let room = max.min((PIECE - self.used) as u64) as usize;
        sys::read(file.raw(), &mut self.buffer.payload()[self.used..self.used + room])
    }

    fn advance(&mut self, n: usize) -> Result<()> {
        self.used += n;
        if self.used == PIECE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.used == 0 {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Buffer::new());
        self.io.send_buffer(full, std::mem::take(&mut self.used))
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = (size % BLOCK as u64) as usize;
        if rest > 0 {
            self.put(&[0; BLOCK][rest..])?;
        }
        Ok(())
    }

    fn entry(&mut self, kind: u8, path: &[u8], link: &[u8], st: &libc::stat, size: u64, xattrs: &Xattrs) -> Result<()> {
        let mut pax = Vec::new();
        for (key, value) in xattrs {
            record(&mut pax, &[XATTR, key].concat(), value);
        }
        if path.len() > 100 {
            record(&mut pax, b"path", path);
        }
        if link.len() > 100 {
            record(&mut pax, b"linkpath", link);
        }
        if size >= 1 << 33 {
            record(&mut pax, b"size", size.to_string().as_bytes());
        }
        if !(0..1 << 33).contains(&st.st_mtime) {
            record(&mut pax, b"mtime", st.st_mtime.to_string().as_bytes());
        }
        if st.st_uid >= 1 << 21 {
            record(&mut pax, b"uid", st.st_uid.to_string().as_bytes());
        }
        if st.st_gid >= 1 << 21 {
            record(&mut pax, b"gid", st.st_gid.to_string().as_bytes());
        }
        if !pax.is_empty() {
            self.put(&header(b'x', b"PaxHeader", b"", st, pax.len() as u64))?;
            self.put(&pax)?;
            self.pad(pax.len() as u64)?;
        }
        self.put(&header(kind, path, link, st, size))
    }
}

/// One pax record, `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{} ", length).as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let most = 1u64.checked_shl(3 * digits as u32).map_or(u64::MAX, |v| v - 1);
    let text = format!("{:0width$o}", value.min(most), width = digits);
    field[..digits].copy_from_slice(text.as_bytes());
}

fn header(kind: u8, path: &[u8], link: &[u8], st: &libc::stat, size: u64) -> [u8; BLOCK] {
    let mut h = [0u8; BLOCK];
    let cut = |b: &[u8]| b.len().min(100);
    h[..cut(path)].copy_from_slice(&path[..cut(path)]);
    octal(&mut h[100..108], u64::from(st.st_mode & 0o7777));
    octal(&mut h[108..116], u64::from(st.st_uid));
    octal(&mut h[116..124], u64::from(st.st_gid));
    octal(&mut h[124..136], if kind == b'0' || kind == b'x' { size } else { 0 });
    octal(&mut h[136..148], st.st_mtime.max(0) as u64);
    h[148..156].fill(b' ');
    h[156] = kind;
    h[157..157 + cut(link)].copy_from_slice(&link[..cut(link)]);
    h[257..265].copy_from_slice(b"ustar\x0000");
    if kind == b'3' || kind == b'4' {
        // SAFETY: pure arithmetic.
        let (major, minor) = unsafe { (libc::major(st.st_rdev), libc::minor(st.st_rdev)) };
        octal(&mut h[329..337], u64::from(major));
        octal(&mut h[337..345], u64::from(minor));
    }
    let sum: u64 = h.iter().map(|&b| u64::from(b)).sum();
    octal(&mut h[148..155], sum);
    h[155] = b' ';
    h
}

/// How an archive is made of a tree.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    Plain,
    /// What symlinks mean, in their place.
    Follow,
    /// An overlay's upper directory as an image's layer (layer.rs).
    Layer,
}

pub fn tar_out(io: &mut Io, path: &[u8], form: Form) -> Result<Fields> {
    let st = stat(path, true)?;
    io.event(Fields::new())?;
    let mut tree = Tree::new(io, form);
    if is(&st, libc::S_IFDIR) {
        let cut = if path.ends_with(b"/") { path.len() } else { path.len() + 1 };
        walk_as(path, form == Form::Follow, |visit, path, st, _| {
            if visit != Visit::Leave {
                tree.add(path, &path[cut..], st)?;
            }
            Ok(true)
        })?;
    } else {
        let base = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        tree.add(path, base, &st)?;
    }
    tree.finish()
}

/// An archive that is written entry by entry.
pub struct Tree<'a> {
    out: Writer<'a>,
    links: HashMap<(u64, u64), Vec<u8>>,
    form: Form,
}

impl<'a> Tree<'a> {
    pub fn new(io: &'a mut Io, form: Form) -> Tree<'a> {
        Tree { out: Writer::new(io), links: HashMap::new(), form }
    }

    pub fn finish(mut self) -> Result<Fields> {
        self.out.put(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(Fields::new())
    }

    /// Only itself.
    pub fn directory(&mut self, as_name: &[u8], st: &libc::stat) -> Result<()> {
        self.out.entry(b'5', &[as_name, b"/"].concat(), b"", st, 0, &Xattrs::new())
    }

    /// Nothing that a layer below has in the directory shows.
    pub fn opaque(&mut self, directory: &[u8], st: &libc::stat) -> Result<()> {
        self.empty_file(&[directory, b"/", layer::OPAQUE].concat(), st)
    }

    pub fn add(&mut self, path: &[u8], as_name: &[u8], st: &libc::stat) -> Result<()> {
        self.out.io.check()?;
        let layer = self.form == Form::Layer;
        if layer && layer::is_whiteout(st) {
            let cut = as_name.iter().rposition(|&b| b == b'/').map_or(0, |p| p + 1);
            let deleted = [&as_name[..cut], &layer::whiteout_of(&as_name[cut..])].concat();
            return self.empty_file(&deleted, st);
        }
        if layer && layer::unspeakable(as_name.rsplit(|&b| b == b'/').next().unwrap_or(as_name)) {
            let what = format!("{} cannot be saved: in an image's layers a name with .wh. deletes", name(path));
            return Err(Fail::new(status::NOT_SUPPORTED, what));
        }
        let xattrs = if layer { attributes::all(path)? } else { Xattrs::new() };
        match st.st_mode & libc::S_IFMT {
            libc::S_IFDIR => {
                let inside = [as_name, b"/"].concat();
                self.out.entry(b'5', &inside, b"", st, 0, &xattrs)?;
                if layer && layer::is_opaque(path)? {
                    self.opaque(as_name, st)?;
                }
                Ok(())
            }
            libc::S_IFLNK => match std::fs::read_link(os(path)) {
                Ok(target) => self.out.entry(b'2', as_name, target.as_os_str().as_bytes(), st, 0, &xattrs),
                Err(_) => Ok(()),
            },
            libc::S_IFCHR => self.out.entry(b'3', as_name, b"", st, 0, &xattrs),
            libc::S_IFBLK => self.out.entry(b'4', as_name, b"", st, 0, &xattrs),
            libc::S_IFIFO => self.out.entry(b'6', as_name, b"", st, 0, &xattrs),
            libc::S_IFREG => self.file(path, as_name, st, &xattrs),
            _ => Ok(()),
        }
    }

    fn empty_file(&mut self, as_name: &[u8], st: &libc::stat) -> Result<()> {
        let mut plain = *st;
        plain.st_mode = libc::S_IFREG | 0o644;
        self.out.entry(b'0', as_name, b"", &plain, 0, &Xattrs::new())
    }

    fn file(&mut self, path: &[u8], as_name: &[u8], st: &libc::stat, xattrs: &Xattrs) -> Result<()> {
        if st.st_nlink > 1 {
            if let Some(first) = self.links.get(&(st.st_dev, st.st_ino)) {
                return self.out.entry(b'1', as_name, first, st, 0, &Xattrs::new());
            }
            if self.links.len() < MAX_LINKS {
                self.links.insert((st.st_dev, st.st_ino), as_name.to_vec());
            }
        }
        let follow = if self.form == Form::Follow { 0 } else { libc::O_NOFOLLOW };
        let file = match sys::open(path, libc::O_RDONLY | libc::O_NONBLOCK | follow, 0) {
            Ok(f) => f,
            Err(f) if f.errno == libc::ENOENT => return Ok(()),
            Err(f) => return Err(f),
        };
        let size = st.st_size as u64;
        self.out.entry(b'0', as_name, b"", st, size, xattrs)?;
        let mut left = size;
        while left > 0 {
            match self.out.read(&file, left).map_err(|e| Fail::errno(e, &name(path)))? {
                0 => {
                    // It shrank while it was read. The header is out already: zeros fill the promise.
                    let zeros = left.min(BLOCK as u64) as usize;
                    self.out.put(&[0; BLOCK][..zeros])?;
                    left -= zeros as u64;
                }
                n => {
                    self.out.advance(n)?;
                    left -= n as u64;
                }
            }
        }
        self.out.pad(size)
    }
}

// ---- in

struct Source<'a> {
    io: &'a mut Io,
    piece: Bytes,
    at: usize,
}

impl<'a> Source<'a> {
    /// Up to `max` bytes; empty at the end.
    fn some(&mut self, max: usize) -> Result<&[u8]> {
        while self.at == self.piece.len() {
            match self.io.read()? {
                Some(piece) => {
                    self.piece = piece;
                    self.at = 0;
                }
                None => return Ok(&[]),
            }
        }
        let end = self.piece.len().min(self.at + max);
        let bytes = &self.piece[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn fill(&mut self, out: &mut Vec<u8>, mut size: usize) -> Result<()> {
        while size > 0 {
            let got = self.some(size)?;
            if got.is_empty() {
                return Err(Fail::invalid("the tar stream is cut off"));
            }
            size -= got.len();
            out.extend_from_slice(got);
        }
        Ok(())
    }

    fn each(&mut self, mut size: u64, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let pad = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        while size > 0 {
            let got = self.some(size.min(PIECE as u64) as usize)?;
            if got.is_empty() {
                return Err(Fail::invalid("the tar stream is cut off"));
            }
            size -= got.len() as u64;
            take(got)?;
        }
        let mut rest = Vec::new();
        self.fill(&mut rest, pad as usize)
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = Vec::with_capacity(BLOCK);
        let first = self.some(BLOCK)?.to_vec();
        if first.is_empty() {
            return Ok(None);
        }
        block.extend_from_slice(&first);
        let missing = BLOCK - block.len();
        self.fill(&mut block, missing)?;
        let mut fixed = [0; BLOCK];
        fixed.copy_from_slice(&block);
        Ok(Some(fixed))
    }

    fn text(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENDED {
            return Err(Fail::invalid("an extended tar header is too large"));
        }
        let mut all = Vec::new();
        self.each(size, |b| {
            all.extend_from_slice(b);
            Ok(())
        })?;
        Ok(all)
    }
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or(field)
}

/// Octal text, or GNU's binary form for large numbers.
pub fn parse_number(field: &[u8]) -> Result<u64> {
    let bad = || Fail::invalid("a bad number in a tar header");
    if field.first().map_or(false, |b| b & 0x80 != 0) {
        if field[0] != 0x80 {
            return Err(bad());
        }
        return field[1..].iter().try_fold(0u64, |v, &b| v.checked_mul(256)?.checked_add(u64::from(b))).ok_or_else(bad);
    }
    let digits: Vec<u8> = field.iter().copied().filter(|b| *b != b' ' && *b != 0).collect();
    digits
        .iter()
        .try_fold(0u64, |v, &b| if (b'0'..=b'7').contains(&b) { v.checked_mul(8)?.checked_add(u64::from(b - b'0')) } else { None })
        .ok_or_else(bad)
}

#[derive(Default)]
struct Extra {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<libc::timespec>,
    uid: Option<u32>,
    gid: Option<u32>,
    xattrs: Xattrs,
}

fn read_pax(bytes: &[u8], extra: &mut Extra) -> Result<()> {
    let bad = || Fail::invalid("a bad pax header");
    let number = |v: &[u8]| std::str::from_utf8(v).ok().and_then(|s| s.parse::<u64>().ok());
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = rest.iter().position(|&b| b == b' ').ok_or_else(bad)?;
        let length = number(&rest[..space]).ok_or_else(bad)? as usize;
        if length <= space + 1 || length > rest.len() {
            return Err(bad());
        }
        let record = &rest[space + 1..length];
        let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = record.iter().position(|&b| b == b'=').ok_or_else(bad)?;
        let value = &record[equals + 1..];
        match &record[..equals] {
            b"path" => extra.path = Some(value.to_vec()),
            b"linkpath" => extra.link = Some(value.to_vec()),
            b"size" => extra.size = Some(number(value).ok_or_else(bad)?),
            b"mtime" => extra.mtime = Some(decimal_time(value).ok_or_else(bad)?),
            b"uid" => extra.uid = number(value).map(|v| v as u32),
            b"gid" => extra.gid = number(value).map(|v| v as u32),
            key => {
                if let Some(key) = key.strip_prefix(XATTR) {
                    extra.xattrs.push((key.to_vec(), value.to_vec()));
                }
            }
        }
        rest = &rest[length..];
    }
    Ok(())
}

/// The components of an entry's name. A leading `/` is dropped, as tar does; `..` is refused.
fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    let parts: Vec<&[u8]> = path.split(|&b| b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    if parts.iter().any(|p| *p == b"..") || path.contains(&0) {
        return Err(Fail::invalid(format!("the tar entry {} leaves its directory", name(path))));
    }
    Ok(parts)
}

/// The directory that everything goes into. Symlinks are followed only as long as they stay below it.
struct Target {
    root: Fd,
    /// The parent directory that was used last.
    last: Option<(Vec<u8>, Fd)>,
    /// What directories are to be dated, once nothing is made in them any more.
    dates: Vec<Dated>,
    /// Bytes that they take.
    waiting: usize,
}

struct Dated {
    path: Vec<u8>,
    /// A program may have put something else there since.
    is: (u64, u64),
    time: libc::timespec,
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}
const RESOLVE_BENEATH: u64 = 8;
const SYS_OPEN_TREE: libc::c_long = 428;
const OPEN_TREE_CLONE: libc::c_uint = 1;

fn open_beneath(root: &Fd, path: &[u8]) -> Result<Fd> {
    let c = cstring(path)?;
    let how = OpenHow { flags: (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64, mode: 0, resolve: RESOLVE_BENEATH };
    // SAFETY: a NUL-terminated path and a structure of the given size.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, root.raw(), c.as_ptr(), &how, std::mem::size_of::<OpenHow>()) };
    if fd < 0 {
        let failed = Fail::last(&name(path));
        // The kernel's words for it speak of links between devices.
        return Err(if failed.errno == libc::EXDEV {
            let words = format!("{} leads out of the directory that the archive is unpacked in, by a link that is there", name(path));
            Fail { status: status::INVALID, message: words, ..failed }
        } else {
            failed
        });
    }
    Ok(Fd::own(fd as i32))
}

impl Target {
    fn parent(&mut self, parts: &[&[u8]]) -> Result<&Fd> {
        if parts.is_empty() {
            return Ok(&self.root);
        }
        let path = parts.join(&b'/');
        if self.last.as_ref().map_or(true, |(p, _)| *p != path) {
            let dir = match open_beneath(&self.root, &path) {
                Err(f) if f.errno == libc::ENOENT => self.make(parts)?,
                other => other?,
            };
            self.last = Some((path, dir));
        }
        match &self.last {
            Some((_, dir)) => Ok(dir),
            None => Ok(&self.root),
        }
    }

    fn date_later(&mut self, path: Vec<u8>, directory: &Fd, time: libc::timespec) {
        let takes = path.len() + std::mem::size_of::<Dated>();
        if self.waiting + takes > MAX_WAITING_NAMES {
            return;
        }
        if let Some(is) = identity(directory) {
            self.waiting += takes;
            self.dates.push(Dated { path, is, time });
        }
    }

    /// One that has been replaced or moved is left as it is.
    fn date_directories(&mut self) {
        for Dated { path, is, time } in std::mem::take(&mut self.dates) {
            if let Ok(directory) = open_beneath(&self.root, &path) {
                if identity(&directory) == Some(is) {
                    date(directory.raw(), b"", time);
                }
            }
        }
    }

    fn make(&self, parts: &[&[u8]]) -> Result<Fd> {
        for end in 1..=parts.len() {
            let path = parts[..end].join(&b'/');
            match open_beneath(&self.root, &path) {
                Err(f) if f.errno == libc::ENOENT => {
                    let inside = if end == 1 { None } else { Some(open_beneath(&self.root, &parts[..end - 1].join(&b'/'))?) };
                    let c = cstring(parts[end - 1])?;
                    let dir = inside.as_ref().unwrap_or(&self.root).raw();
                    // SAFETY: NUL-terminated.
                    check(unsafe { libc::mkdirat(dir, c.as_ptr(), 0o755) }, &name(&path))?;
                }
                other => {
                    other?;
                }
            }
        }
        open_beneath(&self.root, &parts.join(&b'/'))
    }
}

#[derive(Clone, Copy)]
pub struct Unpacking {
    /// Names that delete do so, and extended attributes are set.
    pub layer: bool,
    /// Where a file is mounted on a name, which nobody can replace, what the image has there is written, and not the one that is seen.
    /// Anything but a file is left out there.
    pub beneath: bool,
}

pub fn tar_in(io: &mut Io, path: &[u8], how: Unpacking) -> Result<Fields> {
    crate::files::make_parents(path, 0o755, None)?;
    let mut target = Target { root: sys::open(path, libc::O_PATH | libc::O_DIRECTORY, 0)?, last: None, dates: Vec::new(), waiting: 0 };
    let mut source = Source { io, piece: Bytes::Own(Vec::new()), at: 0 };
    let mut extra = Extra::default();
    while let Some(h) = source.block()? {
        if h.iter().all(|&b| b == 0) {
            break;
        }
        let sum: u64 = h.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { 32 } else { u64::from(b) }).sum();
        if parse_number(&h[148..156])? != sum {
            return Err(Fail::invalid("this is not a tar stream: a header's checksum does not hold"));
        }
        let size = parse_number(&h[124..136])?;
        match h[156] {
            b'x' => {
                read_pax(&source.text(size)?, &mut extra)?;
                continue;
            }
            b'g' => {
                source.text(size)?;
                continue;
            }
            b'L' => {
                extra.path = Some(text(&source.text(size)?).to_vec());
                continue;
            }
            b'K' => {
                extra.link = Some(text(&source.text(size)?).to_vec());
                continue;
            }
            _ => {}
        }
        let extra = std::mem::take(&mut extra);
        let short = text(&h[..100]).to_vec();
        let prefix = if &h[257..262] == b"ustar" && h[262] == 0 { text(&h[345..500]) } else { b"" };
        let full = extra.path.unwrap_or(if prefix.is_empty() { short } else { [prefix, b"/", &short].concat() });
        let link = extra.link.unwrap_or_else(|| text(&h[157..257]).to_vec());
        let entry = Entry {
            kind: h[156],
            mode: parse_number(&h[100..108])? as u32 & 0o7777,
            uid: extra.uid.unwrap_or(parse_number(&h[108..116])? as u32),
            gid: extra.gid.unwrap_or(parse_number(&h[116..124])? as u32),
            mtime: extra.mtime.map_or_else(|| parse_time(&h[136..148]), Ok)?,
            size: extra.size.unwrap_or(size),
            device: (parse_number(&h[329..337]).unwrap_or(0) as u32, parse_number(&h[337..345]).unwrap_or(0) as u32),
            xattrs: extra.xattrs,
            how,
        };
        place(&mut source, &mut target, &full, &link, &entry)?;
    }
    // What follows the end marker is padding.
    while !source.some(PIECE)?.is_empty() {}
    target.date_directories();
    Ok(Fields::new())
}

/// Device and inode.
fn identity(of: &Fd) -> Option<(u64, u64)> {
    // SAFETY: plain data, filled by the call.
    let mut st: libc::stat = unsafe { std::mem::zeroed() };
    let told = unsafe { libc::fstat(of.raw(), &mut st) } == 0;
    if told { Some((st.st_dev, st.st_ino)) } else { None }
}

/// Dates what a descriptor is (no name), or a name in that directory, a link itself too. Not every filesystem can; that is no reason to fail.
fn date(at: i32, leaf: &[u8], time: libc::timespec) {
    let times = [time, time];
    if let Ok(leaf) = cstring(leaf) {
        let flags = if leaf.as_bytes().is_empty() { libc::AT_EMPTY_PATH } else { libc::AT_SYMLINK_NOFOLLOW };
        // SAFETY: NUL-terminated, and two times.
        unsafe { libc::utimensat(at, leaf.as_ptr(), times.as_ptr(), flags) };
    }
}

/// A directory without what is mounted in it. @throws errno
fn beneath(directory: i32) -> std::result::Result<Fd, i32> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_EMPTY_PATH as libc::c_uint;
    // SAFETY: an empty path that ends.
    let fd = unsafe { libc::syscall(SYS_OPEN_TREE, directory, b"\0".as_ptr(), flags) };
    if fd < 0 { Err(sys::last_errno()) } else { Ok(Fd::own(fd as i32)) }
}

struct Entry {
    kind: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: libc::timespec,
    size: u64,
    device: (u32, u32),
    xattrs: Xattrs,
    how: Unpacking,
}

fn place(source: &mut Source, target: &mut Target, full: &[u8], link: &[u8], entry: &Entry) -> Result<()> {
    let parts = components(full)?;
    let (last, above) = match parts.split_last() {
        Some(x) => x,
        // The directory itself.
        None => return source.each(if entry.kind == b'5' { 0 } else { entry.size }, |_| Ok(())),
    };
    let what = name(full);
    let leaf: CString = cstring(last)?;
    let linked = if entry.kind == b'1' { Some(components(link)?.join(&b'/')) } else { None };
    let root = target.root.raw();
    let dir = target.parent(above)?.raw();
    let at = |leaf: &[u8]| [format!("/proc/self/fd/{}/", dir).as_bytes(), leaf].concat();
    if entry.how.layer {
        match layer::deletes(last) {
            Some(Deletes::Name(hidden)) => {
                layer::remove(&at(hidden))?;
                return source.each(entry.size, |_| Ok(()));
            }
            Some(Deletes::Contents) => {
                layer::remove_contents(&at(b""))?;
                return source.each(entry.size, |_| Ok(()));
            }
            // A name may change from file to directory and back.
            None => {
                let st = stat(&at(last), false);
                if st.map_or(false, |st| is(&st, libc::S_IFDIR) != (entry.kind == b'5')) {
                    layer::remove(&at(last))?;
                }
            }
        }
    }
    // SAFETY of all calls here: NUL-terminated names below descriptors that `target` keeps open.
    match entry.kind {
        b'5' => {
            let rc = unsafe { libc::mkdirat(dir, leaf.as_ptr(), 0o755) };
            if rc < 0 && sys::last_errno() != libc::EEXIST {
                return Err(Fail::last(&what));
            }
            let made = open_beneath(&target.root, &parts.join(&b'/'))?;
            let via = cstring(format!("/proc/self/fd/{}", made.raw()).as_bytes())?;
            unsafe {
                libc::fchownat(dir, leaf.as_ptr(), entry.uid, entry.gid, libc::AT_SYMLINK_NOFOLLOW);
                // At once: root may write below it whatever the mode says.
                libc::chmod(via.as_ptr(), entry.mode);
            }
            entry.attributes(&at(last))?;
            target.date_later(parts.join(&b'/'), &made, entry.mtime);
            return source.each(entry.size, |_| Ok(()));
        }
        b'0' | 0 | b'7' => {
            let stays = unsafe { libc::unlinkat(dir, leaf.as_ptr(), 0) } < 0 && sys::last_errno() == libc::EBUSY;
            let below = if stays && entry.how.beneath { Some(beneath(dir).map_err(|e| Fail::errno(e, &what))?) } else { None };
            let flags = libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC | if stays { libc::O_TRUNC } else { libc::O_CREAT | libc::O_EXCL };
            let within = below.as_ref().map_or(dir, Fd::raw);
            let file = Fd::own(check(unsafe { libc::openat(within, leaf.as_ptr(), flags, 0o600 as libc::c_uint) }, &what)?);
            let mut made = SparseWriter::new(&file);
            source.each(entry.size, |b| made.write(b).map_err(|e| Fail::errno(e, &what)))?;
            made.finish().map_err(|e| Fail::errno(e, &what))?;
            let times = [entry.mtime, entry.mtime];
            unsafe {
                libc::fchown(file.raw(), entry.uid, entry.gid);
                libc::fchmod(file.raw(), entry.mode);
                libc::futimens(file.raw(), times.as_ptr());
            }
            return entry.attributes(&[format!("/proc/self/fd/{}/", within).as_bytes(), last].concat());
        }
        _ => source.each(entry.size, |_| Ok(()))?,
    }
    if unsafe { libc::unlinkat(dir, leaf.as_ptr(), 0) } < 0 && sys::last_errno() == libc::EBUSY && entry.how.beneath {
        return Ok(());
    }
    // SAFETY: pure arithmetic.
    let device = libc::makedev(entry.device.0, entry.device.1);
    let rc = match (entry.kind, linked) {
        (b'1', Some(to)) => {
            let to = cstring(&to)?;
            // The name of the link's target was checked for `..`; symlinks in it are not followed at its end.
            unsafe { libc::linkat(root, to.as_ptr(), dir, leaf.as_ptr(), 0) }
        }
        (b'2', _) => {
            let to = cstring(link)?;
            unsafe { libc::symlinkat(to.as_ptr(), dir, leaf.as_ptr()) }
        }
        (b'3', _) => unsafe { libc::mknodat(dir, leaf.as_ptr(), libc::S_IFCHR | entry.mode, device) },
        (b'4', _) => unsafe { libc::mknodat(dir, leaf.as_ptr(), libc::S_IFBLK | entry.mode, device) },
        (b'6', _) => unsafe { libc::mkfifoat(dir, leaf.as_ptr(), entry.mode) },
        (other, _) => return Err(Fail::new(status::NOT_SUPPORTED, format!("{}: a tar entry of type {:?}", what, other as char))),
    };
    check(rc, &what)?;
    if entry.kind != b'1' {
        unsafe { libc::fchownat(dir, leaf.as_ptr(), entry.uid, entry.gid, libc::AT_SYMLINK_NOFOLLOW) };
        if entry.kind != b'2' {
            // What is made gets its mode less our mask. By descriptor: whoever may write there could have put a link in its place.
            let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
            let made = Fd::own(check(unsafe { libc::openat(dir, leaf.as_ptr(), flags) }, &what)?);
            let via = cstring(format!("/proc/self/fd/{}", made.raw()).as_bytes())?;
            unsafe { libc::chmod(via.as_ptr(), entry.mode) };
        }
        entry.attributes(&at(last))?;
        date(dir, last, entry.mtime);
    }
    Ok(())
}

impl Entry {
    fn attributes(&self, path: &[u8]) -> Result<()> {
        if self.how.layer {
            attributes::set(path, &self.xattrs)?;
        }
        Ok(())
    }
}

/// A time in a header: before 1970 in GNU's binary form.
fn parse_time(field: &[u8]) -> Result<libc::timespec> {
    let tv_sec = if field.first() == Some(&0xff) {
        let low: [u8; 8] = [field[4], field[5], field[6], field[7], field[8], field[9], field[10], field[11]];
        i64::from_be_bytes(low)
    } else {
        parse_number(field)?.min(i64::MAX as u64) as i64
    };
    Ok(libc::timespec { tv_sec, tv_nsec: 0 })
}

/// A time in a pax record: decimal, with a fraction.
fn decimal_time(text: &[u8]) -> Option<libc::timespec> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut tv_sec: i64 = if whole == "-" { 0 } else { whole.parse().ok()? };
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let mut tv_nsec: i64 = digits.parse().ok()?;
    if text.starts_with('-') && tv_nsec > 0 {
        tv_sec = tv_sec.checked_sub(1)?;
        tv_nsec = 1_000_000_000 - tv_nsec;
    }
    Some(libc::timespec { tv_sec, tv_nsec })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_records_count_themselves() {
        for length in [1usize, 90, 91, 92, 93, 94, 980, 990, 9_980, 9_990] {
            let mut out = Vec::new();
            record(&mut out, b"path", &vec![b'a'; length]);
            let mut extra = Extra::default();
            read_pax(&out, &mut extra).unwrap();
            assert_eq!(extra.path.unwrap().len(), length);
        }
        assert!(read_pax(b"99 path=x\n", &mut Extra::default()).is_err());
        assert!(read_pax(b"0 path=x\n", &mut Extra::default()).is_err());
        assert!(read_pax(b"path", &mut Extra::default()).is_err());
    }

    #[test]
    fn numbers() {
        assert_eq!(parse_number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(parse_number(b"   17 \0").unwrap(), 0o17);
        assert_eq!(parse_number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]).unwrap(), 2 << 32);
        assert!(parse_number(b"9").is_err());
        assert!(parse_number(&[0xff; 12]).is_err());
    }

    #[test]
    fn times() {
        let parts = |t: libc::timespec| (t.tv_sec, t.tv_nsec);
        assert_eq!(parts(decimal_time(b"1700000000.25").unwrap()), (1_700_000_000, 250_000_000));
        assert_eq!(parts(decimal_time(b"-1.5").unwrap()), (-2, 500_000_000));
        assert_eq!(parts(decimal_time(b"-0.5").unwrap()), (-1, 500_000_000));
        assert_eq!(parts(decimal_time(b"-86400").unwrap()), (-86_400, 0));
        assert!(decimal_time(b"now").is_none() && decimal_time(b"1.x").is_none() && decimal_time(b"").is_none());
        assert_eq!(parts(parse_time(b"00000000017\0").unwrap()), (15, 0));
        assert_eq!(parts(parse_time(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]).unwrap()), (-2, 0));
    }

    #[test]
    fn names_cannot_leave() {
        assert_eq!(components(b"/a//b/./c").unwrap(), vec![b"a", b"b", b"c"]);
        assert!(components(b"a/../b").is_err());
        assert!(components(b"..").is_err());
    }
}
