//! The waits: a file each.

mod context;
mod start;

use crate::Scale;
use crate::harness::contest::{Measured, Outcome};

/// One bench: its contests, run.
pub(crate) type Bench = fn(Scale) -> Outcome<Vec<Measured>>;

/// Every bench, by name, in the order in which they run.
pub(crate) const ALL: &[(&str, Bench)] = &[("start", start::bench), ("context", context::bench)];
