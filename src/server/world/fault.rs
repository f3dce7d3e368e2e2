//! What may go wrong in the fake world, and how it looks to who called.

use serde::{Deserialize, Serialize};

use crate::server::world::WorldError;

/// What shall go wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nothing is done; it may work later.
    Retry,
    /// Nothing is done; it will not work.
    Fatal,
    /// It is done, but the caller hears that it may work later.
    LostReply,
    /// It is done after this time.
    Delay {
        /// How long.
        millis: u64,
    },
}

/// How a fault looks to who called.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It may work later.
    #[error("failed to call `{method}`: a planned fault that passes")]
    Retry {
        /// Which call.
        method: &'static str,
    },
    /// It will not work.
    #[error("failed to call `{method}`: a planned fault that stays")]
    Fatal {
        /// Which call.
        method: &'static str,
    },
    /// The world's file cannot be used.
    #[error(transparent)]
    World(#[from] WorldError),
}
