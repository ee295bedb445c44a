//! Memory that runs out. The kernel ends a process when nothing can be taken back any more; before that it may spend minutes on
//! taking back the pages of programs that run and reading them again. So while commands are at their limit, the agent looks five
//! times a second: when most of the memory cannot be taken back and what can be comes back at once, the largest process ends.
//!
//! Without such an event there is no timer, and nothing is read.

use crate::group::counter;
use crate::session::{token, Agent, Timer};
use crate::sys::{self, Fd, Result, EDGE_PRIORITY};

const EVENTS: &[u8] = b"/sys/fs/cgroup/commands/memory.events";
const STAT: &[u8] = b"/sys/fs/cgroup/commands/memory.stat";
const LOOK_NS: u64 = 200_000_000;
/// So many looks in a row that found the guest reading its programs again and again.
const PATIENCE: u32 = 10;
/// Pages of files that come back within one look. A slow guest has few of them, one that reads new files none.
const REFAULTS: u64 = 16;
/// Processes that memory costs in one bout before their whole command goes: something makes them faster than they end.
const STORM: u64 = 16;

pub struct Watch {
    events: Fd,
    stat: Fd,
    looking: bool,
    /// Times that the limit was met.
    met: u64,
    refaults: u64,
    bad: u32,
    /// Processes that memory had cost when the bout began.
    killed: u64,
}

impl Watch {
    /// A kernel without the controller has nothing to watch.
    pub fn open() -> Result<Watch> {
        Ok(Watch {
            events: sys::open(EVENTS, libc::O_RDONLY, 0)?,
            stat: sys::open(STAT, libc::O_RDONLY, 0)?,
            looking: false,
            met: 0,
            refaults: 0,
            bad: 0,
            killed: 0,
        })
    }

    pub fn fd(&self) -> (i32, u32, u64) {
        (self.events.raw(), EDGE_PRIORITY, token::MEMORY)
    }
}

fn text(fd: &Fd) -> String {
    let mut all = vec![0u8; 8192];
    // SAFETY: a buffer of the given size.
    let n = unsafe { libc::pread(fd.raw(), all.as_mut_ptr() as *mut libc::c_void, all.len(), 0) };
    all.truncate(n.max(0) as usize);
    String::from_utf8_lossy(&all).into_owned()
}

impl Agent {
    /// The kernel says that a counter has changed.
    pub fn memory_event(&mut self) {
        if let Some(watch) = self.memory_watch.as_mut().filter(|w| !w.looking) {
            let events = text(&watch.events);
            let met = counter(&events, "max ");
            if met == std::mem::replace(&mut watch.met, met) {
                return;
            }
            watch.looking = true;
            if let Some(group) = self.group.as_mut() {
                group.short = true;
            }
            watch.killed = counter(&events, "oom_kill ");
            watch.refaults = counter(&text(&watch.stat), "workingset_refault_file ");
            watch.bad = 0;
            self.timers.insert((sys::monotonic() + LOOK_NS, 0, Timer::Memory), ());
        }
    }

    pub fn memory_look(&mut self) {
        let (watch, group) = match (self.memory_watch.as_mut(), self.group.as_mut()) {
            (Some(watch), Some(group)) => (watch, group),
            _ => return,
        };
        let (events, stat) = (text(&watch.events), text(&watch.stat));
        let met = counter(&events, "max ");
        if met == std::mem::replace(&mut watch.met, met) {
            watch.looking = false;
            return;
        }
        let refaults = counter(&stat, "workingset_refault_file ");
        let again = refaults - std::mem::replace(&mut watch.refaults, refaults).min(refaults);
        // There is no swap: only pages of files can be taken back.
        let fixed = ["anon ", "shmem ", "kernel_stack ", "pagetables ", "slab_unreclaimable "].iter().map(|n| counter(&stat, n)).sum::<u64>();
        let bad = again > REFAULTS && fixed > group.memory() / 8 * 7;
        watch.bad = if bad { watch.bad + 1 } else { 0 };
        if watch.bad >= PATIENCE {
            watch.bad = 0;
            watch.killed = watch.killed.saturating_sub(1);
            group.end_largest();
        }
        if counter(&events, "oom_kill ").saturating_sub(watch.killed) >= STORM {
            watch.killed = counter(&events, "oom_kill ");
            group.end_worst();
        }
        self.timers.insert((sys::monotonic() + LOOK_NS, 0, Timer::Memory), ());
    }
}
