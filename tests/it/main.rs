//! The parts of the server together, over a fake world: nothing here needs a Docker Engine or the network.

#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test stops at the first thing that is not as it must be, and says what it skips"
)]

mod api;
mod cli;
mod crash;
mod figures;
mod gate;
mod observe;
#[path = "../ports/mod.rs"]
mod ports;
mod replicas;
mod sagas;
mod store;
