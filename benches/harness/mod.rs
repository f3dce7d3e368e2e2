//! How benches measure and tell.

pub(crate) mod contest;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod sink;
pub(crate) mod tree;
