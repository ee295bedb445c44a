//! Volumes: disks that the host puts into the machine's spare slots, mounted before any program of the user's runs.
//!
//! The machine was saved with an empty disk in each slot, and its kernel still believes in that one's size. Firecracker tells it of the new
//! one; under QEMU its driver is made to look anew.

use crate::boot;
use crate::protocol::{status, tag, Fields, Reader};
use crate::sys::{self, check, Fail, Fd, Result};
use crate::user::User;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A kernel that is interpreted may take its time over an interrupt.
const SIZE_WAIT: Duration = Duration::from_secs(20);
/// Whoever made them stand still may be gone: nobody's writes wait longer.
const MOST_STILL: Duration = Duration::from_secs(60);
/// Disks of every machine: its own and its base.
const OWN_DISKS: usize = 2;
const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_blk";
/// linux/fs.h
const FIFREEZE: libc::c_ulong = 0xC004_5877;
const FITHAW: libc::c_ulong = 0xC004_5878;
/// ext4.h: _IOW('f', 16, __u64)
const EXT4_RESIZE: libc::c_ulong = 0x4008_6610;

/// What can be written to, so that it can be made to stand still.
#[derive(Clone, Default)]
pub struct Volumes(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Slots and roots of what is mounted to be written. Not names: a copy's volumes have others.
    writable: Vec<(usize, Fd)>,
    /// Counts the times that they were made to stand still, or to go on.
    turn: u64,
}

pub struct Mount {
    slot: usize,
    bytes: u64,
    path: Vec<u8>,
    name: String,
    read_only: bool,
    probe: bool,
    user: Option<Vec<u8>>,
}

impl Mount {
    /// @param user of the sandbox's commands, to whom a volume belongs in which nobody has written yet
    pub fn new(fields: &Reader, user: Option<&[u8]>) -> Result<Mount> {
        let number = |which, what: &str| fields.number(which).ok_or_else(|| Fail::invalid(format!("no {} given", what)));
        let path = fields.bytes(tag::PATH).unwrap_or(b"").to_vec();
        if path.first() != Some(&b'/') {
            return Err(Fail::invalid("PATH is not absolute"));
        }
        Ok(Mount {
            slot: number(tag::SLOT, "SLOT")? as usize,
            bytes: number(tag::SIZE, "SIZE")?,
            path,
            name: String::from_utf8_lossy(fields.bytes(tag::NAME).unwrap_or(b"")).into_owned(),
            read_only: fields.flag(tag::READ_ONLY),
            probe: fields.flag(tag::PROBE),
            user: user.map(<[u8]>::to_vec),
        })
    }

    /// May take long: the journal of one that was not unmounted is replayed.
    pub fn run(&self, volumes: &Volumes) -> Result<Fields> {
        self.mount(volumes).map_err(|f| Fail { message: format!("volume {}: {}", self.name, f.message), ..f })?;
        Ok(Fields::new())
    }

