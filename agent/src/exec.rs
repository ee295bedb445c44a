//! Commands as the loop sees them: start, input, signals, timeouts, reaping, results.

use crate::buffers::Bytes;
use crate::command::{channel_of, Command, Exit, Follower, Reason, Source, Stdin};
use crate::group::{Place, SETTLE_NS};
use crate::protocol::{channel, kind, status, tag, Fields, Reader};
use crate::ring::Ring;
use crate::session::{token, Agent, Call, Timer};
use crate::starting::{start, terminal_of, Starting};
use crate::sys::{self, Fail, Fd, Result, EDGE_BOTH, EDGE_IN, EDGE_OUT};

const MAX_COMMANDS: usize = 512;
/// Ended commands that can still be attached to.
const MAX_ENDED: usize = 64;
/// A command's ring when memory is short: what a slow follower may be behind, and room for one more read.
const LEAST_RING: usize = 1 << 19;
const MOST_NOTE: usize = 4096;
/// A MiB is still there when the oldest piece has gone.
const DEFAULT_RING: u64 = (1 << 20) + (1 << 17);
const DEFAULT_GRACE_MS: u64 = 2_000;

impl Agent {
    pub fn exec(&mut self, id: u32, fields: &Reader) -> Result<()> {
        if self.commands.values().filter(|c| c.exit.is_none()).count() >= self.max_commands() {
            return Err(Fail::new(status::LIMIT, "too many commands at once"));
        }
        let pty = terminal_of(fields)?;
        let wants_stdin = fields.flag(tag::STDIN);
        // A process that is born into a frozen group would hold us until it is thawed.
        if self.group.as_ref().map_or(false, |g| g.is_frozen()) {
            return Err(Fail::new(status::BUSY, "the guest's commands are frozen"));
        }
        let (stdio, sources, stdin, child_ends) = match &pty {
            Some(p) => self.terminal(p)?,
            None => self.pipes(wants_stdin)?,
        };
        let place = match self.group.as_mut() {
            Some(group) => Some(group.enter()?),
            None => None,
        };
        let starting = Starting { stream: id, fields: fields.to_vec(), stdio, sources, stdin, child_ends, place, cancelled: false, again: false };
        if self.directories.any() {
            return self.start_beside(starting);
        }
        let cgroup = self.cgroup_of(place);
        let mut spawned = start(fields, stdio, cgroup, &self.identity.defaults, &mut self.stack);
        if self.make_room(&spawned, place) {
            spawned = start(fields, stdio, cgroup, &self.identity.defaults, &mut self.stack);
        }
        self.add(id, Call::Starting(Vec::new()));
        self.finish_exec(starting, spawned);
        Ok(())
    }

    pub fn cgroup_of(&self, place: Option<Place>) -> Option<i32> {
        place.and_then(|place| self.group.as_ref().map(|group| group.dir(place)))
    }

    /// @returns whether it may be started once more: something was left in its group
    pub fn make_room(&self, spawned: &Result<i32>, place: Option<Place>) -> bool {
        let busy = spawned.as_ref().err().map_or(false, |fail| fail.errno == libc::EBUSY);
        match (busy, place, self.group.as_ref()) {
            (true, Some(place), Some(group)) => {
                group.clear(place);
                true
            }
            _ => false,
        }
    }

    /// It runs, or it does not: the call goes on, or ends.
    pub fn finish_exec(&mut self, starting: Starting, spawned: Result<i32>) {
        let (stream, place) = (starting.stream, starting.place);
        let result = spawned.and_then(|pid| self.run_command(starting, pid));
        if let Err(fail) = result {
            if let (Some(place), Some(group)) = (place, self.group.as_mut()) {
                group.leave(place);
            }
            if self.streams.contains_key(&stream) {
                self.end(stream, Err(fail));
            }
        }
    }

