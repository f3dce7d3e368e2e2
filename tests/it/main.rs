//! The parts of the server together, over a fake world: nothing here needs a Docker Engine or the network.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first thing that is not as it must be"
)]

mod gate;
mod sagas;
