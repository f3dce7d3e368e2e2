//! The management API.

pub mod clock;
pub mod providers;
pub mod store;