    fn mount(&self, volumes: &Volumes) -> Result<()> {
        let disk = self.sized_disk()?;
        let device = format!("/dev/{}", disk);
        let found = Superblock::read(&device)?;
        if self.read_only && found.needs_recovery {
            let why = "it was not closed in order, and its journal can only be replayed where it may be written: start a sandbox that may write to it once";
            return Err(Fail::new(status::INVALID, why));
        }
        let shown = String::from_utf8_lossy(&self.path).into_owned();
        fs::create_dir_all(OsStr::from_bytes(&self.path)).map_err(|e| Fail::io(&e, &shown))?;
        let access = if self.read_only { libc::MS_RDONLY } else { 0 };
        // No initialisation in the background: it would fill the holes of the host's file.
        boot::mount(&device, &shown, "ext4", libc::MS_NOATIME | access, "errors=remount-ro,noinit_itable").map_err(damaged)?;
        if self.read_only {
            return Ok(());
        }
        let root = sys::open(&self.path, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        if self.bytes / found.block_bytes > found.blocks {
            let blocks: u64 = self.bytes / found.block_bytes;
            // SAFETY: the descriptor is ours, and the request reads one u64.
            check(unsafe { libc::ioctl(root.raw(), EXT4_RESIZE as _, &blocks) }, "its filesystem cannot grow to its new size")?;
        }
        self.give_to_user(&root);
        volumes.lock().writable.push((self.slot, root));
        Ok(())
    }

    /// One that is as it was made: commands of another user than root could not write to it.
    fn give_to_user(&self, root: &Fd) {
        let fresh = fs::metadata(OsStr::from_bytes(&self.path)).map_or(false, |found| (found.uid(), found.gid()) == (0, 0));
        let empty = || fs::read_dir(OsStr::from_bytes(&self.path)).map_or(false, |list| list.flatten().all(|entry| entry.file_name() == "lost+found"));
        if let Some(user) = self.user.as_ref().filter(|_| fresh && empty()).and_then(|user| User::resolve(user).ok()) {
            // SAFETY: plain integers. One that stays root's can be used by root.
            unsafe { libc::fchown(root.raw(), user.uid, user.gid) };
        }
    }

    /// The disk in the slot, once the kernel knows how large it is.
    fn sized_disk(&self) -> Result<String> {
        let begin = Instant::now();
        let mut probe = self.probe;
        loop {
            let disk = disk_of(self.slot);
            let bytes = disk.as_deref().map(size_of);
            match (disk, bytes) {
                (Some(disk), Some(bytes)) if bytes == self.bytes => return Ok(disk),
                (Some(disk), _) if probe => {
                    look_anew(&disk)?;
                    probe = false;
                    continue;
                }
                _ => {}
            }
            if begin.elapsed() > SIZE_WAIT {
                let have = bytes.map_or("is not there".to_string(), |n| format!("has {} bytes", n));
                return Err(Fail::new(status::TIMEOUT, format!("its disk {} and not {}", have, self.bytes)));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A volume that was mounted, also by the machine that this one is a copy of.
pub struct Mounted {
    slot: usize,
    path: Vec<u8>,
    name: String,
}

impl Mounted {
    pub fn new(fields: &Reader) -> Result<Mounted> {
        Ok(Mounted {
            slot: fields.number(tag::SLOT).ok_or_else(|| Fail::invalid("no SLOT given"))? as usize,
            path: fields.bytes(tag::PATH).unwrap_or(b"").to_vec(),
            name: String::from_utf8_lossy(fields.bytes(tag::NAME).unwrap_or(b"")).into_owned(),
        })
    }

    /// What was written is on the disk. `force`: whatever holds it loses it, and gets errors from then on.
    pub fn unmount(&self, volumes: &Volumes, force: bool) -> Result<Fields> {
        self.named(self.take_away(volumes, force))
    }

    /// It cannot be written to any more. Fails while a program has a file of it open to write.
    pub fn only_read(&self, volumes: &Volumes) -> Result<Fields> {
        let shown = String::from_utf8_lossy(&self.path);
        self.named(boot::mount("", &shown, "", libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NOATIME, "").map_err(|f| held(f, &self.path)))?;
        volumes.lock().writable.retain(|(slot, _)| *slot != self.slot);
        Ok(Fields::new())
    }

    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|f| Fail { message: format!("volume {}: {}", self.name, f.message), ..f })
    }

    fn take_away(&self, volumes: &Volumes, force: bool) -> Result<Fields> {
        // A disk that was taken away is mounted nowhere.
        let disk = match disk_of(self.slot) {
            Some(disk) => disk,
            None => return Ok(Fields::new()),
        };
        let device = format!("/dev/{}", disk);
        // Our own hold on it must go first.
        let mut state = volumes.lock();
        let at = state.writable.iter().position(|(slot, _)| *slot == self.slot);
        let writable = at.map(|at| state.writable.remove(at)).is_some();
        // The last that was mounted first: one may lie in another.
        for place in places_of(&disk).iter().rev() {
            let done = sys::unmount(place, if force { libc::MNT_DETACH } else { 0 });
            if let Err(f) = done {
                self.hold_again(&mut state, writable);
                return Err(held(f, place));
            }
        }
        if force {
            tell_driver("unbind", &device_of(&disk)?)?;
        } else if let Err(f) = sys::open(device.as_bytes(), libc::O_RDONLY | libc::O_EXCL, 0) {
            // Another mount namespace has it still: as long as it does, the filesystem is at work.
            if f.errno != libc::EBUSY {
                return Err(f);
            }
            let access = if writable { 0 } else { libc::MS_RDONLY };
            boot::mount(&device, &String::from_utf8_lossy(&self.path), "ext4", libc::MS_NOATIME | access, "")?;
            self.hold_again(&mut state, writable);
            return Err(Fail::new(status::BUSY, "it is mounted in another mount namespace of the sandbox, too"));
        }
        Ok(Fields::new())
    }

    /// Where its own place is still mounted it goes on as it was.
    fn hold_again(&self, state: &mut State, writable: bool) {
        if let (true, Ok(root)) = (writable, sys::open(&self.path, libc::O_RDONLY | libc::O_DIRECTORY, 0)) {
            state.writable.push((self.slot, root));
        }
    }
}

/// Where a disk is mounted, in the order in which it was.
fn places_of(disk: &str) -> Vec<Vec<u8>> {
    let mounts = fs::read("/proc/self/mounts").unwrap_or_default();
    let device = format!("/dev/{}", disk);
    let lines = mounts.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut words = line.split(|&byte| byte == b' ');
        let source = words.next()?;
        let place = words.next()?;
        (source == device.as_bytes()).then(|| unescaped(place))
    });
    lines.collect()
}

/// A path in /proc/self/mounts: white space and backslashes are written in octal.
pub fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(word.len());
    let mut at = 0;
    while at < word.len() {
        let octal = word.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) if word[at] == b'\\' => {
                path.push(byte);
                at += 4;
            }
            _ => {
                path.push(word[at]);
                at += 1;
            }
        }
    }
    path
}

