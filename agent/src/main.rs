//! PID 1: boot, then serve for ever. A failure before that is told on the console and ends the guest.

use agent::sys::{self, Fd, Result};
use agent::group::Group;
use agent::{boot, channel, identity, session};

fn main() {
    // SAFETY: plain call.
    if unsafe { libc::getpid() } != 1 {
        sys::say("runs as PID 1 of a StacyVM guest only");
        std::process::exit(2);
    }
    if let Err(fail) = serve() {
        sys::say(&format!("cannot start: {}", fail.message));
    }
    // SAFETY: nothing is written to disks before the agent serves.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_AUTOBOOT);
        loop {
            libc::pause();
        }
    }
}

fn serve() -> Result<()> {
    let layers = boot::boot()?;
    if let Err(fail) = boot::loopback_up() {
        sys::say(&fail.message);
    }
    let children = child_signals()?;
    limits();
    let identity = identity::Identity::prepare()?;
    let channel = channel::Channel::open()?;
    let mut agent = session::Agent::new(channel, identity, children, group(), layers)?;
    if let Err(fail) = agent.prepare_intercept() {
        sys::say(&fail.message);
    }
    // SAFETY: no memory is passed. All of the program is in memory anyway; this maps it, so that no first use faults.
    unsafe { libc::mlockall(libc::MCL_CURRENT) };
    sys::say("ready");
    agent.run()
}

/// Ended children become readable events. Blocked in every later thread too.
fn child_signals() -> Result<Fd> {
    // SAFETY: a zeroed set is valid.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        sys::check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK), "signalfd").map(Fd::own)
    }
}

fn limits() {
    let files = libc::rlimit { rlim_cur: 65_536, rlim_max: 1_048_576 };
    // What bounds the number of processes is the commands' group, not the user.
    let processes = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structures are valid. Failures leave the defaults, which work.
    unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &files);
        libc::setrlimit(libc::RLIMIT_NPROC, &processes);
        // Before everything the sandbox runs, so that no load of it can keep the agent from answering. Children start
        // as normal processes again.
        let priority = libc::sched_param { sched_priority: 1 };
        if libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &priority) < 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, -20);
        }
    }
}

/// A guest without cgroups still runs commands; it cannot freeze them.
fn group() -> Option<Group> {
    Group::make().map_err(|fail| sys::say(&fail.message)).ok()
}
