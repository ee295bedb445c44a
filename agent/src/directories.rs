//! Directories of the host: FUSE filesystems whose requests are handed to the host as they are (SERVE), and its answers to the kernel.
//! Whoever answers there comes and goes, with the session, with the server, with the whole machine; the mount and what the kernel
//! knows of it stay (fuse.rs). Requests wait meanwhile, and are errors when nobody has come, or nobody who came has answered, for long.

use crate::boot;
use crate::buffers::Bytes;
use crate::files;
use crate::fuse::{self, opcode, Table, IN_HEADER, MAX_ANSWER, MAX_REQUEST, OUT_HEADER};
use crate::protocol::{channel, kind, status, tag, Fields, Reader, MAX_PAYLOAD};
use crate::replay::{self, doing, Change, Place, Replay, Unknown};
use crate::session::{token, Agent, Call, Timer};
use crate::sys::{self, Fail, Fd, Result, EDGE_IN};
use crate::user::User;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

/// Without any answer, requests are errors (EIO) after so long, if the host says nothing else.
const WITHIN_MS: u64 = 30_000;
/// Bytes of requests that nobody has answered yet: the rest waits in the kernel.
const MOST_HELD: usize = 4 << 20;
const MOST_QUEUED: usize = 512 * 1024;

struct Request {
    bytes: Vec<u8>,
    /// A helper may have it.
    sent: bool,
    /// Another helper may have done it.
    again: bool,
    replayed: Replayed,
}

/// What a look-up is for, where a change by the host is done once more; with the type of what it is about, as in a mode.
enum Replayed {
    Nothing,
    /// It stands in the place of a making.
    Makes(u32),
    /// If the host has it no more, there is one for the kernel to remove.
    Removes(u32),
}

enum Out {
    Request(u64),
    /// Without an answer.
    Told(Vec<u8>),
}

pub struct Directory {
    place: Place,
    replay: Arc<Replay>,
    /// Changes by the host, for `replay`.
    changes: Vec<Change>,
    made_up: u64,
    /// What the host has been asked for last, for a change that is a removal, and has not: directory and name.
    gone: Option<(u64, Vec<u8>)>,
    fuse: Arc<Fd>,
    stream: Option<u32>,
    /// ns that requests may wait without any answer.
    within: u64,
    /// Since when there was no answer, ns: of what waits, or, where nothing does, since nobody is there to give one.
    quiet: u64,
    /// It was too long, and nobody new has come: what is asked for is an error at once.
    given_up: bool,
    readable: bool,
    /// By their numbers, which grow.
    requests: BTreeMap<u64, Request>,
    held: usize,
    out: VecDeque<Out>,
    /// Of the first of `out`, bytes that are sent.
    sent: usize,
    queued: usize,
    answers: Vec<u8>,
    table: Table,
}

/// Mounted by jobs, for the loop to take.
pub type Fresh = Arc<Mutex<Vec<(Place, u64, Fd)>>>;

#[derive(Default)]
pub struct Directories {
    all: BTreeMap<u64, Directory>,
    next: u64,
    pub fresh: Fresh,
    replay: Arc<Replay>,
    buffer: Vec<u8>,
    /// When the next look at those that are silent is due, ns; 0: there is none.
    due: u64,
}

impl Directories {
    /// Calls about paths may have to wait for the host from now on, which only the loop can ask.
    pub fn any(&self) -> bool {
        !self.all.is_empty() || self.fresh.lock().map_or(true, |fresh| !fresh.is_empty())
    }
}

/// What SHARE asks for, checked.
pub struct Share {
    path: Vec<u8>,
    read_only: bool,
    within: u64,
    user: Option<Vec<u8>>,
}

impl Share {
    pub fn new(fields: &Reader, user: Option<&[u8]>) -> Result<Share> {
        let path = files::path_of(fields, tag::PATH, None)?;
        let within = fields.number(tag::TIMEOUT_MS).filter(|ms| *ms > 0).unwrap_or(WITHIN_MS).saturating_mul(1_000_000);
        Ok(Share { path, read_only: fields.flag(tag::READ_ONLY), within, user: user.map(<[u8]>::to_vec) })
    }

