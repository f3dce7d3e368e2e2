//! What a server holds that nobody asks anything.

use std::time::Duration;

use crate::Scale;
use crate::harness::contest::{Contest, Measured, Outcome, Role, Unit};
use crate::harness::served::{Folder, Served};

const LIMIT: f64 = 40.0;
const ALLOWED: &str = "what is allowed";

/// After the start, and a minute later.
pub(crate) fn bench(scale: Scale) -> Outcome<Vec<Measured>> {
    let folder = Folder::new()?;
    let served = Served::ours(folder.path(), &[])?;
    std::thread::sleep(Duration::from_secs(1));
    let after = if scale.quick { 5 } else { 60 };
    let begun = served.memory()?;
    std::thread::sleep(Duration::from_secs(after));
    let rested = served.memory()?;
    let held = |title: String, figure: f64| {
        Contest::new(title, Unit::Megabytes)
            .with(Role::Ours, "systemprompt serve", move || Ok(figure))
            .with(Role::Beside, ALLOWED, || Ok(LIMIT))
            .goal(ALLOWED, 1.0)
            .run(1)
    };
    Ok(vec![
        held("memory of an idle server, after its start".to_owned(), begun)?,
        held(format!("memory of an idle server, {after} s later"), rested)?,
    ])
}
