//! Tenant provisioning: the CLI that a developer runs and the management API that an operator runs, in one crate.
//!
//! # The map
//!
//! | Module | What it is |
//! |---|---|
//! | [`api`] | the contract: data that both halves serialize; no IO |
//! | [`client`] | talks to a server: one typed method per endpoint, events with resume |
//! | [`workspace`] | the `.systemprompt` folder and the credentials of this machine |
//! | [`image`] | Docker on this machine: fingerprint, context, build, push |
//! | [`cli`] | the terminal: one file per command; `ui` is the only writer |
//! | [`runtime`] | what runs inside the sample tenant |
//! | [`server`] | the management API |
//!
//! Calls go down (`cli → client → http → provision → providers`), one event stream comes up. Who may import
//! whom is held by `tests/architecture.rs`.

pub mod api;
pub mod cli;
pub mod client;
pub mod image;
pub mod runtime;
pub mod server;
pub mod workspace;

#[cfg(test)]
mod mutation;
