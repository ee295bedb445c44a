//! The loop: one epoll wait, frames in, calls, frames out. Everything that can block is elsewhere (jobs.rs).

use crate::accept::Listener;
use crate::attributes;
use crate::buffers::{Buffer, Bytes};
use crate::channel::{Channel, Received};
use crate::command::{Command, Follower};
use crate::decoder::{Decoder, LARGE};
use crate::directories::{Directories, Share};
use crate::files::{self, ReadJob, WriteJob, SMALL};
use crate::identity::Identity;
use crate::intercept::Intercept;
use crate::jobs::{self, Handle, Mailbox, Message};
use crate::pause::Pause;
use crate::protocol::{channel, kind, method, number, status, tag, Fields, Header, Reader, EXTRA_CREDIT, FLAG_FIN, GRANT_STEP, INITIAL_CREDIT};
use crate::protocol::{MAX_PAYLOAD, MAX_PING, VERSION, WIDE_GRANT_STEP};
use crate::queue::Queue;
use crate::group::Group;
use crate::memory::Watch;
use crate::sentinel::{self, Sentinel};
use crate::starting::Starting;
use crate::system;
use crate::sys::{self, Fail, Fd, Poll, Result, EDGE_BOTH, LEVEL_IN};
use crate::tunnel::Tunnel;
use crate::volumes::{Mount, Mounted, Volumes};
use crate::changes::{changes, Layers};
use crate::{glob, tar, tree, watch};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const MAX_STREAMS: usize = 1024;
/// Of a call that come after its first frame, bytes: well above what the kernel takes as arguments and environment.
const MAX_FIELDS: u64 = 8 << 20;
pub const AGENT: &str = concat!("stacyvm-agent/", env!("CARGO_PKG_VERSION"));

/// What epoll tells: the kind in the upper byte, the rest names the object.
pub mod token {
    pub const CHANNEL: u64 = 1 << 56;
    pub const LISTENER: u64 = 2 << 56;
    pub const CHILDREN: u64 = 3 << 56;
    pub const MAILBOX: u64 = 4 << 56;
    pub const OUTPUT: u64 = 5 << 56;
    pub const STDIN: u64 = 6 << 56;
    pub const STREAM: u64 = 7 << 56;
    pub const INBOUND: u64 = 8 << 56;
    pub const SENTINEL_LISTENER: u64 = 9 << 56;
    pub const SENTINEL: u64 = 10 << 56;
    pub const DATAGRAMS: u64 = 11 << 56;
    pub const MEMORY: u64 = 12 << 56;
    pub const DIRECTORY: u64 = 13 << 56;
    pub const KIND: u64 = 0xff << 56;
}

pub enum Call {
    /// Follows a command. `owner`: this call started it, so its CANCEL ends the command.
    Follow { command: u64, owner: bool },
    /// A small body is collected before anything is touched.
    Write { job: Option<WriteJob>, body: Vec<u8> },
    /// Blocking work; `frames` (DATA and EVENT) wait to be sent.
    Job { handle: Handle, frames: VecDeque<Message>, end: Option<Result<Fields>> },
    Tunnel(Tunnel),
    /// Waits for a connection, with what the host has sent for it already.
    Accept(Queue),
    /// Datagrams of programs, and the answers to them.
    Datagrams,
    /// Requests for a directory of the host, by its number.
    Directory(u64),
    /// A command that is being started, with what the host has sent for it already.
    Starting(Vec<Bytes>),
    /// The fields of a call that did not fit into one frame; so many bytes of them are missing.
    Gather { method: u16, fields: Vec<u8>, missing: usize },
}

pub struct Stream {
    pub call: Call,
    /// DATA bytes that we may still send.
    pub credit: u64,
    /// DATA bytes that the host may still send.
    pub window: u64,
    /// DATA bytes that were taken and that the host was not told of.
    taken: usize,
    /// The host was granted `EXTRA_CREDIT`.
    wide: bool,
    /// The host sent FIN.
    pub fin: bool,
    /// It waits in `ready`.
    queued: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The command's time is up.
    Timeout,
    /// It had its grace.
    Kill,
    /// Others that hold an ended command's output open had time to write.
    Drain,
    /// A new connection has waited long enough for the sentinel's end.
    Sentinel,
    /// Another look at memory that runs out.
    Memory,
    /// The command has been running for a while.
    Settle,
    /// Nobody has answered for a directory of the host.
    Directories,
}

pub struct Agent {
    pub poll: Poll,
    pub channel: Channel,
    sentinel: Option<Sentinel>,
    /// The connection is new, and is read when the sentinel has ended.
    held: bool,
    decoder: Decoder,
    /// A session is open: HELLO was answered.
    open: bool,
    /// Reading stopped because the host does not take what was asked for.
    held_back: bool,
    pub identity: Identity,
    pub streams: BTreeMap<u32, Stream>,
    /// By `accept::PORT` and `accept::ANYWHERE`.
    pub inbound: [Option<Listener>; 2],
    pub intercept: Option<Intercept>,
    /// There is to be a network once the handshake is answered, and before anything else is done.
    pub network_due: bool,
    ready: VecDeque<u32>,
    pub commands: BTreeMap<u64, Command>,
    pub next_command: u64,
    /// Commands whose output nobody follows and that had more than one turn's worth.
    pub unfollowed: VecDeque<u64>,
    /// Commands whose stdin was given something in this turn.
    pub fed: Vec<u64>,
    /// Bytes that this turn has moved to or from a command or a file in large pieces.
    bulk: usize,
    pause: Pause,
    pub timers: BTreeMap<(u64, u64, Timer), ()>,
    pub mailbox: Arc<Mailbox>,
    next_serial: u64,
    /// Which stream a job belongs to.
    jobs: BTreeMap<u64, u32>,
    /// Jobs that still run, also those of former sessions.
    running_jobs: usize,
    children: Fd,
    layers: Layers,
    volumes: Option<Volumes>,
    pub directories: Directories,
    /// Commands that jobs start, by the jobs' numbers.
    pub starting: BTreeMap<u64, Starting>,
    /// Children that ended before the loop knew whose they are, while some are being started: pid and status.
    pub early_ends: Vec<(i32, i32)>,
    pub null: Fd,
    pub scratch: Buffer,
    pub stack: Vec<u8>,
    pub group: Option<Group>,
    pub memory_watch: Option<Watch>,
    /// The guest's, bytes.
    pub memory: usize,
}

