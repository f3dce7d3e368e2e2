//! The gate through its wire: every case of the specification's conformance program, and what it must never do.

mod blobs;
mod collect;
mod conformance;
mod contents;
pub(crate) mod harness;
mod isolation;
mod manifests;
mod tokens;
mod upkeep;
mod uploads;