/// A volume that programs hold.
fn held(f: Fail, place: &[u8]) -> Fail {
    match f.errno {
        libc::EBUSY => {
            let programs = holders(place);
            let whose = if programs.is_empty() { String::new() } else { format!(": {}", programs.join(", ")) };
            let message = format!("programs of the sandbox have files of it open, or work in it{}", whose);
            Fail { status: status::BUSY, message, ..f }
        }
        _ => f,
    }
}

/// Programs with a file of the filesystem there, by name and process id.
fn holders(place: &[u8]) -> Vec<String> {
    const MOST: usize = 8;
    let root = match fs::metadata(OsStr::from_bytes(place)) {
        Ok(root) => root,
        Err(_) => return Vec::new(),
    };
    let mut pids: Vec<u32> = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let own = std::process::id();
    let found = pids.into_iter().filter(|&pid| pid != own && holds(pid, root.dev()));
    let named = found.map(|pid| {
        let name = fs::read_to_string(format!("/proc/{}/comm", pid)).unwrap_or_default();
        format!("{} ({})", name.trim_end(), pid)
    });
    named.take(MOST).collect()
}

fn holds(pid: u32, device: u64) -> bool {
    let on_it = |path: &str| fs::metadata(path).map_or(false, |found| found.dev() == device);
    let own = |name: &str| format!("/proc/{}/{}", pid, name);
    let descriptors = || fs::read_dir(own("fd")).into_iter().flatten().flatten().any(|e| e.path().to_str().map_or(false, on_it));
    let mapped = || {
        // SAFETY: plain arithmetic.
        let (major, minor) = unsafe { (libc::major(device), libc::minor(device)) };
        let number = format!("{:02x}:{:02x}", major, minor);
        let maps = fs::read_to_string(own("maps")).unwrap_or_default();
        maps.lines().any(|line| line.split_ascii_whitespace().nth(3) == Some(number.as_str()))
    };
    ["cwd", "root", "exe"].iter().any(|name| on_it(&own(name))) || descriptors() || mapped()
}

/// A filesystem that the kernel refuses.
fn damaged(f: Fail) -> Fail {
    const EUCLEAN: i32 = 117;
    match f.errno {
        EUCLEAN | libc::EINVAL | libc::EIO => Fail { status: status::IO, message: format!("its filesystem is damaged, or is no ext4 ({})", f.message), ..f },
        _ => f,
    }
}

/// Of an ext4 (Linux, Documentation/filesystems/ext4/super.rst).
struct Superblock {
    blocks: u64,
    block_bytes: u64,
    needs_recovery: bool,
}

impl Superblock {
    fn read(device: &str) -> Result<Superblock> {
        let mut bytes = [0u8; 1024];
        let mut file = fs::File::open(device).map_err(|e| Fail::io(&e, device))?;
        file.seek(SeekFrom::Start(1024)).and_then(|_| file.read_exact(&mut bytes)).map_err(|e| Fail::io(&e, device))?;
        Superblock::parse(&bytes).ok_or_else(|| Fail::new(status::IO, "it holds no ext4"))
    }

    fn parse(bytes: &[u8; 1024]) -> Option<Superblock> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let shift = u32_at(0x18);
        if (bytes[0x38], bytes[0x39]) != (0x53, 0xEF) || shift > 6 {
            return None;
        }
        let incompatible = u32_at(0x60);
        let high = if incompatible & 0x80 != 0 { u64::from(u32_at(0x150)) << 32 } else { 0 };
        Some(Superblock {
            blocks: high | u64::from(u32_at(4)),
            block_bytes: 1024 << shift,
            needs_recovery: incompatible & 4 != 0,
        })
    }
}

fn attribute(disk: &str, name: &str) -> String {
    fs::read_to_string(format!("/sys/block/{}/{}", disk, name)).unwrap_or_default().trim().to_string()
}

fn size_of(disk: &str) -> u64 {
    attribute(disk, "size").parse::<u64>().unwrap_or(0).saturating_mul(512)
}