impl Agent {
    pub fn new(channel: Channel, identity: Identity, children: Fd, group: Option<Group>, layers: Layers) -> Result<Agent> {
        let poll = Poll::new()?;
        let mailbox = Mailbox::new()?;
        if let Some(fd) = channel.fd() {
            poll.add(fd, EDGE_BOTH, token::CHANNEL)?;
        }
        let mut sentinel = None;
        if let Some(fd) = channel.listener() {
            poll.add(fd, LEVEL_IN, token::LISTENER)?;
            sentinel = Some(Sentinel::open(&poll, token::SENTINEL_LISTENER)?);
        }
        poll.add(children.raw(), LEVEL_IN, token::CHILDREN)?;
        poll.add(mailbox.bell(), LEVEL_IN, token::MAILBOX)?;
        let memory_watch = Watch::open().ok();
        if let Some((fd, events, token)) = memory_watch.as_ref().map(Watch::fd) {
            poll.add(fd, events, token)?;
        }
        Ok(Agent {
            poll,
            channel,
            sentinel,
            held: false,
            decoder: Decoder::for_agent(),
            open: false,
            held_back: false,
            identity,
            streams: BTreeMap::new(),
            inbound: [None, None],
            intercept: None,
            network_due: false,
            ready: VecDeque::new(),
            commands: BTreeMap::new(),
            next_command: 1,
            unfollowed: VecDeque::new(),
            fed: Vec::new(),
            bulk: 0,
            pause: Pause::default(),
            timers: BTreeMap::new(),
            mailbox,
            next_serial: 1,
            jobs: BTreeMap::new(),
            running_jobs: 0,
            children,
            layers,
            volumes: None,
            directories: Directories::default(),
            starting: BTreeMap::new(),
            early_ends: Vec::new(),
            null: sys::open(b"/dev/null", libc::O_RDWR, 0)?,
            scratch: Buffer::new(),
            stack: vec![0; 65_536],
            group,
            memory_watch,
            memory: system::memory(),
        })
    }

    pub fn run(&mut self) -> ! {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        loop {
            let timeout = self.timeout();
            let list = self.poll.wait(&mut events, timeout);
            let mut read_channel = false;
            for event in list {
                let (flags, tok) = (event.events, event.u64);
                let id = tok & !token::KIND;
                match tok & token::KIND {
                    token::CHANNEL => {
                        if flags & libc::EPOLLOUT as u32 != 0 {
                            self.channel.unblock();
                        }
                        // While much is sent, most events only say that there is room again.
                        read_channel |= flags & !(libc::EPOLLOUT as u32) != 0;
                    }
                    token::LISTENER => self.accept(),
                    token::SENTINEL_LISTENER => {
                        if let Some(sentinel) = &mut self.sentinel {
                            sentinel.accept(&self.poll, token::SENTINEL);
                        }
                    }
                    token::SENTINEL => read_channel |= self.sentinel_ended(),
                    token::CHILDREN => self.reap(),
                    token::MAILBOX => self.letters(),
                    token::OUTPUT => self.output_ready(id >> 1, (id & 1) as usize, flags),
                    token::STDIN => self.bulk += self.flush_stdin(id),
                    token::STREAM => self.tunnel_ready(id as u32, flags),
                    token::INBOUND => self.take_connections(id as usize),
                    token::DATAGRAMS => self.datagrams_ready(),
                    token::MEMORY => self.memory_event(),
                    token::DIRECTORY => self.directory_ready(id),
                    _ => {}
                }
            }
            // Also when the last turn stopped reading because too much waited to be sent.
            if read_channel || self.held_back {
                self.receive();
            }
            for number in std::mem::take(&mut self.fed) {
                self.flush_stdin(number);
            }
            self.turn_unfollowed();
            self.run_timers();
            self.pump();
            // Until the kernel has noted that the host is there, the answer to its handshake has to wait.
            if self.channel.queued() == 0 {
                self.finish_handshake();
            }
            let moved = std::mem::take(&mut self.bulk);
            self.pause.after(moved, self.channel.blocked());
        }
    }

    fn timeout(&self) -> i32 {
        // Held back, and then everything was sent at once: no event will say so.
        let resume = self.held_back && !self.channel.blocked();
        if resume || !self.unfollowed.is_empty() || (!self.ready.is_empty() && self.channel.room() && !self.channel.blocked()) {
            return 0;
        }
        match self.timers.keys().next() {
            None => -1,
            Some((at, _, _)) => {
                // Rounded up, so that it never wakes just before; at most an hour, so that it fits.
                let ms = at.saturating_sub(sys::monotonic()).saturating_add(999_999) / 1_000_000;
                ms.min(3_600_000) as i32
            }
        }
    }

