//! What tenants print and use, over a fake provider.

mod logs;
mod many;
mod metrics;
pub(crate) mod rig;
mod verbs;