    /// @returns UID and GID of the user that commands run as
    pub fn run(self, fresh: &Fresh) -> Result<Fields> {
        let user = match &self.user {
            Some(spec) => User::resolve(spec)?,
            None => User::root(),
        };
        let shown = files::name(&self.path);
        let made = std::fs::create_dir_all(files::os(&self.path));
        made.map_err(|e| Fail::io(&e, &shown))?;
        let fuse = sys::open(b"/dev/fuse", libc::O_RDWR | libc::O_NONBLOCK, 0)
            .map_err(|f| Fail::new(status::NOT_SUPPORTED, format!("this guest's kernel has no FUSE: {}", f.message)))?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", fuse.raw());
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOATIME;
        boot::mount("host", &shown, "fuse", flags, &options)?;
        if self.read_only {
            // This mount, and not the filesystem: changes by the host are done once more (replay.rs).
            boot::mount("", &shown, "", flags | libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY, "")?;
        }
        let place = Place { device: replay::device_of(&self.path), path: self.path };
        if let Ok(mut list) = fresh.lock() {
            list.push((place, self.within, fuse));
        }
        let mut answer = Fields::new();
        answer.u32(tag::UID, user.uid).u32(tag::GID, user.gid);
        Ok(answer)
    }
}

impl Agent {
    fn take_fresh(&mut self) -> Result<()> {
        let fresh = match self.directories.fresh.lock() {
            Ok(mut list) => std::mem::take(&mut *list),
            Err(_) => return Ok(()),
        };
        for (place, within, fuse) in fresh {
            let number = self.directories.next;
            self.directories.next += 1;
            self.poll.add(fuse.raw(), EDGE_IN, token::DIRECTORY | number)?;
            let directory = Directory {
                place,
                replay: self.directories.replay.clone(),
                changes: Vec::new(),
                made_up: 0,
                gone: None,
                fuse: Arc::new(fuse),
                stream: None,
                within,
                quiet: sys::monotonic(),
                given_up: false,
                readable: true,
                requests: BTreeMap::new(),
                held: 0,
                out: VecDeque::new(),
                sent: 0,
                queued: 0,
                answers: Vec::new(),
                table: Table::default(),
            };
            self.directories.all.insert(number, directory);
        }
        self.arm_directories();
        Ok(())
    }

    /// The host answers for a directory from now on, in the place of whoever did before.
    pub fn serve_call(&mut self, id: u32, fields: &Reader) -> Result<()> {
        self.take_fresh()?;
        let path = files::path_of(fields, tag::PATH, None)?;
        let found = self.directories.all.iter_mut().find(|(_, directory)| directory.place.path == path);
        let (number, directory) = found.ok_or_else(|| Fail::new(status::NOT_FOUND, format!("no directory of the host is at {}", files::name(&path))))?;
        let number = *number;
        let former = directory.stream.replace(id);
        directory.begin();
        if let Some(former) = former {
            self.end(former, Err(Fail::cancelled()));
        }
        self.add(id, Call::Directory(number));
        self.channel.frame(kind::EVENT, 0, 0, id, &[]);
        self.directory_turn(number);
        self.wake(id);
        Ok(())
    }

    /// Whoever has files of it open gets errors from now on.
    pub fn unshare_call(&mut self, id: u32, fields: &Reader) -> Result<()> {
        self.take_fresh()?;
        let keep: Vec<&[u8]> = fields.all(tag::PATH).collect();
        let gone: Vec<u64> = self.directories.all.iter().filter(|(_, d)| !keep.contains(&d.place.path.as_slice())).map(|(n, _)| *n).collect();
        let mut paths = Vec::new();
        for number in gone {
            paths.extend(self.remove_directory(number));
        }
        self.job(id, 0, move |_| {
            for path in paths {
                // One that a program has unmounted is not there any more.
                let _ = sys::unmount(&path, libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW);
            }
            Ok(Fields::new())
        })
    }

    fn remove_directory(&mut self, number: u64) -> Option<Vec<u8>> {
        let directory = self.directories.all.remove(&number)?;
        self.poll.remove(directory.fuse.raw());
        if let Some(stream) = directory.stream {
            self.end(stream, Err(Fail::new(status::NOT_FOUND, "the directory was unmounted")));
        }
        Some(directory.place.path)
    }

    pub fn directory_ready(&mut self, number: u64) {
        if let Some(directory) = self.directories.all.get_mut(&number) {
            directory.readable = true;
            self.directory_turn(number);
        }
    }

