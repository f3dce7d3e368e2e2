//! The command line: the real program against the real server over a fake world.

pub(crate) mod answers;
mod browser;
mod deserted;
mod faults;
mod following;
mod house;
mod json;
mod login;
mod lost;
mod prompts;
mod proxy;
pub(crate) mod rig;
mod start;