    fn accept(&mut self) {
        if self.channel.accept() {
            self.end_session();
            self.channel.discard();
            self.channel.unblock();
            self.decoder.reset();
            if let Some(fd) = self.channel.fd() {
                if let Err(fail) = self.poll.add(fd, EDGE_BOTH, token::CHANNEL) {
                    sys::say(&fail.message);
                }
            }
            self.no_longer_held();
            self.held = self.sentinel.as_ref().map_or(false, Sentinel::alive);
            if self.held {
                self.timers.insert((sys::monotonic() + sentinel::LIMIT_NS, 0, Timer::Sentinel), ());
            }
        }
    }

    /// @returns whether a connection has waited for this, and is to be read now
    fn sentinel_ended(&mut self) -> bool {
        if let Some(sentinel) = &mut self.sentinel {
            sentinel.look();
            if sentinel.alive() {
                return false;
            }
        }
        self.no_longer_held()
    }

    fn no_longer_held(&mut self) -> bool {
        self.timers.retain(|(_, _, timer), _| *timer != Timer::Sentinel);
        std::mem::take(&mut self.held)
    }

    pub fn held_long_enough(&mut self) {
        if self.no_longer_held() {
            self.receive();
        }
    }

    /// Reads until the channel is empty, answering as it goes.
    fn receive(&mut self) {
        if self.held {
            return;
        }
        loop {
            // Those that an answer without room has left, before anything is read behind them.
            self.frames();
            self.held_back = !self.channel.may_read();
            if self.held_back {
                return;
            }
            match self.channel.read(self.decoder.space()) {
                Received::Empty => return,
                Received::Gone if self.channel.unannounced() => return,
                Received::Gone => {
                    self.end_session();
                    self.decoder.reset();
                    self.channel.close_connection();
                    return;
                }
                Received::Bytes(n) => {
                    self.decoder.filled(n);
                    self.frames();
                    self.channel.flush();
                }
            }
        }
    }

    /// The frames that are there, as long as their answers have room: the rest waits in the decoder.
    fn frames(&mut self) {
        while self.channel.may_read() {
            match self.decoder.next() {
                Ok(None) => return,
                Ok(Some((header, range))) => {
                    let result = if header.kind == kind::DATA {
                        let payload = self.decoder.take(range);
                        self.data(header.stream, header.flags & FLAG_FIN != 0, payload)
                    } else {
                        let buffer = self.decoder.lend();
                        let result = self.frame(&header, buffer.get(range).unwrap_or(&[]));
                        self.decoder.give_back(buffer);
                        result
                    };
                    if let Err(why) = result {
                        self.fault(why);
                    }
                }
                Err(violation) => self.fault(violation.text()),
            }
        }
    }

    /// The host broke the rules: say so, forget the session, wait for the next HELLO.
    fn fault(&mut self, why: &str) {
        if self.open {
            let fields = Fail::new(status::PROTOCOL, why).fields();
            self.channel.frame(kind::FAULT, 0, 0, 0, &fields.0);
        }
        self.decoder.hunt();
        self.end_session();
    }

    /// Forgets every stream. Commands go on, jobs are cancelled.
    fn end_session(&mut self) {
        self.open = false;
        self.ready.clear();
        for (id, stream) in std::mem::take(&mut self.streams) {
            match stream.call {
                Call::Follow { command, .. } => self.unfollow(command, id, true),
                Call::Job { handle, .. } => handle.cancel(),
                Call::Directory(number) => self.leave_directory(number),
                Call::Write { .. } | Call::Tunnel(_) | Call::Accept(_) | Call::Datagrams | Call::Starting(_) | Call::Gather { .. } => {}
            }
        }
        self.forget_waiting();
        self.forget_datagrams();
        self.jobs.clear();
    }

