//! What runs inside the sample tenant: `services serve`, `services db migrate`, `services health`.
//!
//! ```text
//! settings ← the environment that the platform injects
//! migrate    SQL files of the project, once each, under a lock
//! serve      routes over: database (visits, readiness), catalog (agents, skills), files (the web folder)
//! ```

pub mod catalog;
mod crowd;
pub mod database;
pub mod files;
pub mod health;
pub mod migrate;
mod migration_files;
pub mod page;
pub mod routes;
pub mod serve;
pub mod settings;
