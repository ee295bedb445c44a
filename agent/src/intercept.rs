//! The network of programs that know nothing of a proxy. There is no network card: every address is loopback's, so the guest's own
//! kernel is the other end of each connection; a program of bpf.rs gives it to a socket of ours, and the host dials instead (INTERCEPT).
//! Datagrams come to sockets of ours too (datagrams.rs).
//!
//! Sockets, program and addresses are made at boot, so a golden snapshot has them; the routes, without which nothing reaches
//! them, come and go with the identity (NETWORK): code that each clone would run for the first time in its handshake.

use crate::accept::{Listener, ANYWHERE};
use crate::bpf::{Addresses, Steering, TCP4, TCP6, UDP4, UDP6};
use crate::datagrams::Datagrams;
use crate::netlink;
use crate::protocol::status;
use crate::session::Agent;
use crate::sys::{self, Fail, Result};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Loopback's. Of the ranges for benchmarks and for private use: nobody else's.
const OWN4: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 254);
const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x7461, 0x6379, 0, 0, 0, 0, 1);
/// The name server of /etc/resolv.conf.
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);

/// What was made at boot.
pub struct Intercept {
    _steering: Steering,
    pub datagrams: Datagrams,
    on: bool,
    /// Why the last switch failed.
    problem: Option<String>,
}

impl Intercept {
    fn prepare() -> Result<(Intercept, Listener)> {
        let own6 = OWN6.octets();
        let addresses = Addresses { own4: OWN4.octets(), own6: [own6[0], own6[1], own6[2], own6[3]], dns: NAME_SERVER.octets() };
        let steering = Steering::attach(&addresses)?;
        // Any port: programs of the guest keep all the known ones.
        let listener = Listener::open(&[NAME_SERVER.into(), Ipv6Addr::LOCALHOST.into()], 0)?;
        for (slot, socket) in [TCP4, TCP6].into_iter().zip(listener.descriptors()) {
            steering.give(slot, socket)?;
        }
        let datagrams = Datagrams::open(NAME_SERVER.into(), [OWN4.into(), OWN6.into()])?;
        for (slot, socket) in [UDP4, UDP6].into_iter().zip(datagrams.descriptors()) {
            steering.give(slot, socket)?;
        }
        datagrams.take_echoes()?;
        netlink::address(OWN4.into())?;
        netlink::address(OWN6.into())?;
        Ok((Intercept { _steering: steering, datagrams, on: false, problem: None }, listener))
    }

    fn switch(&mut self, on: bool) -> Result<()> {
        if on == self.on {
            return Ok(());
        }
        netlink::everything_is_local(OWN4.into(), on)?;
        netlink::everything_is_local(OWN6.into(), on)?;
        self.on = on;
        Ok(())
    }
}

impl Agent {
    /// Runs once, at boot. A guest whose kernel cannot do it has no network but the proxy.
    pub fn prepare_intercept(&mut self) -> Result<()> {
        let (intercept, listener) = Intercept::prepare()?;
        self.watch_datagrams(&intercept.datagrams)?;
        self.listen(ANYWHERE, listener)?;
        self.intercept = Some(intercept);
        Ok(())
    }

    /// From now on every address is taken, or none is any more.
    pub fn network(&mut self, on: bool) -> Result<()> {
        self.network_due = false;
        // While there is a way yet on which a program's end of a connection hears of it.
        if !on && matches!(&self.intercept, Some(intercept) if intercept.on) {
            self.cut_connections(ANYWHERE);
        }
        match &mut self.intercept {
            Some(intercept) => {
                let switched = intercept.switch(on);
                intercept.problem = switched.as_ref().err().map(|fail| fail.message.clone());
                switched
            }
            None => Ok(()),
        }
    }

    /// What a handshake has left for after its answer.
    pub fn give_network(&mut self) {
        if self.network_due {
            if let Err(fail) = self.network(true) {
                sys::say(&fail.message);
            }
        }
    }

    pub fn intercept_call(&mut self, id: u32) -> Result<()> {
        self.intercept_ready()?;
        self.wait_for_connection(id, ANYWHERE);
        Ok(())
    }

    pub fn intercept_ready(&self) -> Result<()> {
        match &self.intercept {
            Some(Intercept { problem: Some(problem), .. }) => Err(Fail::new(status::IO, problem.clone())),
            Some(_) => Ok(()),
            None => Err(Fail::new(status::NOT_SUPPORTED, "this guest's kernel has no BPF program of type sk_lookup")),
        }
    }
}
