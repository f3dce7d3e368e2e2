//! The command line: the real program against the real server over a fake world.

mod answers;
mod browser;
mod faults;
mod following;
mod login;
mod lost;
mod prompts;
mod proxy;
mod rig;
