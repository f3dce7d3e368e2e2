//! The management API.

pub mod clock;
pub mod providers;
pub mod registry;
pub mod store;
