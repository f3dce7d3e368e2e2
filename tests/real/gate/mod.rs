//! The gate and what really happens to it: `docker`, `skopeo`, a kill, a full disk.

mod clients;
mod faults;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use systemprompt::api::id::TenantId;
use systemprompt::server::clock::Clock;
use systemprompt::server::registry::{Gate, GateSettings};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(crate) struct Served {
    pub(crate) gate: Gate,
    pub(crate) host: String,
    _server: JoinSet<()>,
}

pub(crate) async fn open(directory: &Path, address: SocketAddr) -> Gate {
    let settings = GateSettings {
        registry_host: address.to_string(),
        realm: format!("http://{address}/v2/token"),
        directory: directory.to_owned(),
        signing_key: [7; 32],
    };
    Gate::open(settings, Clock::system())
        .await
        .expect("the gate opens")
}

pub(crate) async fn serve(directory: &Path) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let gate = open(directory, address).await;
    let router = gate.router();
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    Served {
        gate,
        host: address.to_string(),
        _server: server,
    }
}

pub(crate) fn tenant(clock: &Clock) -> TenantId {
    TenantId::new(clock.uuid())
}

/// Runs a command to its end; answers whether it succeeded and all that it printed.
pub(crate) async fn run(mut command: Command, input: &str) -> (bool, String) {
    let input = input.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        child
            .stdin
            .take()
            .expect("its input")
            .write_all(input.as_bytes())
            .expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    })
    .await
    .expect("it ran")
}
