//! The management API.

pub mod auth;
pub mod billing;
pub mod clock;
pub mod config;
pub mod containers;
pub mod databases;
pub mod edge;
pub mod http;
pub mod installation;
pub mod providers;
pub mod provision;
pub mod registry;
pub mod store;
pub mod vault;
pub mod world;
