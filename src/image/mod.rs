//! Docker on this machine: preflight, fingerprint, context, build, push. Progress goes out as values.

pub mod progress;
