//! Two servers over a PostgreSQL of their own, a client for each, and one that may meet either.

use systemprompt::server::store::Store;

use crate::api::rig::{Api, PATIENCE};
use crate::gate::harness::Client;
use crate::replicas::wire::Wire;
use crate::store::postgres::{Cluster, or_skip};

/// Two servers and their database.
pub(crate) struct Pair {
    pub(crate) api: Api,
    pub(crate) url: String,
}

impl Pair {
    /// Starts both; `None` where there is no PostgreSQL, which is said.
    pub(crate) fn start() -> Option<Self> {
        or_skip(Cluster::find_or_start()).map(Self::over)
    }

    /// The same over a PostgreSQL that may be stopped, and perhaps a wire that may be cut.
    pub(crate) fn own(given: Option<(Cluster, &Wire)>) -> Option<Self> {
        let (cluster, wire) = match given {
            Some((cluster, wire)) => (cluster, Some(wire)),
            None => match Cluster::start() {
                Ok(cluster) => (cluster, None),
                Err(reason) => {
                    eprintln!("skipped: {reason}");
                    return None;
                }
            },
        };
        let direct = cluster.new_database_now();
        let url = match (wire, cluster.folder()) {
            (Some(wire), Some(folder)) => wire.url(&direct, folder),
            _ => direct.clone(),
        };
        let api = Api::over(crate::cli::rig::Server::replicas(&url, Some(cluster)));
        Some(Self { api, url: direct })
    }

    fn over(cluster: Cluster) -> Self {
        let url = cluster.new_database_now();
        let api = Api::over(crate::cli::rig::Server::replicas(&url, Some(cluster)));
        Self { api, url }
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        self.api.server.cluster().expect("a cluster")
    }

    /// The owner, talking to one of the servers only.
    pub(crate) fn at(&self, index: usize) -> Client {
        let mut client = self.api.owner.clone();
        client.url = format!("http://127.0.0.1:{}", self.api.server.ports[index]);
        client
    }

    /// The tables themselves.
    pub(crate) async fn store(&self) -> Store {
        Store::open_postgres(&self.url).await.expect("opened")
    }
}

/// Reads a stream of events until one of this number has come; answers all numbers in the order in which they came.
pub(crate) async fn numbers_until(client: &Client, tenant: &str, since: u64, last: u64) -> Vec<u64> {
    let request = client.call(reqwest::Method::GET, &format!("{tenant}/events?since={since}"));
    let request = request.header("accept", "text/event-stream");
    let mut stream = request.send().await.expect("an answer");
    assert_eq!(stream.status(), 200);
    let mut text = String::new();
    let reading = async {
        while let Some(chunk) = stream.chunk().await.expect("a stream") {
            text.push_str(&String::from_utf8_lossy(&chunk));
            if text.contains(&format!("id: {last}\n")) && text.ends_with("\n\n") {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("it comes");
    text.lines()
        .filter_map(|line| line.strip_prefix("id: ")?.parse().ok())
        .collect()
}
