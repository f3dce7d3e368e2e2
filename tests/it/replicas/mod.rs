//! Two servers, real processes, over one real PostgreSQL: any request goes to any of them.

mod leases;
mod moving;
mod outages;
pub(crate) mod rig;
mod sharing;
mod versions;
mod wire;
