//! The four proofs that every saga must pass: fail at each step, run each step twice, undo twice, die between steps.

mod alone;
mod cancel;
mod collect;
mod create_tenant;
mod decisions;
mod delete_tenant;
mod deploy;
mod others;
pub(crate) mod proofs;
mod reconcile;
mod replicas;
pub(crate) mod rig;
mod rollback;
mod rotate_jwt;
mod side_by_side;