/// By its serial number (QEMU), else by its place behind the machine's own (Firecracker).
fn disk_of(slot: usize) -> Option<String> {
    let devices = block_devices();
    let disks: Vec<Option<String>> = devices.iter().map(|device| disk_at(device)).collect();
    let serial = format!("volume-{}", slot);
    let with = |wanted: &str| disks.iter().flatten().find(|disk| attribute(disk, "serial") == wanted).cloned();
    match with("base") {
        Some(_) => with(&serial),
        None => disks.into_iter().nth(OWN_DISKS + slot)?,
    }
}

/// In the order in which they came, those without a driver as well: a disk that was let go keeps its place.
fn block_devices() -> Vec<PathBuf> {
    const BLOCK: &str = "0x0002";
    let number = |path: &PathBuf| path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_prefix("virtio")?.parse::<u32>().ok());
    let all = fs::read_dir("/sys/bus/virtio/devices").into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> = all.filter(|path| fs::read_to_string(path.join("device")).map_or(false, |kind| kind.trim() == BLOCK)).collect();
    found.sort_by_key(number);
    found
}

fn disk_at(device: &Path) -> Option<String> {
    let disk = fs::read_dir(device.join("block")).ok()?.flatten().next()?;
    Some(disk.file_name().to_string_lossy().into_owned())
}

/// Lets the driver go, and has it take the disk as if it had just come.
fn look_anew(disk: &str) -> Result<()> {
    let name = device_of(disk)?;
    for what in ["unbind", "bind"] {
        tell_driver(what, &name)?;
    }
    Ok(())
}

fn device_of(disk: &str) -> Result<OsString> {
    let device = fs::read_link(format!("/sys/block/{}/device", disk)).map_err(|e| Fail::io(&e, disk))?;
    device.file_name().map(OsStr::to_owned).ok_or_else(|| Fail::invalid("a disk without a device"))
}

fn tell_driver(what: &str, device: &OsStr) -> Result<()> {
    fs::write(format!("{}/{}", DRIVER, what), device.as_bytes()).map_err(|e| Fail::io(&e, &format!("{} {}", what, device.to_string_lossy())))
}

impl Volumes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What was written is on the disks, whose filesystems are closed as if unmounted; whoever writes waits until they go on.
    pub fn still(&self) -> Result<Fields> {
        let turn = {
            let mut state = self.lock();
            for (slot, root) in &state.writable {
                // SAFETY: the descriptor is ours; the request takes no argument.
                let done = check(unsafe { libc::ioctl(root.raw(), FIFREEZE as _, 0) }, &format!("the volume in slot {}", slot));
                match done {
                    Err(f) if f.errno != libc::EBUSY => {
                        set_going(&state);
                        return Err(f);
                    }
                    _ => {}
                }
            }
            state.turn += 1;
            state.turn
        };
        let volumes = self.clone();
        let watch = move || {
            std::thread::sleep(MOST_STILL);
            if volumes.lock().turn == turn {
                let _ = volumes.go_on();
            }
        };
        if !self.lock().writable.is_empty() && std::thread::Builder::new().stack_size(64 * 1024).spawn(watch).is_err() {
            self.go_on()?;
            return Err(Fail::new(status::LIMIT, "no thread to watch over volumes that stand still"));
        }
        Ok(Fields::new())
    }

    /// One that does not stand still is none the worse for it.
    pub fn go_on(&self) -> Result<Fields> {
        let mut state = self.lock();
        state.turn += 1;
        set_going(&state);
        Ok(Fields::new())
    }
}

fn set_going(state: &State) {
    for (_, root) in &state.writable {
        // SAFETY: the descriptor is ours; the request takes no argument.
        unsafe { libc::ioctl(root.raw(), FITHAW as _, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_paths_of_mounts() {
        assert_eq!(unescaped(b"/a\\040b\\134c\\9"), b"/a b\\c\\9");
        assert_eq!(unescaped(b"/data"), b"/data");
    }

    #[test]
    fn reads_a_superblock() {
        let mut bytes = [0u8; 1024];
        assert!(Superblock::parse(&bytes).is_none());
        bytes[0x38..0x3a].copy_from_slice(&[0x53, 0xEF]);
        bytes[4..8].copy_from_slice(&25_600u32.to_le_bytes());
        bytes[0x18] = 2;
        let found = Superblock::parse(&bytes).expect("an ext4");
        assert_eq!((found.blocks, found.block_bytes, found.needs_recovery), (25_600, 4096, false));
        bytes[0x60] = 0x84;
        bytes[0x150] = 1;
        let found = Superblock::parse(&bytes).expect("an ext4");
        assert_eq!((found.blocks, found.needs_recovery), ((1 << 32) + 25_600, true));
        bytes[0x18] = 60;
        assert!(Superblock::parse(&bytes).is_none());
    }
}
