//! How benches measure and tell.

pub(crate) mod ask;
pub(crate) mod contest;
pub(crate) mod load;
pub(crate) mod place;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod seed;
pub(crate) mod served;
pub(crate) mod sink;
pub(crate) mod tree;
pub(crate) mod wire;