    /// Takes what the kernel asks for, as long as somebody answers it, and it has room.
    fn directory_turn(&mut self, number: u64) {
        if self.directories.buffer.is_empty() {
            self.directories.buffer = vec![0; MAX_REQUEST];
        }
        loop {
            let directory = match self.directories.all.get_mut(&number) {
                Some(directory) => directory,
                None => return,
            };
            if !directory.readable || !directory.may_take() {
                break;
            }
            match sys::read(directory.fuse.raw(), &mut self.directories.buffer) {
                Ok(length) => directory.asked(self.directories.buffer.get(..length).unwrap_or(&[])),
                Err(libc::EAGAIN) => directory.readable = false,
                // The program that waited for it was ended.
                Err(libc::ENOENT) => {}
                Err(_) => {
                    self.remove_directory(number);
                    return;
                }
            }
        }
        self.arm_directories();
        if let Some(stream) = self.directories.all.get(&number).and_then(|directory| directory.stream) {
            self.wake(stream);
        }
    }

    /// Looks at those that are silent when the first of them has been for too long.
    fn arm_directories(&mut self) {
        let first = self.directories.all.values().filter_map(Directory::deadline).min();
        if let Some(at) = first.filter(|at| self.directories.due == 0 || *at < self.directories.due) {
            self.directories.due = at;
            self.timers.insert((at, 0, Timer::Directories), ());
        }
    }

    /// Answers from the host.
    pub fn directory_input(&mut self, id: u32, number: u64, bytes: Bytes) {
        let understood = match self.directories.all.get_mut(&number) {
            Some(directory) => {
                let understood = directory.answered(&bytes);
                if !directory.changes.is_empty() {
                    directory.replay.add(&directory.place, std::mem::take(&mut directory.changes));
                }
                understood
            }
            None => return,
        };
        if !understood {
            self.leave_directory(number);
            self.end(id, Err(Fail::new(status::PROTOCOL, "the host answered something else than FUSE")));
            return;
        }
        self.grant(id, bytes.len());
        self.directory_turn(number);
    }

    /// One frame of requests. @returns whether there may be more
    pub fn directory_send(&mut self, id: u32, number: u64) -> bool {
        let (stream, directory) = match (self.streams.get_mut(&id), self.directories.all.get_mut(&number)) {
            (Some(stream), Some(directory)) => (stream, directory),
            _ => return false,
        };
        let room = stream.credit.min(MAX_PAYLOAD as u64) as usize;
        let length = directory.fill(&mut self.scratch.payload()[..room]);
        if length == 0 {
            return false;
        }
        stream.credit -= length as u64;
        self.channel.frame_from(kind::DATA, channel::BODY, id, &mut self.scratch, length);
        self.directory_turn(number);
        true
    }

    /// Nobody answers any more.
    pub fn leave_directory(&mut self, number: u64) {
        if let Some(directory) = self.directories.all.get_mut(&number) {
            directory.stream = None;
            if directory.requests.is_empty() {
                directory.quiet = sys::monotonic();
            }
            self.arm_directories();
        }
    }

    /// Nobody has answered for long.
    pub fn directories_silent(&mut self) {
        self.directories.due = 0;
        let now = sys::monotonic();
        let numbers: Vec<u64> = self.directories.all.keys().copied().collect();
        for number in numbers {
            if let Some(directory) = self.directories.all.get_mut(&number).filter(|d| d.deadline().map_or(false, |at| now >= at)) {
                let silent = directory.stream.take();
                directory.given_up = true;
                directory.fail_all();
                let seconds = directory.within / 1_000_000_000;
                if let Some(stream) = silent {
                    // Whoever is there hangs: somebody new may not.
                    self.end(stream, Err(Fail::new(status::TIMEOUT, format!("nothing was answered within {} s", seconds))));
                }
                self.directory_turn(number);
            }
        }
        self.arm_directories();
    }
}

impl Directory {
    /// When what waits is to be an error, ns.
    fn deadline(&self) -> Option<u64> {
        let waits = if self.stream.is_some() { !self.requests.is_empty() } else { !self.given_up };
        Some(self.quiet.saturating_add(self.within)).filter(|_| waits)
    }

    fn may_take(&self) -> bool {
        match self.stream {
            Some(_) => self.held < MOST_HELD && self.queued < MOST_QUEUED,
            None => self.given_up,
        }
    }

