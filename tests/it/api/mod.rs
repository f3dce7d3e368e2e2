//! The management API over HTTP: the real server over a fake world, spoken to by hand.

mod audit;
mod canaries;
mod credentials;
mod deploys;
mod events;
mod idempotency;
mod identity;
mod isolation;
mod keys;
mod limits;
mod matrix;
mod members;
mod oidc;
mod openapi;
mod operations;
mod pages;
mod problems;
mod releases;
pub(crate) mod rig;
mod safety;
mod secret_history;
mod secrets;
mod serving;
mod sign_in;
mod support;
mod tenants;
mod trust;
