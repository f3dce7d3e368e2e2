//! An edge that is only written down, with faults on request.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream;

use crate::api::time::Time;
use crate::server::edge::{
    Access, AccessQuery, AccessStream, Edge, EdgeError, EdgeSettings, Traffic, Waited,
};
use crate::server::world::{Broken, State, World};

/// How often the world is looked at for new requests.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Keeps the routes of all tenants in a fake world.
#[derive(Clone, Debug)]
pub struct FakeEdge {
    world: World,
    settings: EdgeSettings,
}

impl FakeEdge {
    /// An edge in `world`.
    #[must_use]
    pub fn new(world: World, settings: EdgeSettings) -> Self {
        Self { world, settings }
    }
}

impl From<Broken> for EdgeError {
    fn from(broken: Broken) -> Self {
        let what = "failed to change the edge of the fake world".to_owned();
        match broken {
            Broken::Retry { .. } => Self::Retry {
                what,
                source: Some(Box::new(broken)),
            },
            Broken::Fatal { .. } | Broken::World(_) => Self::Fatal {
                code: "planned-fault",
                what,
                hint: None,
                source: Some(Box::new(broken)),
            },
        }
    }
}

fn fatal(code: &'static str, what: String) -> EdgeError {
    EdgeError::Fatal {
        code,
        what,
        hint: None,
        source: None,
    }
}

fn send(state: &mut State, label: &str, traffic: Traffic) -> Result<(), EdgeError> {
    if !state.routes.contains_key(label) {
        return Err(fatal(
            "route-not-found",
            format!("failed to send the requests of `{label}` anywhere: it has no route"),
        ));
    }
    let said = match traffic {
        Traffic::To(release) => format!("v{release}"),
        Traffic::Held => "held".to_owned(),
        Traffic::Suspended => "suspended".to_owned(),
        Traffic::Nobody => "nobody".to_owned(),
    };
    state.traffic.insert(label.to_owned(), said);
    Ok(())
}

fn join(state: &mut State, label: &str, network: Option<&str>) -> Result<(), EdgeError> {
    if let Some(network) = network {
        let joined = state.networks.get_mut(network).ok_or_else(|| {
            fatal(
                "network-not-found",
                format!("failed to join the edge to the network `{network}`"),
            )
        })?;
        joined.attached.insert("edge".to_owned());
    }
    let name = network.unwrap_or_default();
    state.routes.insert(label.to_owned(), name.to_owned());
    Ok(())
}

#[async_trait]
impl Edge for FakeEdge {
    async fn ping(&self) -> Result<String, EdgeError> {
        self.world.call("edge.ping", |_| Ok("fake edge".to_owned())).await
    }

    fn hostname(&self, label: &str) -> String {
        self.settings.hostname(label)
    }

    fn url(&self, label: &str) -> String {
        self.settings.url(label)
    }

    fn secure_url(&self, label: &str) -> String {
        self.settings.secure_url(label)
    }

    async fn ask_first(&self, label: &str, asks: bool) -> Result<(), EdgeError> {
        let act = |state: &mut State| {
            if asks {
                state.asked_first.insert(label.to_owned());
            } else {
                state.asked_first.remove(label);
            }
            Ok(())
        };
        self.world.call("edge.ask_first", act).await
    }

    async fn know(&self, label: &str) -> Result<(), EdgeError> {
        let act = |state: &mut State| {
            state.known.insert(label.to_owned());
            Ok(())
        };
        self.world.call("edge.know", act).await
    }

    async fn join(&self, label: &str, network: Option<&str>) -> Result<(), EdgeError> {
        self.world
            .call("edge.join", |state| join(state, label, network))
            .await
    }

    async fn attach(&self, label: &str, network: Option<&str>) -> Result<(), EdgeError> {
        let act = |state: &mut State| {
            state.known.insert(label.to_owned());
            join(state, label, network)
        };
        self.world.call("edge.attach", act).await
    }

    async fn switch(&self, label: &str, traffic: Traffic) -> Result<(), EdgeError> {
        self.world
            .call("edge.switch", |state| send(state, label, traffic))
            .await
    }

    async fn let_go(&self, label: &str, release: u32) -> Result<(), EdgeError> {
        let act = |state: &mut State| send(state, label, Traffic::To(release));
        self.world.call("edge.let_go", act).await
    }

    async fn waited(&self, _label: &str, _since: Time) -> Result<Waited, EdgeError> {
        self.world.call("edge.waited", |_| Ok(Waited::default())).await
    }

    async fn access(&self, query: AccessQuery) -> Result<AccessStream, EdgeError> {
        let act = |state: &mut State| Ok::<_, EdgeError>(state.access.clone());
        let all = self.world.call("edge.access", act).await?;
        let seen = (self.world.clone(), all.len());
        let new = stream::unfold(seen, |(world, seen)| async move {
            tokio::time::sleep(LOOK_EVERY).await;
            let new = world.peek(|state| state.access.get(seen..).map(<[_]>::to_vec));
            let new = new.ok()?.unwrap_or_default();
            let seen = seen + new.len();
            Some((stream::iter(new), (world, seen)))
        });
        let wanted = move |document: serde_json::Value| {
            let access = serde_json::from_value::<Access>(document).ok();
            let wanted = access.filter(|access| query.since.is_none_or(|since| access.at > since));
            std::future::ready(wanted.map(Ok))
        };
        let told = stream::iter(all);
        Ok(if query.follow {
            told.chain(new.flatten()).filter_map(wanted).boxed()
        } else {
            told.filter_map(wanted).boxed()
        })
    }

    async fn attached(&self, label: &str, network: Option<&str>) -> Result<bool, EdgeError> {
        let act = |state: &mut State| {
            let joined = network.is_none_or(|name| {
                let found = state.networks.get(name);
                found.is_some_and(|network| network.attached.contains("edge"))
            });
            Ok(joined && state.routes.contains_key(label))
        };
        self.world.call("edge.attached", act).await
    }

    async fn detach(&self, label: &str, network: Option<&str>) -> Result<(), EdgeError> {
        let act = |state: &mut State| {
            state.known.remove(label);
            state.routes.remove(label);
            state.traffic.remove(label);
            state.asked_first.remove(label);
            if let Some(network) = network.and_then(|name| state.networks.get_mut(name)) {
                network.attached.remove("edge");
            }
            Ok(())
        };
        self.world.call("edge.detach", act).await
    }

    async fn certificate(&self, label: &str) -> Result<String, EdgeError> {
        let act = |state: &mut State| {
            if state.known.contains(label) {
                return Ok("ready".to_owned());
            }
            Err(fatal(
                "route-not-found",
                format!("failed to ask for the certificate of `{label}`: it is not known"),
            ))
        };
        self.world.call("edge.certificate", act).await
    }
}
