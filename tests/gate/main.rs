//! The gate through its wire: every case of the specification's conformance program, and what it must never do.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first thing that is not as it must be"
)]

mod blobs;
mod conformance;
mod contents;
mod harness;
mod isolation;
mod manifests;
mod tokens;
mod upkeep;
mod uploads;
