//! The guest's agent: PID 1 of the microVM.

pub mod accept;
pub mod boot;
pub mod buffers;
pub mod channel;
pub mod command;
pub mod decoder;
pub mod exec;
pub mod files;
pub mod glob;
pub mod identity;
pub mod jobs;
pub mod layer;
pub mod pause;
pub mod protocol;
pub mod queue;
pub mod ring;
pub mod session;
pub mod spawn;
pub mod sys;
pub mod system;
pub mod tar;
pub mod tree;
pub mod tunnel;
pub mod user;
pub mod walk;
pub mod watch;
