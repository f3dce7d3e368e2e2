//! A server with a tenant that runs, and the words that these tests say.

use std::time::{Duration, Instant};

use systemprompt::server::world::Printed;

use crate::api::rig::{Api, PATIENCE};
use crate::cli::rig::Said;

/// A server, and a tenant `acme` on it.
pub(crate) struct Place {
    pub(crate) api: Api,
    /// The tenant's path in the API.
    pub(crate) path: String,
}

impl Place {
    /// Nothing runs yet.
    pub(crate) async fn empty() -> Self {
        let mut api = Api::start();
        api.server.sign_in();
        let path = api.owner.tenant("acme").await;
        Self { api, path }
    }

    /// v1 runs.
    pub(crate) async fn running() -> Self {
        let place = Self::empty().await;
        place.release("first").await;
        place
    }

    /// A new release runs.
    pub(crate) async fn release(&self, content: &str) {
        let answer = self.api.owner.deploy(&self.path, content).await;
        self.api.owner.succeeded(&answer).await;
    }

    /// Lets a machine print lines.
    pub(crate) fn prints(&self, machine: &str, lines: &[(&str, &str)]) {
        let world = self.api.server.world();
        let found = world.change(|state| {
            let machine = state.machines.get_mut(machine)?;
            machine.printed.extend(lines.iter().map(|(at, text)| Printed {
                at: (*at).to_owned(),
                is_error: text.starts_with('!'),
                text: (*text).to_owned(),
            }));
            Some(())
        });
        found.expect("a world").expect("a machine");
    }

    /// Asks until the answer holds this.
    pub(crate) fn until(&self, arguments: &[&str], wanted: &str) -> Said {
        let began = Instant::now();
        loop {
            let said = self.api.server.run(arguments);
            if said.stdout.contains(wanted) {
                return said;
            }
            assert!(began.elapsed() < PATIENCE, "{wanted}: {}", said.whole());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
