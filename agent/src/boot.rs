//! From the initramfs to the image's root: modules, disks, overlay, the filesystems every process expects.
//!
//! Kernel command line: `stacyvm.base=ext4|erofs` names the base's filesystem (default: both are tried).
//! Disks: virtio serials `base` and `rw` (QEMU), else the first read-only and the first writable disk (Firecracker).

use crate::changes::Layers;
use crate::layer::path_of;
use crate::sys::{self, check, cstring, Fail, Fd, Result};
use crate::tree::fill;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const NEW_ROOT: &str = "/newroot";
/// What makes the two filesystems one to its programs. Without `xino` there are three devices, and a file's number changes when it
/// is first written: programs that compare numbers (`cp`, `tar`, Python's `copyfile`) then empty the file that they copy onto
/// itself. `index` keeps hard links one file when one of them is written. Without `redirect_dir` a directory of the image
/// cannot be renamed. (Linux, Documentation/filesystems/overlayfs.rst)
const OVERLAY: &str = "lowerdir=/base,upperdir=/rw/upper,workdir=/rw/work,xino=on,index=on,redirect_dir=on";
const DISK_WAIT: Duration = Duration::from_secs(10);

pub fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, data: &str) -> Result<()> {
    let (s, t, k, d) = (cstring(source.as_bytes())?, cstring(target.as_bytes())?, cstring(kind.as_bytes())?, cstring(data.as_bytes())?);
    // SAFETY: all strings are NUL-terminated and outlive the call.
    let rc = unsafe { libc::mount(s.as_ptr(), t.as_ptr(), k.as_ptr(), flags, d.as_ptr() as *const libc::c_void) };
    check(rc, &format!("mount {} on {}", kind, target)).map(|_| ())
}

fn mkdir(path: &str) {
    let _ = fs::create_dir_all(path);
}

/// Everything up to a usable root. An error here is the end of the guest.
/// @returns the overlay's parts
pub fn boot() -> Result<Layers> {
    for (source, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        mkdir(target);
        mount(source, target, source, libc::MS_NOSUID, "")?;
    }
    open_console();
    load_modules();
    let disks = find_disks()?;
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let wanted = cmdline.split_whitespace().find_map(|w| w.strip_prefix("stacyvm.base="));
    mkdir("/base");
    mkdir("/rw");
    mkdir(NEW_ROOT);
    mount_base(&disks.base, wanted)?;
    // No lazy initialisation in the background: every clone would go on with it.
    mount(&disks.rw, "/rw", "ext4", libc::MS_NOATIME, "noinit_itable")?;
    mkdir("/rw/upper");
    mkdir("/rw/work");
    mount("overlay", NEW_ROOT, "overlay", libc::MS_NOATIME, OVERLAY)?;
    let layers = Layers::open()?;
    populate()?;
    free_initramfs();
    switch_root()?;
    Ok(layers)
}

fn open_console() {
    if let Ok(console) = sys::open(b"/dev/console", libc::O_RDWR | libc::O_NOCTTY, 0) {
        for fd in 0..3 {
            // SAFETY: plain descriptors; 0 to 2 belong to nobody else yet.
            unsafe { libc::dup2(console.raw(), fd) };
        }
        if console.raw() <= 2 {
            console.into_raw();
        }
    }
}

/// Loads `/modules/*` in the order of their names. One that is built in or loaded already is no error.
fn load_modules() {
    let mut names: Vec<_> = match fs::read_dir("/modules") {
        Ok(entries) => entries.flatten().map(|e| e.path()).collect(),
        Err(_) => return,
    };
    names.sort();
    for path in names {
        let file = match fs::File::open(&path) {
            Ok(f) => f,
            Err(_) => continue,
        };
        use std::os::unix::io::AsRawFd;
        // SAFETY: a valid descriptor and an empty, NUL-terminated parameter string.
        let rc = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), b"\0".as_ptr(), 0) };
        let errno = sys::last_errno();
        if rc < 0 && errno != libc::EEXIST {
            sys::say(&format!("{}: {}", path.display(), std::io::Error::from_raw_os_error(errno)));
        }
    }
}

struct Disks {
    base: String,
    rw: String,
}

