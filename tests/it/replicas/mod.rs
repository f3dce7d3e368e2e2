//! Two servers, real processes, over one real PostgreSQL: any request goes to any of them.

mod leases;
mod rig;
mod sharing;
