//! Commands between the call and their process. While directories of the host are mounted, a start may have to wait for the host (its program or
//! its working directory is there), so it is a job then: the loop, which asks the host, must not wait for it.

use crate::command::{Reason, Source, Stdin};
use crate::group::Place;
use crate::identity::Defaults;
use crate::protocol::{tag, Fields, Reader};
use crate::session::{Agent, Call};
use crate::spawn::{spawn, Program};
use crate::sys::{Fail, Fd, Result};

pub struct Starting {
    pub stream: u32,
    /// Of EXEC.
    pub fields: Vec<u8>,
    pub stdio: [i32; 3],
    pub sources: Vec<Source>,
    pub stdin: Option<Stdin>,
    /// What `stdio` names is open as long as these are.
    pub child_ends: Vec<Fd>,
    pub place: Option<Place>,
    pub cancelled: bool,
    /// It is the second attempt.
    pub again: bool,
}

pub fn terminal_of<'a>(fields: &Reader<'a>) -> Result<Option<Reader<'a>>> {
    match fields.bytes(tag::PTY) {
        Some(inner) => Reader::new(inner).map(Some).map_err(|_| Fail::invalid("bad fields in PTY")),
        None => Ok(None),
    }
}

/// @returns its pid
pub fn start(fields: &Reader, stdio: [i32; 3], cgroup: Option<i32>, defaults: &Defaults, stack: &mut [u8]) -> Result<i32> {
    let argv: Vec<&[u8]> = fields.all(tag::ARGV).collect();
    let env: Vec<&[u8]> = fields.all(tag::ENV).collect();
    let pty = terminal_of(fields)?;
    let program = Program {
        argv: &argv,
        env: &env,
        cwd: fields.bytes(tag::CWD),
        user: fields.bytes(tag::USER),
        term: pty.as_ref().map(|p| p.bytes(tag::TERM).unwrap_or(b"xterm-256color")),
        stdio,
        tty: pty.is_some(),
        cgroup,
    };
    spawn(&program, defaults, stack)
}

impl Agent {
    pub fn start_beside(&mut self, starting: Starting) -> Result<()> {
        let id = starting.stream;
        if !self.streams.contains_key(&id) {
            self.add(id, Call::Starting(Vec::new()));
        }
        let (fields, stdio, cgroup) = (starting.fields.clone(), starting.stdio, self.cgroup_of(starting.place));
        let defaults = self.identity.defaults.clone();
        let job = self.start_job(id, 0, move |_| {
            let reader = Reader::new(&fields).map_err(|_| Fail::invalid("bad fields"))?;
            let pid = start(&reader, stdio, cgroup, &defaults, &mut vec![0; 65_536])?;
            let mut started = Fields::new();
            started.u32(tag::PID, pid as u32);
            Ok(started)
        });
        match job {
            Ok(handle) => {
                self.starting.insert(handle.serial, starting);
            }
            Err(fail) => self.finish_exec(starting, Err(fail)),
        }
        Ok(())
    }

    pub fn finish_start(&mut self, mut starting: Starting, result: Result<Fields>) {
        let pid = |fields: Fields| Reader::new(&fields.0).ok().and_then(|reader| reader.number(tag::PID)).unwrap_or(0) as i32;
        let spawned = result.map(pid);
        if !starting.again && self.make_room(&spawned, starting.place) {
            starting.again = true;
            if let Err(fail) = self.start_beside(starting) {
                crate::sys::say(&fail.message);
            }
            return;
        }
        self.finish_exec(starting, spawned);
        if self.starting.is_empty() {
            self.early_ends.clear();
        }
    }

    /// It is ended as soon as it runs.
    pub fn cancel_start(&mut self, id: u32) {
        for starting in self.starting.values_mut().filter(|starting| starting.stream == id) {
            starting.cancelled = true;
        }
    }

    /// A child that nobody knows, or that nobody knows yet.
    pub fn note_end(&mut self, pid: i32, wait_status: i32) {
        if !self.starting.is_empty() {
            self.early_ends.push((pid, wait_status));
        }
    }

    /// A command whose end came before the loop had heard of its start.
    pub fn ended_early(&mut self, pid: i32) {
        if let Some(at) = self.early_ends.iter().position(|(ended, _)| *ended == pid) {
            let (_, wait_status) = self.early_ends.swap_remove(at);
            if let Some(number) = self.commands.values().find(|c| c.pid == pid && c.exit.is_none()).map(|c| c.id) {
                self.command_ended(number, wait_status, Reason::Exited);
            }
        }
    }
}