fn find_disks() -> Result<Disks> {
    let begin = Instant::now();
    loop {
        let mut names: Vec<String> = fs::read_dir("/sys/block")
            .map(|d| d.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        names.retain(|n| n.starts_with("vd"));
        names.sort();
        let read = |name: &str, file: &str| {
            fs::read_to_string(format!("/sys/block/{}/{}", name, file)).unwrap_or_default().trim().to_string()
        };
        let by_serial = |serial: &str| names.iter().find(|n| read(n, "serial") == serial);
        let by_access = |ro: &str| names.iter().find(|n| read(n, "ro") == ro);
        if let (Some(base), Some(rw)) = (by_serial("base").or_else(|| by_access("1")), by_serial("rw").or_else(|| by_access("0"))) {
            return Ok(Disks { base: format!("/dev/{}", base), rw: format!("/dev/{}", rw) });
        }
        if begin.elapsed() > DISK_WAIT {
            return Err(Fail::new(crate::protocol::status::NOT_FOUND, format!("no base and writable disk among {:?}", names)));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn mount_base(device: &str, wanted: Option<&str>) -> Result<()> {
    let kinds: &[&str] = match wanted {
        Some("erofs") => &["erofs"],
        Some("ext4") => &["ext4"],
        _ => &["erofs", "ext4"],
    };
    let mut result = Ok(());
    for kind in kinds {
        // An image is immutable and may be read-only on the host: its journal must not be replayed.
        let data = if *kind == "ext4" { "noload" } else { "" };
        result = mount(device, "/base", kind, libc::MS_RDONLY | libc::MS_NOATIME, data);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn populate() -> Result<()> {
    let at = |p: &str| format!("{}{}", NEW_ROOT, p);
    for dir in ["/dev", "/proc", "/sys", "/run", "/tmp", "/etc", "/workspace"] {
        mkdir(&at(dir));
    }
    let nodev = libc::MS_NOSUID | libc::MS_NODEV;
    for dir in ["/dev", "/proc", "/sys"] {
        mount(dir, &at(dir), "", libc::MS_MOVE, "")?;
    }
    mkdir(&at("/dev/pts"));
    mkdir(&at("/dev/shm"));
    mkdir(&at("/dev/mqueue"));
    mount("devpts", &at("/dev/pts"), "devpts", libc::MS_NOSUID | libc::MS_NOEXEC, "gid=5,mode=620,ptmxmode=666")?;
    let _ = mount("mqueue", &at("/dev/mqueue"), "mqueue", nodev | libc::MS_NOEXEC, "");
    // Together well below the memory: nothing can be ended to get back what lies in them.
    mount("tmpfs", &at("/dev/shm"), "tmpfs", nodev, "mode=1777,size=50%")?;
    mount_run(&at("/run"), nodev)?;
    let _ = mount("devtmpfs", &at("/dev"), "devtmpfs", libc::MS_REMOUNT | libc::MS_NOSUID, "size=4m,mode=755");
    mount("cgroup2", &at("/sys/fs/cgroup"), "cgroup2", nodev | libc::MS_NOEXEC, "nsdelegate")
        .or_else(|_| mount("cgroup2", &at("/sys/fs/cgroup"), "cgroup2", nodev | libc::MS_NOEXEC, ""))
        .unwrap_or_else(|e| sys::say(&e.message));
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        let _ = std::os::unix::fs::symlink(target, at(link));
    }
    chmod(&at("/tmp"), 0o1777);
    for device in ["/dev/fuse", "/dev/net/tun"] {
        chmod(&at(device), 0o666);
    }
    settings();
    Ok(())
}

/// In memory, and with what the image has there: programs ask for directories of their own in it that a step of the image's build made.
fn mount_run(run: &str, flags: libc::c_ulong) -> Result<()> {
    let image = sys::open(run.as_bytes(), libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?;
    mount("tmpfs", run, "tmpfs", flags, "mode=755,size=10%")?;
    let from = [format!("{}/proc", NEW_ROOT).as_bytes(), &path_of(&image)[b"/proc".len()..]].concat();
    // Of what is too much for it as much is there as it holds, and the guest is.
    fill(&mut || Ok(()), &from, run.as_bytes(), false).unwrap_or_else(|fail| sys::say(&fail.message));
    Ok(())
}

/// As container engines and distributions set them: what programs expect, and nothing that a guest of its own needs to be kept from.
fn settings() {
    for (name, value) in [
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv4/ping_group_range", "0 2147483647"),
        ("fs/inotify/max_user_watches", "524288"),
        ("fs/inotify/max_user_instances", "1024"),
        ("vm/max_map_count", "262144"),
        // Not in every kernel.
        ("kernel/unprivileged_userns_clone", "1"),
    ] {
        let _ = fs::write(format!("{}/proc/sys/{}", NEW_ROOT, name), value);
    }
}

fn chmod(path: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    if let Ok(meta) = fs::metadata(path) {
        if meta.permissions().mode() & 0o7777 != mode {
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
        }
    }
}

/// The running agent keeps its pages; the module files are memory that nobody needs any more.
fn free_initramfs() {
    if !Path::new("/modules").exists() && !Path::new("/init").exists() {
        return;
    }
    let _ = fs::remove_dir_all("/modules");
    let _ = fs::remove_file("/init");
}

fn switch_root() -> Result<()> {
    let dot = cstring(b".")?;
    let slash = cstring(b"/")?;
    let root = cstring(NEW_ROOT.as_bytes())?;
    // SAFETY: NUL-terminated strings that outlive the calls.
    unsafe {
        check(libc::chdir(root.as_ptr()), "chdir to the new root")?;
        mount(".", "/", "", libc::MS_MOVE, "")?;
        check(libc::chroot(dot.as_ptr()), "chroot")?;
        check(libc::chdir(slash.as_ptr()), "chdir /")?;
    }
    // As systemd makes it: what is mounted later is seen in namespaces that were made before (rootless containers ask for it).
    mount("", "/", "", libc::MS_SHARED | libc::MS_REC, "")
}

/// Brings `lo` up, so that servers in the guest and tunnels to them work without a network card.
pub fn loopback_up() -> Result<()> {
    // SAFETY: a zeroed ifreq is valid; the ioctls read and write it only.
    unsafe {
        let socket = Fd::own(check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0), "socket")?);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        check(libc::ioctl(socket.raw(), libc::SIOCGIFFLAGS as _, &mut request), "SIOCGIFFLAGS")?;
        request.ifr_ifru.ifru_flags |= (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(socket.raw(), libc::SIOCSIFFLAGS as _, &mut request), "SIOCSIFFLAGS")?;
    }
    Ok(())
}