    fn run_command(&mut self, starting: Starting, pid: i32) -> Result<()> {
        let Starting { stream: id, fields, sources, stdin, child_ends, place, cancelled, .. } = starting;
        drop(child_ends);
        let fields = Reader::new(&fields).map_err(|_| Fail::invalid("bad fields"))?;
        let fields = &fields;
        let argv: Vec<&[u8]> = fields.all(tag::ARGV).collect();
        let pty = terminal_of(fields)?;
        let number = self.next_command;
        self.next_command += 1;
        let command = Command {
            id: number,
            pid,
            until_closed: fields.flag(tag::UNTIL_CLOSED),
            looked: 0,
            look_until: 0,
            text: argv.join(&b' ').into_iter().take(4096).collect(),
            note: fields.bytes(tag::NOTE).filter(|note| note.len() <= MOST_NOTE).map_or_else(Vec::new, <[u8]>::to_vec),
            start_time: sys::wall(),
            sources,
            stdin,
            ring: Ring::new(fields.number(tag::RING_BYTES).unwrap_or(DEFAULT_RING).clamp(LEAST_RING as u64, 16 << 20) as usize),
            followers: Vec::new(),
            exit: None,
            ending: None,
            stop_signal: fields.number(tag::SIGNAL).filter(|s| (1..=64).contains(s)).map_or(libc::SIGTERM, |s| s as i32),
            grace_ms: fields.number(tag::GRACE_MS).unwrap_or(DEFAULT_GRACE_MS).min(3_600_000) as u32,
            keep: fields.number(tag::KEEP).unwrap_or(1) != 0,
            detached: fields.flag(tag::DETACHED),
            tty: pty.is_some(),
            place,
            final_end: None,
        };
        for (place, source) in command.sources.iter().enumerate() {
            let events = if command.tty { EDGE_BOTH } else { EDGE_IN };
            self.poll.add(source.fd.raw(), events, token::OUTPUT | number << 1 | place as u64)?;
        }
        if let (false, Some(stdin)) = (command.tty, &command.stdin) {
            self.poll.add(stdin.fd.raw(), EDGE_OUT, token::STDIN | number)?;
        }
        if let Some(ms) = fields.number(tag::TIMEOUT_MS).filter(|ms| *ms > 0) {
            self.timers.insert((sys::monotonic() + ms.min(u64::from(u32::MAX)) * 1_000_000, number, Timer::Timeout), ());
        }
        if place.is_some() {
            self.timers.insert((sys::monotonic() + SETTLE_NS, number, Timer::Settle), ());
        }
        self.commands.insert(number, command);
        // Its session may be over by now.
        if let Some(Call::Starting(early)) = self.streams.get_mut(&id).map(|stream| &mut stream.call) {
            let early = std::mem::take(early);
            self.follow_started(id, number, pid, early);
            if cancelled {
                self.cancel_command(number);
            }
        } else if let Some(false) = self.commands.get(&number).map(|command| command.keep) {
            self.cancel_command(number);
        }
        self.ended_early(pid);
        self.forget_old_commands();
        Ok(())
    }