    fn tell(&mut self, answer: &[u8]) -> std::result::Result<(), i32> {
        sys::write(self.fuse.raw(), answer).map(|_| ())
    }

    fn fail(&mut self, unique: u64, errno: i32) {
        let _ = self.tell(&fuse::failure(unique, errno));
    }

    /// For somebody new: what the kernel knows, then what it waits for.
    fn begin(&mut self) {
        self.given_up = false;
        self.answers.clear();
        self.out.clear();
        self.sent = 0;
        self.queued = 0;
        for message in self.table.messages() {
            self.push(Out::Told(message));
        }
        let waiting: Vec<u64> = self.requests.keys().copied().collect();
        for unique in waiting {
            let maybe_done = match self.requests.get_mut(&unique) {
                Some(request) => {
                    if std::mem::take(&mut request.sent) {
                        request.again = true;
                        fuse::not_appending(&mut request.bytes);
                    }
                    request.again && fuse::once_only(&request.bytes)
                }
                None => false,
            };
            if maybe_done {
                self.take(unique);
                self.fail(unique, libc::EIO);
            } else {
                self.push(Out::Request(unique));
            }
        }
    }

    fn push(&mut self, out: Out) {
        self.queued += match &out {
            Out::Told(bytes) => bytes.len(),
            Out::Request(unique) => self.requests.get(unique).map_or(0, |request| request.bytes.len()),
        };
        self.out.push_back(out);
    }

    fn take(&mut self, unique: u64) -> Option<Request> {
        let request = self.requests.remove(&unique)?;
        self.held -= request.bytes.len();
        Some(request)
    }

    fn asked(&mut self, request: &[u8]) {
        if request.len() < IN_HEADER {
            return;
        }
        let unique = fuse::unique_of(request);
        if let Some(doing) = self.replay.asks(fuse::thread_of(request)) {
            return self.replayed(request, doing);
        }
        self.table.asked(request);
        match fuse::opcode_of(request) {
            opcode::INIT => {
                let _ = self.tell(&fuse::init(request));
            }
            opcode::DESTROY => self.fail(unique, 0),
            // The kernel asks no more then, and waits for what it has asked for.
            opcode::INTERRUPT => self.fail(unique, libc::ENOSYS),
            opcode::FORGET | opcode::BATCH_FORGET => {
                if self.stream.is_some() {
                    self.push(Out::Told(request.to_vec()));
                }
            }
            _ => self.pass_on(request.to_vec(), Replayed::Nothing),
        }
    }

    fn pass_on(&mut self, bytes: Vec<u8>, replayed: Replayed) {
        let unique = fuse::unique_of(&bytes);
        if self.stream.is_none() {
            return self.fail(unique, libc::EIO);
        }
        if self.requests.is_empty() {
            self.quiet = sys::monotonic();
        }
        self.held += bytes.len();
        self.requests.insert(unique, Request { bytes, sent: false, again: false, replayed });
        self.push(Out::Request(unique));
    }

    /// What the kernel asks for because a change by the host is done once more: nothing of it reaches the host but looks.
    fn replayed(&mut self, request: &[u8], doing: u32) {
        let (unique, node) = (fuse::unique_of(request), fuse::u64_at(request, 16));
        match (fuse::opcode_of(request), fuse::made_by(request)) {
            (opcode::LOOKUP, Some((name, _))) if doing & doing::MAKING != 0 && (doing & doing::ANEW != 0 || !self.table.knows(node, name)) => self.fail(unique, libc::ENOENT),
            (opcode::LOOKUP, _) if doing & doing::REMOVING != 0 => {
                self.gone = None;
                self.pass_on(request.to_vec(), Replayed::Removes(doing & libc::S_IFMT));
            }
            (opcode::SYMLINK | opcode::MKDIR | opcode::MKNOD, Some((name, kind))) => self.pass_on(fuse::look_up_instead(request, name), Replayed::Makes(kind)),
            // Nothing that the host has is removed here, nor what the kernel believes to be there still: it looks once more, and asks again.
            (opcode::UNLINK | opcode::RMDIR, _) if self.gone.take() != Some((node, fuse::named_in(request).to_vec())) => {
                self.fail(unique, libc::ESTALE);
            }
            (opcode::UNLINK | opcode::RMDIR, _) => {
                self.table.done(request, &[]);
                self.fail(unique, 0);
            }
            (opcode::SETATTR, _) => self.pass_on(fuse::look_at_instead(request), Replayed::Nothing),
            (opcode::FORGET | opcode::BATCH_FORGET, _) => {
                self.table.asked(request);
                if self.stream.is_some() {
                    self.push(Out::Told(request.to_vec()));
                }
            }
            (opcode::INTERRUPT, _) => self.fail(unique, libc::ENOSYS),
            _ => self.pass_on(request.to_vec(), Replayed::Nothing),
        }
    }