    /// Any frame but DATA.
    fn frame(&mut self, header: &Header, payload: &[u8]) -> std::result::Result<(), &'static str> {
        let id = header.stream;
        match header.kind {
            kind::HELLO => self.hello(payload),
            kind::OPEN => self.open_call(id, payload),
            kind::CREDIT => {
                let more = number(payload).filter(|_| payload.len() == 4).ok_or("CREDIT is not a u32")?;
                if let Some(stream) = self.streams.get_mut(&id) {
                    match &stream.call {
                        Call::Job { handle, .. } => handle.credit(more),
                        _ => stream.credit = stream.credit.saturating_add(more),
                    }
                    self.wake(id);
                }
                Ok(())
            }
            kind::CTRL => {
                let fields = Reader::new(payload).map_err(|_| "bad fields in CTRL")?;
                if let Some(Stream { call: Call::Follow { command, .. }, .. }) = self.streams.get(&id) {
                    let command = *command;
                    self.control(id, command, &fields);
                }
                Ok(())
            }
            kind::CANCEL => {
                self.cancel(id);
                Ok(())
            }
            kind::PING if payload.len() <= MAX_PING => {
                self.channel.frame(kind::PONG, 0, 0, 0, payload);
                Ok(())
            }
            kind::PONG if payload.len() <= MAX_PING => Ok(()),
            kind::FAULT => {
                self.decoder.hunt();
                self.end_session();
                Ok(())
            }
            _ => Err("a frame type that the host may not send"),
        }
    }

    /// The hot path after a restore.
    fn hello(&mut self, payload: &[u8]) -> std::result::Result<(), &'static str> {
        self.end_session();
        self.channel.discard();
        let fields = match Reader::new(payload) {
            Ok(f) => f,
            Err(_) => return Err("bad fields in HELLO"),
        };
        let result = match (fields.number(tag::VERSION_MIN), fields.number(tag::VERSION_MAX)) {
            (Some(min), Some(max)) if min <= u64::from(VERSION) && max >= u64::from(VERSION) => Ok(()),
            _ => Err(Fail::new(status::NOT_SUPPORTED, "this agent speaks protocol version 1 only")),
        };
        let result = result.and_then(|()| match fields.bytes(tag::IDENTITY) {
            Some(inner) => self.identify(inner),
            None => Ok(()),
        });
        let mut ack = Fields::new();
        if let Some(nonce) = fields.bytes(tag::NONCE) {
            ack.bytes(tag::NONCE, nonce.get(..16).unwrap_or(nonce));
        }
        match &result {
            Ok(()) => ack.u8(tag::STATUS, status::OK),
            Err(fail) => {
                ack.0.extend_from_slice(&fail.fields().0);
                &mut ack
            }
        };
        self.describe(&mut ack);
        self.channel.frame(kind::HELLO_ACK, 0, 0, 0, &ack.0);
        self.open = !matches!(&result, Err(f) if f.status == status::NOT_SUPPORTED);
        if !self.open {
            self.decoder.hunt();
        }
        Ok(())
    }

    fn describe(&self, ack: &mut Fields) {
        ack.u16(tag::VERSION, VERSION);
        ack.bytes(tag::AGENT, AGENT.as_bytes());
        ack.bytes(tag::GUEST, b"linux");
        ack.u64(tag::GENERATION, self.identity.generation);
        ack.u64(tag::UPTIME, sys::monotonic());
    }

    fn identify(&mut self, payload: &[u8]) -> Result<()> {
        let fields = Reader::new(payload).map_err(|_| Fail::invalid("bad fields in IDENTITY"))?;
        let former = self.identity.sandbox.clone();
        let applied = self.identity.apply(&fields);
        // A clone has the listeners of the machine that it was: they would keep its programs' connections for nobody.
        if self.identity.sandbox != former {
            self.another_sandbox();
        }
        let thaw = applied?;
        self.network_due = fields.flag(tag::NETWORK) && !thaw;
        // Programs that run again find theirs, and nobody keeps one that is no longer theirs.
        if thaw {
            self.identity.finish()?;
        }
        if !self.network_due {
            self.network(fields.flag(tag::NETWORK))?;
        }
        match (&self.group, thaw) {
            (Some(group), true) => group.set(false),
            _ => Ok(()),
        }
    }

    fn open_call(&mut self, id: u32, payload: &[u8]) -> std::result::Result<(), &'static str> {
        if id == 0 || self.streams.contains_key(&id) {
            return Err("OPEN of a stream that is open");
        }
        let (name, rest) = match payload {
            [a, b, rest @ ..] => (u16::from_le_bytes([*a, *b]), rest),
            _ => return Err("OPEN without a method"),
        };
        let fields = Reader::new(rest).map_err(|_| "bad fields in OPEN")?;
        if self.streams.len() >= MAX_STREAMS {
            self.end(id, Err(Fail::new(status::LIMIT, "too many calls at once")));
            return Ok(());
        }
        match fields.number(tag::FIELDS_LENGTH) {
            Some(more) if more > MAX_FIELDS => {
                self.end(id, Err(Fail::new(status::TOO_LARGE, format!("more than {} bytes of fields", MAX_FIELDS))));
            }
            Some(more) if more > 0 => self.add(id, Call::Gather { method: name, fields: rest.to_vec(), missing: more as usize }),
            _ => self.begin(id, name, &fields),
        }
        Ok(())
    }

    /// What a handshake has left: whoever waits for its answer has no program that could notice.
    fn finish_handshake(&mut self) {
        if let Err(fail) = self.identity.finish() {
            sys::say(&fail.message);
        }
        self.give_network();
    }

    fn begin(&mut self, id: u32, method: u16, fields: &Reader) {
        self.finish_handshake();
        if let Err(fail) = self.call(id, method, fields) {
            self.end(id, Err(fail));
        }
    }

    /// Further fields of a call; the host gets its credit back at once.
    fn gather(&mut self, id: u32, payload: &[u8]) -> std::result::Result<(), &'static str> {
        let complete = match self.streams.get_mut(&id) {
            Some(Stream { call: Call::Gather { method, fields, missing }, window, .. }) => {
                *missing = missing.checked_sub(payload.len()).ok_or("more fields than were announced")?;
                fields.extend_from_slice(payload);
                *window += payload.len() as u64;
                if *missing == 0 { Some((*method, std::mem::take(fields))) } else { None }
            }
            _ => None,
        };
        self.channel.frame(kind::CREDIT, 0, 0, id, &(payload.len() as u32).to_le_bytes());
        if let Some((method, fields)) = complete {
            self.streams.remove(&id);
            match Reader::new(&fields) {
                Ok(reader) => self.begin(id, method, &reader),
                Err(_) => self.end(id, Err(Fail::invalid("bad fields in the DATA of a call"))),
            }
        }
        Ok(())
    }

    fn call(&mut self, id: u32, name: u16, fields: &Reader) -> Result<()> {
        match name {
            method::EXEC => self.exec(id, fields),
            method::ATTACH => self.attach(id, fields),
            method::PROCESSES => self.processes(id),
            method::SIGNAL => {
                let number = fields.number(tag::PROCESS_ID).unwrap_or(0);
                let signal = fields.number(tag::SIGNAL).ok_or_else(|| Fail::invalid("no SIGNAL given"))?;
                self.signal_command(number, signal, fields.number(tag::GROUP).unwrap_or(1) != 0)?;
                self.done(id)
            }
            method::TUNNEL => self.tunnel(id, fields),
            method::ACCEPT => self.accept_call(id, fields),
            method::INTERCEPT => self.intercept_call(id),
            method::DATAGRAMS => self.datagrams_call(id),
            method::IDENTITY => {
                let inner = fields.bytes(tag::IDENTITY).ok_or_else(|| Fail::invalid("no IDENTITY given"))?;
                self.identify(inner)?;
                let mut f = Fields::new();
                self.describe(&mut f);
                self.end(id, Ok(f));
                Ok(())
            }
            method::INFO => {
                let mut figures = system::info()?;
                let running = match &self.group {
                    Some(group) => group.populated(),
                    None => self.commands.values().filter(|c| c.exit.is_none()).count(),
                };
                figures.u16(tag::COMMANDS, running as u16);
                self.end(id, Ok(figures));
                Ok(())
            }
            method::FREEZE => {
                self.group()?.set(true)?;
                self.job(id, INITIAL_CREDIT, system::wait_frozen)
            }
            method::THAW => {
                let thawed = self.group().and_then(|group| group.set(false));
                match self.volumes.clone() {
                    // A filesystem that is just coming to stand still must not hold the loop.
                    Some(volumes) => self.job(id, INITIAL_CREDIT, move |_| volumes.go_on().and_then(|done| thawed.map(|_| done))),
                    None => {
                        thawed?;
                        self.done(id)
                    }
                }
            }
            method::MOUNT => {
                let mount = Mount::new(fields, self.identity.defaults.user.as_deref())?;
                let volumes = self.volumes.get_or_insert_with(Volumes::default).clone();
                self.job(id, INITIAL_CREDIT, move |_| mount.run(&volumes))
            }
            method::STILL => {
                let volumes = self.volumes.get_or_insert_with(Volumes::default).clone();
                self.job(id, INITIAL_CREDIT, move |_| volumes.still())
            }
            method::UNMOUNT => {
                let mounted = Mounted::new(fields)?;
                let force = fields.flag(tag::FORCE);
                let volumes = self.volumes.get_or_insert_with(Volumes::default).clone();
                self.job(id, INITIAL_CREDIT, move |_| mounted.unmount(&volumes, force))
            }
            method::REMOUNT => {
                let mounted = Mounted::new(fields)?;
                let volumes = self.volumes.get_or_insert_with(Volumes::default).clone();
                self.job(id, INITIAL_CREDIT, move |_| mounted.only_read(&volumes))
            }
            method::SHARE => {
                let share = Share::new(fields, self.identity.defaults.user.as_deref())?;
                let fresh = self.directories.fresh.clone();
                self.job(id, INITIAL_CREDIT, move |_| share.run(&fresh))
            }
            method::SERVE => self.serve_call(id, fields),
            method::UNSHARE => self.unshare_call(id, fields),
            method::EXERCISE => {
                system::exercise()?;
                self.done(id)
            }
            method::CONSOLE => self.job(id, INITIAL_CREDIT, system::kernel_log),
            method::SYNC => self.job(id, INITIAL_CREDIT, |_| {
                // SAFETY: plain call.
                unsafe { libc::sync() };
                Ok(Fields::new())
            }),
            method::SHUTDOWN => {
                self.done(id)?;
                self.channel.flush();
                // With no room for another thread the end is as orderly, only the loop does not see it through.
                if std::thread::Builder::new().spawn(|| system::power_off()).is_err() {
                    system::power_off()
                }
                Ok(())
            }
            _ => self.file_call(id, name, fields),
        }
    }

    /// Calls about paths: one or two quick system calls are done at once, everything else is a job.
    fn file_call(&mut self, id: u32, name: u16, fields: &Reader) -> Result<()> {
        let cwd = self.identity.defaults.cwd.clone();
        // What may have to wait for the host must not hold the loop, which asks it.
        let remote = self.directories.any();
        let path = |which| files::path_of(fields, which, cwd.as_deref());
        let recursive = fields.flag(tag::RECURSIVE);
        let follow = |default: bool| fields.number(tag::FOLLOW).map_or(default, |f| f != 0);
        let prefix = || fields.bytes(tag::PREFIX).map(|prefix| prefix.to_vec());
        match name {
            method::READ if remote => {
                let fields = fields.to_vec();
                return self.job(id, INITIAL_CREDIT, move |io| {
                    let reader = Reader::new(&fields).map_err(|_| Fail::invalid("bad fields"))?;
                    let read = ReadJob::open(&reader, cwd.as_deref())?;
                    io.event(read.stat.clone())?;
                    read.run(io)
                });
            }
            method::READ => {
                let mut read = ReadJob::open(fields, cwd.as_deref())?;
                self.channel.frame(kind::EVENT, 0, 0, id, &read.stat.0);
                if !read.is_small() {
                    return self.job(id, INITIAL_CREDIT, move |io| read.run(io));
                }
                let all = read.all()?;
                self.channel.frame(kind::DATA, channel::BODY, FLAG_FIN, id, &all);
            }
            method::WRITE => {
                let job = WriteJob::new(fields, cwd.as_deref(), self.identity.defaults.user.as_deref())?;
                self.add(id, Call::Write { job: Some(job), body: Vec::new() });
                return Ok(());
            }
            method::STAT => {
                let (path, follow, prefix) = (path(tag::PATH)?, follow(true), prefix());
                let look = move || attributes::describe_with(&path, &files::stat(&path, follow)?, prefix.as_deref());
                if remote {
                    return self.job(id, INITIAL_CREDIT, move |_| look());
                }
                let told = look()?;
                self.end(id, Ok(told));
                return Ok(());
            }
            method::LIST => {
                let (path, follow, prefix) = (path(tag::PATH)?, follow(false), prefix());
                let depth = match (recursive, fields.number(tag::DEPTH)) {
                    (_, Some(depth)) if depth > 0 => depth as usize,
                    (true, _) => usize::MAX,
                    _ => 1,
                };
                return self.job(id, INITIAL_CREDIT, move |io| tree::list(io, &path, depth, follow, prefix.as_deref()));
            }
            method::GLOB => {
                let pattern = fields.bytes(tag::PATTERN).ok_or_else(|| Fail::invalid("no PATTERN given"))?;
                let patterns = glob::alternatives(pattern)?;
                let cwd = files::resolve(fields.bytes(tag::CWD).unwrap_or(b"."), cwd.as_deref())?;
                let cwd = cwd.strip_suffix(b"/.").map_or(cwd.clone(), |c| if c.is_empty() { b"/".to_vec() } else { c.to_vec() });
                return self.job(id, INITIAL_CREDIT, move |io| {
                    let mut body = tree::Body::new(io);
                    for pattern in &patterns {
                        glob::glob(pattern, &cwd, |path| {
                            body.check()?;
                            path.map_or(Ok(()), |path| body.add(tag::PATH, path))
                        })?;
                    }
                    body.flush()?;
                    Ok(Fields::new())
                });
            }
            method::MOVE => {
                let (from, to) = (path(tag::PATH)?, path(tag::TO)?);
                if remote {
                    return self.job(id, INITIAL_CREDIT, move |io| match tree::rename(&from, &to) {
                        Err(f) if f.errno == libc::EXDEV => tree::move_by_copy(io, &from, &to),
                        result => result.map(|()| Fields::new()),
                    });
                }
                match tree::rename(&from, &to) {
                    Err(f) if f.errno == libc::EXDEV => {
                        return self.job(id, INITIAL_CREDIT, move |io| tree::move_by_copy(io, &from, &to));
                    }
                    result => result?,
                }
            }
            method::COPY => {
                let (from, to, follow) = (path(tag::PATH)?, path(tag::TO)?, follow(false));
                return self.job(id, INITIAL_CREDIT, move |io| tree::copy(io, &from, &to, recursive, follow));
            }
            method::CHMOD => {
                let path = path(tag::PATH)?;
                let mode = fields.number(tag::MODE).ok_or_else(|| Fail::invalid("no MODE given"))? as u32;
                let follow = follow(true);
                if remote {
                    return self.job(id, INITIAL_CREDIT, move |io| {
                        if !follow {
                            files::no_link(&path)?;
                        }
                        if recursive && files::is(&files::stat(&path, true)?, libc::S_IFDIR) {
                            return tree::chmod_tree(io, &path, mode);
                        }
                        tree::chmod(&path, mode).map(|()| Fields::new())
                    });
                }
                if !follow {
                    files::no_link(&path)?;
                }
                if recursive && files::is(&files::stat(&path, true)?, libc::S_IFDIR) {
                    return self.job(id, INITIAL_CREDIT, move |io| tree::chmod_tree(io, &path, mode));
                }
                tree::chmod(&path, mode)?;
            }
            method::MARK => {
                let (path, prefix) = (path(tag::PATH)?, prefix().ok_or_else(|| Fail::invalid("no PREFIX given"))?);
                let wanted = fields.all(tag::ATTRIBUTE).map(attributes::parse).collect::<Result<Vec<_>>>()?;
                if remote {
                    return self.job(id, INITIAL_CREDIT, move |_| attributes::replace(&path, &prefix, &wanted).map(|()| Fields::new()));
                }
                attributes::replace(&path, &prefix, &wanted)?;
            }
            method::DELETE => {
                let path = path(tag::PATH)?;
                if remote {
                    return self.job(id, INITIAL_CREDIT, move |io| {
                        if files::is(&files::stat(&path, false)?, libc::S_IFDIR) {
                            return tree::delete(io, &path, recursive);
                        }
                        tree::remove_file(&path).map(|()| Fields::new())
                    });
                }
                let st = files::stat(&path, false)?;
                if files::is(&st, libc::S_IFDIR) || st.st_size > SMALL as i64 {
                    return self.job(id, INITIAL_CREDIT, move |io| tree::delete(io, &path, recursive));
                }
                tree::remove_file(&path)?;
            }
            method::MKDIR => {
                let mode = fields.number(tag::MODE).unwrap_or(0o755) as u32 & 0o7777;
                let owner = files::owner(fields, self.identity.defaults.user.as_deref())?;
                let (path, parents) = (path(tag::PATH)?, fields.flag(tag::PARENTS));
                if remote {
                    return self.job(id, INITIAL_CREDIT, move |_| tree::mkdir(&path, mode, parents, owner).map(|()| Fields::new()));
                }
                tree::mkdir(&path, mode, parents, owner)?;
            }
            method::TAR_OUT => {
                if fields.flag(tag::LAYER) {
                    let layers = self.layers.paths();
                    return self.job(id, INITIAL_CREDIT, move |io| changes(io, &layers));
                }
                let (path, form) = (path(tag::PATH)?, if follow(false) { tar::Form::Follow } else { tar::Form::Plain });
                return self.job(id, INITIAL_CREDIT, move |io| tar::tar_out(io, &path, form));
            }
            method::TAR_IN => {
                let path = path(tag::PATH)?;
                let how = tar::Unpacking { layer: fields.flag(tag::LAYER), beneath: fields.flag(tag::BENEATH) };
                return self.job(id, INITIAL_CREDIT, move |io| tar::tar_in(io, &path, how));
            }
            method::WATCH => {
                let path = path(tag::PATH)?;
                return self.job(id, INITIAL_CREDIT, move |io| watch::watch(io, &path, recursive));
            }
            _ => return Err(Fail::new(status::NOT_SUPPORTED, format!("method {} is unknown to this agent", name))),
        }
        self.done(id)
    }

    fn done(&mut self, id: u32) -> Result<()> {
        self.end(id, Ok(Fields::new()));
        Ok(())
    }

    pub fn group(&self) -> Result<&Group> {
        self.group.as_ref().ok_or_else(|| Fail::new(status::NOT_SUPPORTED, "this guest has no cgroup v2"))
    }

    pub fn add(&mut self, id: u32, call: Call) {
        self.streams.insert(id, Stream { call, credit: INITIAL_CREDIT, window: INITIAL_CREDIT, taken: 0, wide: false, fin: false, queued: false });
    }

    /// Starts a job for a new call.
    pub fn job(
        &mut self,
        id: u32,
        credit: u64,
        work: impl FnOnce(&mut jobs::Io) -> Result<Fields> + Send + 'static,
    ) -> Result<()> {
        let handle = self.start_job(id, credit, work)?;
        self.add(id, Call::Job { handle, frames: VecDeque::new(), end: None });
        Ok(())
    }

    pub fn start_job(
        &mut self,
        id: u32,
        credit: u64,
        work: impl FnOnce(&mut jobs::Io) -> Result<Fields> + Send + 'static,
    ) -> Result<Handle> {
        if self.running_jobs >= jobs::MAX_JOBS {
            return Err(Fail::new(status::LIMIT, "too many file operations at once"));
        }
        let serial = self.next_serial;
        let handle = jobs::start(&self.mailbox, serial, credit, work)?;
        self.next_serial += 1;
        self.running_jobs += 1;
        self.jobs.insert(serial, id);
        Ok(handle)
    }

    fn data(&mut self, id: u32, fin: bool, payload: Bytes) -> std::result::Result<(), &'static str> {
        let stream = match self.streams.get_mut(&id) {
            Some(s) => s,
            None => return Ok(()),
        };
        if payload.len() as u64 > stream.window {
            return Err("more DATA than the credit allows");
        }
        if stream.fin {
            return Err("DATA after FIN");
        }
        stream.window -= payload.len() as u64;
        if payload.len() >= LARGE {
            self.bulk += payload.len();
        }
        stream.fin = fin;
        match &mut stream.call {
            Call::Follow { command, .. } => {
                let command = *command;
                self.input(id, command, payload, fin);
            }
            Call::Job { handle, .. } => handle.body(payload, fin),
            Call::Tunnel(_) => self.tunnel_input(id, payload),
            Call::Accept(early) => early.push(id, payload),
            Call::Datagrams => self.datagram_input(id, payload),
            Call::Directory(number) => {
                let number = *number;
                self.directory_input(id, number, payload);
            }
            Call::Starting(early) => early.push(payload),
            Call::Gather { .. } => return self.gather(id, &payload),
            Call::Write { job, body } => {
                body.extend_from_slice(&payload);
                if fin && !self.directories.any() {
                    let (job, body) = (job.take(), std::mem::take(body));
                    if let Some(job) = job {
                        let result = job.run_small(body);
                        self.end(id, result);
                    }
                } else if fin || body.len() > SMALL {
                    let (job, body) = (job.take(), std::mem::take(body));
                    if let Some(job) = job {
                        match self.start_job(id, 0, move |io| job.run(io)) {
                            Ok(handle) => {
                                handle.body(Bytes::Own(body), fin);
                                if let Some(stream) = self.streams.get_mut(&id) {
                                    stream.call = Call::Job { handle, frames: VecDeque::new(), end: None };
                                }
                            }
                            Err(fail) => self.end(id, Err(fail)),
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn cancel(&mut self, id: u32) {
        let command = match self.streams.get(&id).map(|s| &s.call) {
            None => return,
            Some(Call::Follow { command, owner: true }) => *command,
            Some(Call::Follow { command, owner: false }) => {
                let command = *command;
                self.unfollow(command, id, false);
                self.end(id, Err(Fail::cancelled()));
                return;
            }
            Some(Call::Accept(_)) => {
                self.stop_waiting(id);
                self.end(id, Err(Fail::cancelled()));
                return;
            }
            Some(Call::Directory(number)) => {
                let number = *number;
                self.leave_directory(number);
                self.end(id, Err(Fail::cancelled()));
                return;
            }
            Some(Call::Starting(_)) => {
                self.cancel_start(id);
                return;
            }
            Some(Call::Write { .. }) | Some(Call::Tunnel(_)) | Some(Call::Datagrams) | Some(Call::Gather { .. }) => {
                self.end(id, Err(Fail::cancelled()));
                return;
            }
            Some(Call::Job { handle, .. }) => {
                handle.cancel();
                return;
            }
        };
        self.cancel_command(command);
    }

    /// Grants the host more DATA on a stream, many bytes at a time.
    pub fn grant(&mut self, id: u32, bytes: usize) {
        let wide = match self.streams.get_mut(&id) {
            Some(stream) => {
                stream.taken += bytes;
                let step = if stream.wide { WIDE_GRANT_STEP } else { GRANT_STEP };
                if stream.fin || stream.taken < step {
                    return;
                }
                stream.wide
            }
            None => return,
        };
        let widen = !wide && self.room_for_wide();
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.wide |= widen;
            let grant = std::mem::take(&mut stream.taken) + if widen { EXTRA_CREDIT } else { 0 };
            stream.window += grant as u64;
            self.channel.frame(kind::CREDIT, 0, 0, id, &(grant as u32).to_le_bytes());
        }
    }

    /// All that streams have under way beyond the usual stays below an eighth of the guest's memory.
    fn room_for_wide(&self) -> bool {
        let wide = self.streams.values().filter(|s| s.wide).count();
        (wide + 1) * EXTRA_CREDIT <= self.memory / 8
    }

    /// The last frame of a call.
    pub fn end(&mut self, id: u32, result: Result<Fields>) {
        let payload = match result {
            Ok(fields) => {
                let mut f = Fields::new();
                f.u8(tag::STATUS, status::OK);
                f.0.extend_from_slice(&fields.0);
                f
            }
            Err(fail) => fail.fields(),
        };
        self.channel.frame(kind::END, 0, 0, id, &payload.0);
        self.streams.remove(&id);
    }

    /// The stream may have something to send.
    pub fn wake(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            if !stream.queued {
                stream.queued = true;
                self.ready.push_back(id);
            }
        }
    }

    fn letters(&mut self) {
        for (serial, message) in self.mailbox.take() {
            if let Message::End(_) = &message {
                self.running_jobs = self.running_jobs.saturating_sub(1);
            }
            if let Some(starting) = self.starting.remove(&serial) {
                self.jobs.remove(&serial);
                if let Message::End(result) = message {
                    self.finish_start(starting, result);
                }
                continue;
            }
            let id = match self.jobs.get(&serial) {
                Some(id) => *id,
                None => continue,
            };
            match message {
                Message::Taken(n) => self.grant(id, n),
                frame @ (Message::Data(..) | Message::Event(_)) => {
                    if let Some(Stream { call: Call::Job { frames, .. }, .. }) = self.streams.get_mut(&id) {
                        frames.push_back(frame);
                    }
                    self.wake(id);
                }
                Message::End(result) => {
                    self.jobs.remove(&serial);
                    if let Some(Stream { call: Call::Job { end, .. }, .. }) = self.streams.get_mut(&id) {
                        *end = Some(result);
                    }
                    self.wake(id);
                }
            }
        }
    }

    /// Sends what the streams have, one frame each in turn, while the channel has room.
    fn pump(&mut self) {
        loop {
            while self.channel.room() {
                let id = match self.ready.pop_front() {
                    Some(id) => id,
                    None => break,
                };
                match self.streams.get_mut(&id) {
                    Some(stream) => stream.queued = false,
                    None => continue,
                }
                if self.send_one(id) {
                    self.wake(id);
                }
            }
            self.channel.flush();
            if self.ready.is_empty() || self.channel.blocked() || !self.channel.room() {
                return;
            }
        }
    }

    /// @returns whether it may have more
    fn send_one(&mut self, id: u32) -> bool {
        let stream = match self.streams.get_mut(&id) {
            Some(s) => s,
            None => return false,
        };
        match &mut stream.call {
            Call::Follow { command, .. } => {
                let command = *command;
                self.send_output(id, command)
            }
            Call::Write { .. } | Call::Accept(_) | Call::Datagrams | Call::Starting(_) | Call::Gather { .. } => false,
            Call::Directory(number) => {
                let number = *number;
                self.directory_send(id, number)
            }
            Call::Tunnel(_) => self.tunnel_send(id),
            Call::Job { handle, frames, end } => {
                match frames.pop_front() {
                    Some(Message::Data(buffer, length)) => {
                        handle.sent(length);
                        self.channel.frame_in(kind::DATA, channel::BODY, id, buffer, length);
                        return true;
                    }
                    Some(Message::Event(fields)) => {
                        handle.sent(fields.0.len());
                        self.channel.frame(kind::EVENT, 0, 0, id, &fields.0);
                        return true;
                    }
                    _ => {}
                }
                if let Some(result) = end.take() {
                    self.end(id, result);
                }
                false
            }
        }
    }

    /// One frame of a command's output to one follower.
    fn send_output(&mut self, id: u32, command_id: u64) -> bool {
        let (command, stream) = match (self.commands.get_mut(&command_id), self.streams.get_mut(&id)) {
            (Some(c), Some(s)) => (c, s),
            _ => return false,
        };
        command.read_output(&self.poll, &mut self.scratch);
        let Follower { position, told, .. } = match command.followers.iter_mut().find(|f| f.stream == id) {
            Some(follower) => follower,
            None => return false,
        };
        if *position < command.ring.start() {
            let lost = command.ring.start() - *position;
            *position = command.ring.start();
            let mut f = Fields::new();
            f.u64(tag::LOST, lost);
            self.channel.frame(kind::EVENT, 0, 0, id, &f.0);
        }
        let limit = command.final_end.unwrap_or(u64::MAX);
        let max = stream.credit.min(MAX_PAYLOAD as u64).min(limit.saturating_sub(*position)) as usize;
        if max > 0 {
            if let (Some(last), Some(time)) = (told, command.ring.time_at(*position)) {
                if std::mem::replace(last, time) != time {
                    let mut f = Fields::new();
                    f.u64(tag::TIME, time).u64(tag::OFFSET, *position);
                    self.channel.frame(kind::EVENT, 0, 0, id, &f.0);
                }
            }
            let sent = match command.ring.whole_at(*position, max) {
                Some((channel, buffer, length)) => {
                    self.bulk += length;
                    self.channel.frame_from(kind::DATA, channel, id, buffer, length);
                    length as u64
                }
                None => match command.ring.at(*position, max) {
                    Some((channel, bytes)) => {
                        self.channel.frame(kind::DATA, channel, 0, id, bytes);
                        bytes.len() as u64
                    }
                    None => 0,
                },
            };
            if sent > 0 {
                stream.credit -= sent;
                *position += sent;
                return true;
            }
        }
        if command.final_end.map_or(false, |end| *position >= end) {
            self.finish_follower(id, command_id);
        }
        false
    }

    pub fn children_fd(&self) -> i32 {
        self.children.raw()
    }
}