    fn follow_started(&mut self, id: u32, number: u64, pid: i32, early: Vec<Bytes>) {
        if let Some(command) = self.commands.get_mut(&number) {
            command.followers.push(Follower::new(id, false));
        }
        let mut fin = false;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.call = Call::Follow { command: number, owner: true };
            fin = stream.fin;
        }
        self.started(id, number, pid, 0);
        let last = early.len().saturating_sub(1);
        for (at, bytes) in early.into_iter().enumerate() {
            self.input(id, number, bytes, fin && at == last);
        }
    }

    /// @param output bytes that it has written so far
    fn started(&mut self, id: u32, number: u64, pid: i32, output: u64) {
        let mut started = Fields::new();
        started.u64(tag::PROCESS_ID, number).u32(tag::PID, pid as u32).u64(tag::OUTPUT, output);
        self.channel.frame(kind::EVENT, 0, 0, id, &started.0);
    }

    /// Follows a command again: first what its ring still has (a LOST event says how much it has not), then live.
    pub fn attach(&mut self, id: u32, fields: &Reader) -> Result<()> {
        let number = fields.number(tag::PROCESS_ID).unwrap_or(0);
        let command = self.commands.get_mut(&number).ok_or_else(|| Fail::new(status::NO_PROCESS, "no such command"))?;
        command.followers.push(Follower::new(id, fields.flag(tag::TIMES)));
        let (pid, output) = (command.pid, command.ring.end());
        self.started(id, number, pid, output);
        self.add(id, Call::Follow { command: number, owner: false });
        self.wake(id);
        Ok(())
    }

    pub fn processes(&mut self, id: u32) -> Result<()> {
        for command in self.commands.values() {
            let mut p = Fields::new();
            p.u64(tag::PROCESS_ID, command.id).u32(tag::PID, command.pid as u32).bytes(tag::COMMAND, &command.text);
            p.u64(tag::START_TIME, command.start_time).u8(tag::RUNNING, command.exit.is_none() as u8);
            p.u8(tag::DETACHED, command.detached as u8);
            if !command.note.is_empty() {
                p.bytes(tag::NOTE, &command.note);
            }
            if let Some(exit) = &command.exit {
                p.0.extend_from_slice(&exit_fields(exit).0);
            }
            let mut event = Fields::new();
            event.bytes(tag::PROCESS, &p.0);
            self.channel.frame(kind::EVENT, 0, 0, id, &event.0);
        }
        self.end(id, Ok(Fields::new()));
        Ok(())
    }

    #[allow(clippy::type_complexity)]
    fn pipes(&self, wants_stdin: bool) -> Result<([i32; 3], Vec<Source>, Option<Stdin>, Vec<Fd>)> {
        let (out, out_child) = sys::pipe()?;
        let (err, err_child) = sys::pipe()?;
        sys::set_nonblocking(out.raw())?;
        sys::set_nonblocking(err.raw())?;
        let mut stdio = [self.null.raw(), out_child.raw(), err_child.raw()];
        let mut child_ends = vec![out_child, err_child];
        let mut stdin = None;
        if wants_stdin {
            let (in_child, input) = sys::pipe()?;
            sys::set_nonblocking(input.raw())?;
            stdio[0] = in_child.raw();
            child_ends.push(in_child);
            stdin = Some(Stdin::new(input, false));
        }
        Ok((stdio, vec![Source::new(out, channel_of(0)), Source::new(err, channel_of(1))], stdin, child_ends))
    }

    #[allow(clippy::type_complexity)]
    fn terminal(&self, fields: &Reader) -> Result<([i32; 3], Vec<Source>, Option<Stdin>, Vec<Fd>)> {
        let master = sys::open(b"/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK, 0)?;
        let unlock: libc::c_int = 0;
        // SAFETY: TIOCSPTLCK reads one int; TIOCGPTPEER gives a new descriptor.
        let slave = unsafe {
            sys::check(libc::ioctl(master.raw(), libc::TIOCSPTLCK as _, &unlock), "unlocking the terminal")?;
            let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
            Fd::own(sys::check(libc::ioctl(master.raw(), libc::TIOCGPTPEER as _, flags), "opening the terminal")?)
        };
        resize(master.raw(), fields.number(tag::ROWS).unwrap_or(24), fields.number(tag::COLS).unwrap_or(80));
        // SAFETY: plain integers.
        let input = Fd::own(sys::check(unsafe { libc::fcntl(master.raw(), libc::F_DUPFD_CLOEXEC, 3) }, "dup")?);
        let stdio = [slave.raw(); 3];
        Ok((stdio, vec![Source::new(master, channel::STDOUT)], Some(Stdin::new(input, true)), vec![slave]))
    }

    pub fn output_ready(&mut self, number: u64, place: usize, flags: u32) {
        let command = match self.commands.get_mut(&number) {
            Some(c) => c,
            None => return,
        };
        let wanted = channel_of(place);
        if flags & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLRDHUP | libc::EPOLLERR) as u32 != 0 {
            for source in command.sources.iter_mut().filter(|s| s.channel == wanted) {
                source.readable = true;
            }
        }
        if command.tty && flags & libc::EPOLLOUT as u32 != 0 {
            self.flush_stdin(number);
        }
        self.output_turn(number);
    }

    /// Reads what the rules allow and wakes the followers; a command without any goes on reading in later turns.
    fn output_turn(&mut self, number: u64) {
        let (followers, more, large) = match self.commands.get_mut(&number) {
            Some(command) => {
                let more = command.read_output(&self.poll, &mut self.scratch);
                (command.followers.iter().map(|f| f.stream).collect::<Vec<_>>(), more, command.ring.used() > LEAST_RING)
            }
            None => return,
        };
        if large {
            self.bound_rings(number);
        }
        if followers.is_empty() && more && !self.unfollowed.contains(&number) {
            self.unfollowed.push_back(number);
        }
        for id in followers {
            self.wake(id);
        }
    }

    pub fn turn_unfollowed(&mut self) {
        for _ in 0..self.unfollowed.len() {
            if let Some(number) = self.unfollowed.pop_front() {
                self.output_turn(number);
            }
        }
    }

    pub fn input(&mut self, stream: u32, number: u64, bytes: Bytes, fin: bool) {
        match self.commands.get_mut(&number).and_then(|c| c.stdin.as_mut()) {
            Some(stdin) => {
                stdin.push(stream, bytes, fin);
                // Written at the turn's end, together with what else comes in it.
                if self.fed.last() != Some(&number) {
                    self.fed.push(number);
                }
            }
            None => self.grant(stream, bytes.len()),
        }
    }

    /// @returns how many bytes it is rid of
    pub fn flush_stdin(&mut self, number: u64) -> usize {
        let command = match self.commands.get_mut(&number) {
            Some(c) => c,
            None => return 0,
        };
        let stdin = match command.stdin.as_mut() {
            Some(s) => s,
            None => return 0,
        };
        let (done, finished) = stdin.flush();
        if finished {
            command.stdin = None;
        }
        let written = done.iter().map(|d| d.1).sum();
        for (stream, bytes) in done {
            self.grant(stream, bytes);
        }
        written
    }

    /// CTRL on a call that follows a command: SIGNAL (with GROUP), ROWS and COLS, or KEEP to detach from it.
    pub fn control(&mut self, id: u32, number: u64, fields: &Reader) {
        let command = match self.commands.get(&number) {
            Some(c) => c,
            None => return,
        };
        if let Some(signal) = fields.number(tag::SIGNAL) {
            let _ = self.signal_command(number, signal, fields.number(tag::GROUP).unwrap_or(1) != 0);
        } else if let (Some(rows), Some(cols), true) = (fields.number(tag::ROWS), fields.number(tag::COLS), command.tty) {
            if let Some(source) = command.sources.first() {
                resize(source.fd.raw(), rows, cols);
            }
        } else if fields.flag(tag::KEEP) {
            self.unfollow(number, id, false);
            self.end(id, Err(Fail::new(status::CANCELLED, "detached")));
        }
    }

    pub fn signal_command(&mut self, number: u64, signal: u64, group: bool) -> Result<()> {
        if signal > 64 {
            return Err(Fail::invalid("there is no such signal"));
        }
        let command = match self.commands.get(&number) {
            Some(c) => c,
            None => return Err(Fail::new(status::NO_PROCESS, "no such command")),
        };
        if command.exit.is_some() && command.final_end.is_none() && command.until_closed {
            // Who ends what has ended ends the wait for what it left behind.
            self.cancel_command(number);
            return Ok(());
        }
        let result = if group {
            command.signal_group(signal as i32)
        } else if command.exit.is_some() {
            Err(libc::ESRCH)
        } else {
            // SAFETY: not reaped yet, so the pid is still ours.
            if unsafe { libc::kill(command.pid, signal as i32) } < 0 { Err(sys::last_errno()) } else { Ok(()) }
        };
        result.map_err(|e| Fail::errno(e, "signal"))
    }

    pub fn cancel_command(&mut self, number: u64) {
        self.terminate(number, Reason::Cancelled);
    }

    /// Its stop signal to the group, KILL after the grace.
    fn terminate(&mut self, number: u64, reason: Reason) {
        if let Some(command) = self.commands.get_mut(&number) {
            if command.exit.is_some() {
                command.give_up_draining();
                return self.output_turn(number);
            }
            if command.ending.is_some() {
                return;
            }
            command.ending = Some(reason);
            let _ = command.signal_group(command.stop_signal);
            // A stopped group would not see it.
            let _ = command.signal_group(libc::SIGCONT);
            let at = sys::monotonic() + u64::from(command.grace_ms) * 1_000_000;
            self.timers.insert((at, number, Timer::Kill), ());
        }
    }

    pub fn run_timers(&mut self) {
        if self.timers.is_empty() {
            return;
        }
        let now = sys::monotonic();
        while let Some(&(at, number, timer)) = self.timers.keys().next() {
            if at > now {
                return;
            }
            self.timers.remove(&(at, number, timer));
            match timer {
                Timer::Timeout => self.terminate(number, Reason::Timeout),
                Timer::Kill => {
                    if let Some(command) = self.commands.get(&number) {
                        let _ = command.signal_group(libc::SIGKILL);
                    }
                }
                Timer::Memory => self.memory_look(),
                Timer::Settle => {
                    let place = self.commands.get(&number).filter(|c| c.exit.is_none()).and_then(|c| c.place);
                    if let (Some(place), Some(group)) = (place, self.group.as_mut()) {
                        group.settle(place);
                    }
                }
                Timer::Drain => {
                    self.output_turn(number);
                    if let Some(command) = self.commands.get_mut(&number) {
                        command.look(now);
                        if let Some(wait) = command.next_look() {
                            self.timers.insert((now + wait, number, Timer::Drain), ());
                        }
                    }
                    self.output_turn(number);
                }
                Timer::Sentinel => self.held_long_enough(),
                Timer::Directories => self.directories_silent(),
            }
        }
    }

    /// Takes every ended child: commands, and orphans that we have inherited as PID 1.
    pub fn reap(&mut self) {
        let mut info = [0u8; 128];
        let _ = sys::read(self.children_fd(), &mut info);
        loop {
            // SAFETY: a zeroed siginfo is valid. WNOWAIT leaves the child a zombie, so its pid cannot be taken yet.
            let pid = unsafe {
                let mut si: libc::siginfo_t = std::mem::zeroed();
                if libc::waitid(libc::P_ALL, 0, &mut si, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) < 0 {
                    return;
                }
                si.si_pid()
            };
            if pid == 0 {
                return;
            }
            let number = self.commands.values().find(|c| c.pid == pid && c.exit.is_none()).map(|c| c.id);
            let ending = number.and_then(|n| self.commands.get(&n)).and_then(|c| c.ending);
            if ending.is_some() {
                // What is left of its group had its notice too.
                // SAFETY: the zombie still holds the group's number.
                unsafe { libc::kill(-pid, libc::SIGKILL) };
            }
            let mut wait_status = 0;
            // SAFETY: reaps exactly this child.
            unsafe { libc::waitpid(pid, &mut wait_status, 0) };
            match number {
                Some(number) => self.command_ended(number, wait_status, ending.unwrap_or(Reason::Exited)),
                None => self.note_end(pid, wait_status),
            }
        }
    }

    pub fn command_ended(&mut self, number: u64, wait_status: i32, reason: Reason) {
        // A shell tells the death of its child by that code.
        let killed = libc::WIFSIGNALED(wait_status) && libc::WTERMSIG(wait_status) == libc::SIGKILL
            || libc::WIFEXITED(wait_status) && libc::WEXITSTATUS(wait_status) == 128 + libc::SIGKILL;
        let place = self.commands.get(&number).and_then(|c| c.place);
        let mut reason = reason;
        if let (Some(place), Some(group)) = (place, self.group.as_mut()) {
            group.leave(place);
            if killed && reason == Reason::Exited && group.lacked(place) {
                reason = Reason::OutOfMemory;
            }
        }
        let exit = if libc::WIFSIGNALED(wait_status) {
            let signal = libc::WTERMSIG(wait_status) as u8;
            Exit { code: signal.wrapping_add(128), signal, reason }
        } else {
            Exit { code: libc::WEXITSTATUS(wait_status) as u8, signal: 0, reason }
        };
        if let Some(command) = self.commands.get_mut(&number) {
            command.ended(exit);
        }
        self.output_turn(number);
        let command = self.commands.get(&number);
        let waits = command.map_or(false, |c| c.until_closed);
        self.timers.retain(|(_, n, t), _| *n != number || (*t == Timer::Timeout && waits));
        if let Some(wait) = command.and_then(|c| c.next_look()) {
            self.timers.insert((sys::monotonic() + wait, number, Timer::Drain), ());
        }
    }

    /// The follower has all output of an ended command: END.
    pub fn finish_follower(&mut self, stream: u32, number: u64) {
        let exit = self.commands.get_mut(&number).and_then(|c| {
            c.followers.retain(|f| f.stream != stream);
            c.exit
        });
        if let Some(exit) = exit {
            self.end(stream, Ok(exit_fields(&exit)));
        }
        self.forget_old_commands();
    }

    /// A stream no longer follows. `lost`: because its session ended.
    pub fn unfollow(&mut self, number: u64, stream: u32, lost: bool) {
        let mut end = false;
        if let Some(command) = self.commands.get_mut(&number) {
            command.followers.retain(|f| f.stream != stream);
            end = lost && !command.keep && command.followers.is_empty();
        }
        if end {
            self.terminate(number, Reason::Cancelled);
        }
        // It may have been held back by this follower.
        self.output_turn(number);
    }

    /// All rings together: an eighth of the guest's memory, at least 16 MiB.
    fn ring_budget(&self) -> usize {
        (self.memory / 8).max(16 << 20)
    }

    /// Commands at once, so that their rings at the least cannot pass half of the memory.
    fn max_commands(&self) -> usize {
        (self.memory / (2 * LEAST_RING)).clamp(64, MAX_COMMANDS)
    }

    /// Recent output is a convenience, memory is not: first ended commands go, then what this ring has too much.
    fn bound_rings(&mut self, number: u64) {
        let total = |agent: &Agent| agent.commands.values().map(|c| c.ring.used()).sum::<usize>();
        if total(self) <= self.ring_budget() {
            return;
        }
        self.forget_old_commands();
        if total(self) > self.ring_budget() {
            if let Some(command) = self.commands.get_mut(&number) {
                command.ring.shrink(LEAST_RING);
            }
        }
    }

    /// Ended commands stay for ATTACH while there is room; those that nobody was to follow, whose output is a log, longest.
    fn forget_old_commands(&mut self) {
        let ended = |c: &&Command| c.exit.is_some() && c.followers.is_empty();
        let mut count = self.commands.values().filter(ended).count();
        let mut memory: usize = self.commands.values().map(|c| c.ring.used()).sum();
        while count > MAX_ENDED || (count > 0 && memory > self.ring_budget()) {
            let followed = |c: &&Command| ended(c) && !c.detached;
            let oldest = match self.commands.values().find(followed).or_else(|| self.commands.values().find(ended)) {
                Some(c) => c.id,
                None => return,
            };
            if let Some(c) = self.commands.remove(&oldest) {
                memory = memory.saturating_sub(c.ring.used());
                count -= 1;
            }
        }
    }
}

pub fn exit_fields(exit: &Exit) -> Fields {
    let mut f = Fields::new();
    f.u8(tag::EXIT_CODE, exit.code).u8(tag::REASON, exit.reason as u8);
    if exit.signal != 0 {
        f.u8(tag::SIGNAL, exit.signal);
    }
    f
}

fn resize(fd: i32, rows: u64, cols: u64) {
    let size = libc::winsize {
        ws_row: rows.clamp(1, 65_535) as u16,
        ws_col: cols.clamp(1, 65_535) as u16,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize.
    unsafe { libc::ioctl(fd, libc::TIOCSWINSZ as _, &size) };
}