    /// Requests, one after the other. @returns bytes
    fn fill(&mut self, room: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < room.len() {
            let bytes = match self.out.front() {
                None => break,
                Some(Out::Told(bytes)) => bytes,
                Some(Out::Request(unique)) => match self.requests.get_mut(unique) {
                    Some(request) => {
                        request.sent = true;
                        &request.bytes
                    }
                    None => {
                        self.out.pop_front();
                        self.sent = 0;
                        continue;
                    }
                },
            };
            let rest = bytes.get(self.sent..).unwrap_or(&[]);
            let n = rest.len().min(room.len() - filled);
            room[filled..filled + n].copy_from_slice(&rest[..n]);
            filled += n;
            self.sent += n;
            self.queued = self.queued.saturating_sub(n);
            if n == rest.len() {
                self.out.pop_front();
                self.sent = 0;
            }
        }
        filled
    }

    /// @returns false for bytes that are no answers
    fn answered(&mut self, bytes: &[u8]) -> bool {
        let mut all = std::mem::take(&mut self.answers);
        all.extend_from_slice(bytes);
        let mut start = 0;
        while all.len() - start >= OUT_HEADER {
            let length = fuse::u32_at(&all, start) as usize;
            if !(OUT_HEADER..=MAX_ANSWER).contains(&length) {
                return false;
            }
            match all.get(start..start + length) {
                Some(answer) => self.answer(answer),
                None => break,
            }
            start += length;
        }
        all.drain(..start);
        self.answers = all;
        true
    }

    fn answer(&mut self, answer: &[u8]) {
        let unique = fuse::u64_at(answer, 8);
        if unique == 0 {
            if let Some(mut change) = fuse::change_in(answer) {
                change.unknown = self.table.unknown_in(&change.path).map(|parent| Unknown { parent, fuse: Arc::downgrade(&self.fuse) });
                self.changes.push(change);
            }
            return;
        }
        let request = match self.take(unique) {
            Some(request) => request,
            None => return,
        };
        self.quiet = sys::monotonic();
        let errno = -(fuse::u32_at(answer, 4) as i32);
        match request.replayed {
            Replayed::Makes(kind) if errno == 0 && !fuse::tells_of(answer, kind) => {
                // Something else is there by now. The kernel will not have it.
                self.push(Out::Told(fuse::forget_message(fuse::u64_at(answer, OUT_HEADER))));
                return self.fail(unique, libc::ENOENT);
            }
            Replayed::Removes(kind) if errno == libc::ENOENT => {
                self.gone = Some((fuse::u64_at(&request.bytes, 16), fuse::named_in(&request.bytes).to_vec()));
                self.made_up += 1;
                let _ = self.tell(&fuse::made_up(unique, self.made_up, kind));
                return;
            }
            _ => {}
        }
        let done = errno == 0 || (request.again && errno == libc::ENOENT && fuse::missing_means_done(&request.bytes));
        let told = if done { self.table.done(&request.bytes, answer) } else { Vec::new() };
        if let Some(node) = self.table.opened_as_listed(&request.bytes).filter(|_| done) {
            let _ = self.tell(&fuse::outdated(node));
        }
        let given = if done && errno != 0 { self.tell(&fuse::failure(unique, 0)) } else { self.tell(answer) };
        match given {
            Ok(()) => {}
            // The program that waited for it was ended, so the kernel knows nothing of it.
            Err(libc::ENOENT) => {
                for node in told {
                    self.table.forget(node, 1);
                    self.push(Out::Told(fuse::forget_message(node)));
                }
            }
            // Not what the kernel expects as an answer to that.
            Err(_) => self.fail(unique, libc::EIO),
        }
    }

    fn fail_all(&mut self) {
        let waiting: Vec<u64> = self.requests.keys().copied().collect();
        for unique in waiting {
            self.take(unique);
            self.fail(unique, libc::EIO);
        }
    }
}
