//! Two servers, real processes, over one real PostgreSQL: any request goes to any of them.

mod leases;
mod moving;
mod outages;
mod rig;
mod sharing;
mod wire;
