//! Where commands run: a control group of their own, bounded in memory and in processes, so that the agent, its channel and its file
//! calls have room whatever they do. Each command has a part of it, which is a little smaller than the whole: a command that fills its
//! part leaves another one room to begin, and all parts have the same share of the processors.
//!
//! A part is taken again when nothing runs in it any more, so the usual command, one after another, costs no new group.

use crate::sys::{self, Fail, Fd, Result};
use std::fs;

const ROOT: &str = "/sys/fs/cgroup";
const GROUP: &str = "/sys/fs/cgroup/commands";
/// Shares of the processors (`cpu.weight`): of a command that has just begun, and of one that has been running for a while. Beside any
/// number of busy ones a shell gets half of them, and answers.
const NEW: &str = "10000";
const SETTLED: &str = "100";
/// When a command is no new one any more, ns.
pub const SETTLE_NS: u64 = 2_000_000_000;
/// Beyond it commands share the first part.
const MAX_PARTS: usize = 512;
const CONTROLLERS: [&str; 3] = ["pids", "memory", "cpu"];
/// Of one part, that are looked through.
const MOST_GROUPS: usize = 1024;
const MIB: u64 = 1 << 20;

pub struct Group {
    freeze: Fd,
    parts: Vec<Part>,
    limits: Limits,
    /// Memory has run out before: only then are there counters worth reading.
    pub short: bool,
}

struct Part {
    dir: Fd,
    /// `cgroup.events`: says whether anything runs in it.
    events: Fd,
    /// A command that we wait for runs in it.
    busy: bool,
    /// Processes that memory has cost it, by the kernel or by us, up to the last look.
    killed: u64,
    /// Those that we have ended.
    ours: u64,
    /// Its share is that of commands that have been running for a while.
    settled: bool,
}

#[derive(Debug, PartialEq, Clone, Copy)]
struct Limits {
    /// Bytes, of all commands together and of one.
    memory: (u64, u64),
    processes: (u64, u64),
}

/// A place for one command, given back by `leave`.
#[derive(Clone, Copy, PartialEq)]
pub struct Place(usize);

impl Limits {
    /// @param available bytes that the guest has left at boot. @param threads most tasks that its kernel takes
    fn of(available: u64, threads: u64) -> Limits {
        let all = available.saturating_sub((available / 16).clamp(8 * MIB, 64 * MIB)).max(8 * MIB);
        // A process costs the kernel about so much, however small it is; more of them would end for want of memory.
        let tasks = threads.saturating_sub(threads / 8 + 64).min(all / (96 << 10)).max(64);
        Limits { memory: (all, all - (all / 16).clamp(2 * MIB, 32 * MIB)), processes: (tasks, tasks - tasks / 8) }
    }
}

