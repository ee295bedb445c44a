//! Serves one directory of the host to one guest: FUSE requests on stdin, answers on stdout, each as the guest's kernel has written it. What
//! is asked for is hostile; docs/security.md says what holds it.
//!
//! Arguments: the directory (absolute, without links in it), `rw` or `ro`, the user and group that files of ours belong to in the guest, the server's
//! pid, and a directory that no guest may see, wherever it lies (the server's own data), and how
//! many directories it may watch for changes by the host. For a copy that has its own layer over it (layer.rs) also the
//! directory of that, and how many bytes it may take. When it is ready it writes one line on stderr: `ready`, or why not. It ends with its server.

mod confine;
mod holes;
mod layer;
mod serve;
mod sys;
mod tree;
mod watch;
mod wire;

use serve::Server;
use std::os::unix::ffi::OsStringExt;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use wire::{Header, IN_HEADER, MAX_MESSAGE};

/// The server wants to know which files are open to write (SIGUSR1): it is told on stderr, each path with a zero behind it and one more behind
/// all of them.
static WANTED: AtomicBool = AtomicBool::new(false);

extern "C" fn wanted(_: libc::c_int) {
    WANTED.store(true, Ordering::Relaxed);
}

const USAGE: &str = "usage: stacyvm-directory DIRECTORY rw|ro UID GID SERVER-PID HIDDEN WATCHES [LAYER BYTES]";

fn main() {
    let arguments: Vec<Vec<u8>> = std::env::args_os().skip(1).map(OsStringExt::into_vec).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse::<u32>().ok());
    let (path, access, hidden) = match (arguments.get(0), arguments.get(1).map(Vec::as_slice), arguments.get(5)) {
        (Some(path), Some(access), Some(hidden)) if path.starts_with(b"/") && (access == b"rw" || access == b"ro") => (path, access, hidden),
        _ => fail(USAGE),
    };
    let (uid, gid, server, watched) = match (number(2), number(3), number(4), number(6)) {
        (Some(uid), Some(gid), Some(server), Some(watched)) => (uid, gid, server, watched),
        _ => fail(USAGE),
    };
    let layer = match (arguments.get(7), arguments.get(8).and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok())) {
        (None, _) => None,
        (Some(place), Some(bytes)) if place.starts_with(b"/") => Some((place.as_slice(), bytes)),
        _ => fail(USAGE),
    };
    end_with(server);
    // SAFETY: the handler does nothing but store.
    unsafe { libc::signal(libc::SIGUSR1, wanted as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    let (root, layer, own) = confine::confine(path, hidden, layer, || end_with(server)).unwrap_or_else(|why| fail(&why));
    let mut server = Server::new(root, layer, access == b"ro", watched as usize, own, (uid, gid));
    say("ready");
    run(&mut server);
}

/// Until nobody asks any more.
fn run(server: &mut Server) {
    let mut buffer = vec![0; 2 * MAX_MESSAGE];
    let (mut start, mut end) = (0, 0);
    loop {
        while end - start >= IN_HEADER {
            let header = match Header::parse(&buffer[start..end]) {
                Some(header) => header,
                None => fail("the guest sent something else than requests"),
            };
            if end - start < header.length {
                break;
            }
            if let Some(answer) = server.serve(&header, &buffer[start + IN_HEADER..start + header.length]) {
                // What the host has made is told before the guest's kernel learns that it is there (agent/src/replay.rs).
                if header.looks() {
                    server.changes().iter().for_each(|change| write_all(change));
                }
                write_all(&answer);
            }
            start += header.length;
        }
        buffer.copy_within(start..end, 0);
        end -= start;
        start = 0;
        for change in server.changes() {
            write_all(&change);
        }
        if WANTED.swap(false, Ordering::Relaxed) {
            let mut list = server.open_to_write().join(&0);
            list.extend_from_slice(if list.is_empty() { b"\0" } else { b"\0\0" });
            write_all_to(2, &list);
        }
        if !is_asked(server.watching()) {
            continue;
        }
        let room = &mut buffer[end..];
        // SAFETY: the slice is valid for its length.
        match sys::uninterrupted(|| unsafe { libc::read(0, room.as_mut_ptr().cast(), room.len()) as i64 }) {
            Ok(0) => exit(0),
            Ok(length) => end += length as usize,
            Err(_) => exit(1),
        }
    }
}

/// Waits for requests, changes by the host, or a signal. @returns whether there are requests
fn is_asked(watching: i32) -> bool {
    let mut both = [0, watching].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: the list is valid for its length.
    unsafe { libc::poll(both.as_mut_ptr(), 2, -1) > 0 && both[0].revents != 0 }
}

fn write_all(bytes: &[u8]) {
    write_all_to(1, bytes);
}

fn write_all_to(file: libc::c_int, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the slice is valid for its length.
        match sys::uninterrupted(|| unsafe { libc::write(file, bytes.as_ptr().cast(), bytes.len()) as i64 }) {
            Ok(length) => bytes = &bytes[length as usize..],
            Err(_) => exit(0),
        }
    }
}

fn end_with(server: u32) {
    // SAFETY: plain call.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // It may have ended before the line above.
    if server != std::os::unix::process::parent_id() {
        exit(0);
    }
}

fn say(text: &str) {
    let line = format!("{}\n", text);
    // SAFETY: the string is valid for its length.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}

fn fail(why: &str) -> ! {
    say(why);
    exit(2)
}
