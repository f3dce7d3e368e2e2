//! What tenants print and use, over a fake provider.

mod logs;
mod many;
mod metrics;
mod rig;
mod verbs;