impl Group {
    pub fn make() -> Result<Group> {
        let number = |path: &str| fs::read_to_string(path).ok().and_then(|t| t.trim().parse::<u64>().ok());
        let available = crate::system::meminfo(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable:");
        let limits = Limits::of(available, number("/proc/sys/kernel/threads-max").unwrap_or(4096));
        fs::create_dir_all(GROUP).map_err(|e| Fail::io(&e, "cgroup"))?;
        // One by one: what a kernel lacks must not cost what it has.
        for above in [ROOT, GROUP] {
            for controller in CONTROLLERS {
                let _ = fs::write(format!("{}/cgroup.subtree_control", above), format!("+{}", controller));
            }
        }
        set(GROUP, limits.memory.0, limits.processes.0);
        Ok(Group {
            freeze: sys::open(format!("{}/cgroup.freeze", GROUP).as_bytes(), libc::O_RDWR, 0)?,
            parts: Vec::new(),
            limits,
            short: false,
        })
    }

    /// A part that nothing runs in.
    pub fn enter(&mut self) -> Result<Place> {
        let free = self.parts.iter().position(|p| !p.busy && !p.is_populated());
        let at = match free {
            Some(at) => at,
            None if self.parts.len() < MAX_PARTS => {
                let part = Part::make(self.parts.len(), &self.limits)?;
                self.parts.push(part);
                self.parts.len() - 1
            }
            None => 0,
        };
        self.parts[at].busy = true;
        self.parts[at].share(at, false);
        if self.short {
            self.parts[at].killed = self.parts[at].count(at);
        }
        Ok(Place(at))
    }

    pub fn dir(&self, place: Place) -> i32 {
        self.parts[place.0].dir.raw()
    }

    /// Takes away the groups that an earlier command has made in the part. A part that gives controllers to groups in it takes no
    /// process of its own (Linux, Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint").
    pub fn clear(&self, place: Place) {
        for group in groups(place.0).iter().skip(1).rev() {
            let _ = fs::remove_dir(group);
        }
        for controller in CONTROLLERS {
            let _ = fs::write(format!("{}/cgroup.subtree_control", path(place.0)), format!("-{}", controller));
        }
    }

    /// The command has ended.
    pub fn leave(&mut self, place: Place) {
        self.parts[place.0].busy = false;
        // What it leaves behind is no new command.
        if self.parts[place.0].is_populated() {
            self.settle(place);
        }
    }

    /// The command has been running for a while.
    pub fn settle(&mut self, place: Place) {
        self.parts[place.0].share(place.0, true);
    }

    /// Memory has cost one of its processes since the command began.
    pub fn lacked(&self, place: Place) -> bool {
        self.parts[place.0].count(place.0) > self.parts[place.0].killed
    }

    /// Parts in which something runs: commands, and what commands have left behind.
    pub fn populated(&self) -> usize {
        self.parts.iter().filter(|p| p.is_populated()).count()
    }

    /// A process that is born frozen would hold the agent until it is thawed.
    pub fn is_frozen(&self) -> bool {
        let mut byte = [0u8; 1];
        // SAFETY: room for one byte.
        let n = unsafe { libc::pread(self.freeze.raw(), byte.as_mut_ptr() as *mut libc::c_void, 1, 0) };
        n == 1 && byte[0] == b'1'
    }

    pub fn set(&self, frozen: bool) -> Result<()> {
        sys::write_all(self.freeze.raw(), if frozen { b"1" } else { b"0" }).map_err(|e| Fail::errno(e, "cgroup.freeze"))
    }

    /// Bytes that all commands together may have.
    pub fn memory(&self) -> u64 {
        self.limits.memory.0
    }

    /// Ends the process that has most memory of its own.
    pub fn end_largest(&mut self) {
        let mut largest: Option<(u64, usize, i32)> = None;
        for at in 0..self.parts.len() {
            for pid in processes(at) {
                let size = own_memory(pid);
                if largest.map_or(true, |(most, _, _)| size > most) {
                    largest = Some((size, at, pid));
                }
            }
        }
        if let Some((_, at, pid)) = largest {
            self.parts[at].ours += 1;
            // SAFETY: plain integers.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    /// Ends all of the part that memory has cost the most processes since its command began.
    pub fn end_worst(&mut self) {
        let worst = (0..self.parts.len()).max_by_key(|at| self.parts[*at].count(*at) - self.parts[*at].killed.min(self.parts[*at].count(*at)));
        if let Some(at) = worst {
            self.parts[at].ours += 1;
            if fs::write(format!("{}/cgroup.kill", path(at)), "1").is_err() {
                for pid in processes(at) {
                    // SAFETY: plain integers.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                }
            }
        }
    }
}

impl Part {
    fn make(at: usize, limits: &Limits) -> Result<Part> {
        let path = path(at);
        fs::create_dir_all(&path).map_err(|e| Fail::io(&e, "cgroup"))?;
        set(&path, limits.memory.1, limits.processes.1);
        Ok(Part {
            dir: sys::open(path.as_bytes(), libc::O_RDONLY | libc::O_DIRECTORY, 0)?,
            events: sys::open(format!("{}/cgroup.events", path).as_bytes(), libc::O_RDONLY, 0)?,
            busy: false,
            killed: 0,
            ours: 0,
            settled: true,
        })
    }

    fn is_populated(&self) -> bool {
        let mut text = [0u8; 64];
        // SAFETY: a buffer of the given size.
        let n = unsafe { libc::pread(self.events.raw(), text.as_mut_ptr() as *mut libc::c_void, text.len(), 0) };
        text[..n.max(0) as usize].starts_with(b"populated 1")
    }

    fn share(&mut self, at: usize, settled: bool) {
        if self.settled != settled {
            self.settled = settled;
            // A kernel without the controller shares by process.
            let _ = fs::write(format!("{}/cpu.weight", path(at)), if settled { SETTLED } else { NEW });
        }
    }

    fn count(&self, at: usize) -> u64 {
        self.ours + counter(&fs::read_to_string(format!("{}/memory.events", path(at))).unwrap_or_default(), "oom_kill ")
    }
}

fn path(at: usize) -> String {
    format!("{}/{}", GROUP, at)
}

/// What a kernel without the controller refuses is not bounded.
fn set(path: &str, memory: u64, processes: u64) {
    let _ = fs::write(format!("{}/memory.max", path), memory.to_string());
    let _ = fs::write(format!("{}/pids.max", path), processes.to_string());
}

/// A line `NAME NUMBER` of a file of the kernel's. `name` ends with its space.
pub fn counter(text: &str, name: &str) -> u64 {
    text.lines().find_map(|l| l.strip_prefix(name)).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// A part's directory, then those of the groups that its processes have made in it, each after the one above it.
fn groups(at: usize) -> Vec<String> {
    let mut groups = vec![path(at)];
    for next in 0..MOST_GROUPS {
        let below = match groups.get(next) {
            Some(group) => fs::read_dir(group).into_iter().flatten().flatten(),
            None => break,
        };
        groups.extend(below.filter(|e| e.file_type().map_or(false, |t| t.is_dir())).map(|e| e.path().to_string_lossy().into_owned()));
    }
    groups
}

fn processes(at: usize) -> Vec<i32> {
    let mut found = Vec::new();
    for group in groups(at) {
        let text = fs::read_to_string(format!("{}/cgroup.procs", group)).unwrap_or_default();
        found.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
    }
    found
}

/// Pages that only this process has: resident ones without those of files.
fn own_memory(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/statm", pid)).unwrap_or_default();
    let numbers: Vec<u64> = text.split_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
    match numbers.as_slice() {
        [_, resident, shared, ..] => resident.saturating_sub(*shared),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_leaves_room_for_another() {
        for (available, threads) in [(30 * MIB, 400), (200 * MIB, 1_600), (4096 * MIB, 32_000), (0, 0)] {
            let Limits { memory, processes } = Limits::of(available, threads);
            assert!(memory.1 < memory.0 && processes.1 < processes.0, "{:?}", (memory, processes));
            assert!(available < 16 * MIB || memory.0 <= available - 8 * MIB);
            assert!(threads < 128 || processes.0 < threads);
        }
        assert_eq!(Limits::of(960 * MIB, 8_000).memory, (900 * MIB, 900 * MIB - 32 * MIB));
    }

    #[test]
    fn counters() {
        assert_eq!(counter("low 0\nmax 7\noom 2\noom_kill 3\n", "oom_kill "), 3);
        assert_eq!(counter("oom_kill_x 3\n", "oom_kill "), 0);
    }
}
