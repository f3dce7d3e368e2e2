//! The main job on the real Docker Engine: the real program as server and as command line, PostgreSQL, Caddy.

mod failures;
mod hand_over;
mod load;
mod local;
mod main_job;
mod observed;
mod place;
mod project;
mod reconcile;
mod rollback;
mod under_load;
