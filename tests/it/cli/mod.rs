//! The command line: the real program against the real server over a fake world.

mod answers;
mod faults;
mod following;
mod prompts;
mod proxy;
mod rig;
