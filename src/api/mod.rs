//! The contract: every value that the CLI and the management API send each other. No IO.

pub mod account;
pub mod audit;
pub mod checkout;
pub mod drift;
pub mod edge_session;
pub mod event;
pub mod health;
pub mod id;
pub mod log;
pub mod member;
pub mod metrics;
pub mod name;
pub mod oauth;
pub mod operation;
pub mod page;
pub mod problem;
pub mod receipt;
pub mod registry;
pub mod release;
pub mod routes;
pub mod secret;
pub mod tenant;
pub mod time;
pub mod trust;

/// The path under which every versioned route lives.
pub const BASE: &str = "/api/v1";
