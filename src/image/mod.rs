//! Docker on this machine: preflight, fingerprint, context, build, push. Progress goes out as values.
//!
//! Nothing here reads the environment or writes to the terminal: the caller hands in an
//! [`endpoint::EngineEnvironment`] and a [`progress::Progress`].

pub mod binary;
pub mod build;
pub mod context;
pub mod database;
pub mod dockerfile;
pub mod endpoint;
pub mod engine;
pub mod error;
pub mod fingerprint;
pub mod ignore;
mod pattern;
pub mod progress;
pub mod prune;
pub mod pull;
pub mod push;
mod records;
