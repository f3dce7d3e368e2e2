//! The waits: a file each.

mod api;
mod append;
mod context;
mod create;
mod deploy;
mod engine;
mod gate;
mod memory;
mod peak;
mod push;
mod start;
mod streams;

use crate::Scale;
use crate::harness::contest::{Measured, Outcome};

/// One bench: its contests, run.
pub(crate) type Bench = fn(Scale) -> Outcome<Vec<Measured>>;

/// Every bench, by name, in the order in which they run.
pub(crate) const ALL: &[(&str, Bench)] = &[
    ("start", start::bench),
    ("context", context::bench),
    ("api", api::bench),
    ("streams", streams::bench),
    ("memory", memory::bench),
    ("engine", engine::bench),
    ("gate", gate::bench),
    ("create", create::bench),
    ("push", push::bench),
    ("deploy", deploy::bench),
    ("peak", peak::bench),
];
