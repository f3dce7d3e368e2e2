//! The edge's container and the files that say who is there. Pure: no calls.
//!
//! The files are empty: a tenant is a directory of its label's name, and a file in it names the release
//! that serves, or says that the tenant is suspended or its requests are held. Files can be brought into a container but not taken out, so what is over is replaced by the other
//! kind: a former tenant is a file, a release that does not serve any more is a directory.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};

use crate::server::containers::{
    ContainerFile, ContainerSpec, JoinedNetwork, Labels, ROUTES, restarts, rotated_logs, route, texts,
    volume_at,
};
use crate::server::edge::caddy::config::config;
use crate::server::edge::{EdgeSettings, Traffic};

/// Where Caddy keeps the certificate of its own authority.
pub(super) const ROOT_CERTIFICATE: &str = "/data/caddy/pki/authorities/local/root.crt";
/// The role label.
pub(super) const ROLE: &str = "edge";

pub(super) const HTTP: u16 = 8080;
pub(super) const HTTPS: u16 = 8443;
/// The volume: everything that the edge writes, and the only place where files can be brought to it.
pub(super) const DATA: &str = "/data";
const CONFIG: &str = "systemprompt/caddy.json";
pub(super) const TENANTS: &str = "systemprompt/tenants";
/// Its name in a tenant's directory, where requests shall wait.
pub(super) const HELD_FILE: &str = "held";
/// Its name in a tenant's directory, where it is suspended.
pub(super) const SUSPENDED_FILE: &str = "suspended";

/// The tenant is known from now on; which release serves stays as it is.
pub(super) fn known(label: &str) -> Vec<ContainerFile> {
    vec![entry(&format!("{TENANTS}/{label}/"))]
}

/// The tenant is not known any more.
pub(super) fn unknown(label: &str) -> Vec<ContainerFile> {
    vec![entry(&format!("{TENANTS}/{label}"))]
}

/// This release serves from now on, beside those that do already.
pub(super) fn also_serving(label: &str, release: u32) -> Vec<ContainerFile> {
    let mut entries = known(label);
    entries.push(entry(&serving(label, release)));
    entries
}

/// The path in [`DATA`] of the file that says that a release serves.
pub(super) fn serving(label: &str, release: u32) -> String {
    format!("{TENANTS}/{label}/{}", route(release))
}

/// The tenant's requests wait from now on, whatever else is said.
pub(super) fn held(label: &str) -> Vec<ContainerFile> {
    let mut entries = known(label);
    entries.push(entry(&format!("{TENANTS}/{label}/{HELD_FILE}")));
    entries
}

/// Of the releases that serve, only this one does from now on. Its own file stays untouched: a file is removed
/// before it is written, and a look at the directory in between would find nobody.
pub(super) fn others_ended(label: &str, release: u32) -> Vec<ContainerFile> {
    let serving = serving(label, release);
    let mut entries = only(label, Traffic::To(release));
    entries.retain(|entry| entry.path != serving);
    entries
}

/// This and nothing else is said from now on. Requests that wait are let go last.
pub(super) fn only(label: &str, traffic: Traffic) -> Vec<ContainerFile> {
    let said = match traffic {
        Traffic::To(release) => route(release),
        Traffic::Held => HELD_FILE.to_owned(),
        Traffic::Suspended => SUSPENDED_FILE.to_owned(),
        Traffic::Nobody => String::new(),
    };
    let all = (0..ROUTES).map(route);
    let mut all: Vec<String> = all
        .chain([SUSPENDED_FILE, HELD_FILE].map(str::to_owned))
        .collect();
    all.sort_by_key(|name| *name != said);
    let mut entries = known(label);
    entries.extend(all.iter().map(|name| {
        let end = if *name == said { "" } else { "/" };
        entry(&format!("{TENANTS}/{label}/{name}{end}"))
    }));
    entries
}

/// An empty file, or a directory where the path ends with `/`.
fn entry(path: &str) -> ContainerFile {
    ContainerFile {
        directory: DATA.to_owned(),
        path: path.to_owned(),
        mode: if path.ends_with('/') { 0o755 } else { 0o644 },
        owner: (0, 0),
        contents: Vec::new(),
    }
}

/// The edge's container: it writes nothing but its volume, and has no powers.
pub(super) fn container(name: &str, image: &str, settings: &EdgeSettings) -> ContainerSpec {
    let ports = [(HTTP, settings.http_port), (HTTPS, settings.https_port)];
    let bindings = ports.iter().map(|(inside, outside)| {
        let binding = PortBinding {
            host_ip: Some("127.0.0.1".to_owned()),
            host_port: Some(outside.to_string()),
        };
        (format!("{inside}/tcp"), Some(vec![binding]))
    });
    let host_config = HostConfig {
        cap_drop: texts(&["ALL"]),
        security_opt: texts(&["no-new-privileges:true"]),
        readonly_rootfs: Some(true),
        pids_limit: Some(1024),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), String::new())])),
        port_bindings: Some(bindings.collect()),
        // Names that the engine does not know are nobody's: no question leaves this machine.
        dns: texts(&["127.0.0.1"]),
        // A question that is lost, when hundreds are asked at once, is soon asked again.
        dns_options: texts(&["timeout:1", "attempts:5"]),
        mounts: Some(vec![volume_at(name, DATA)]),
        log_config: Some(rotated_logs()),
        restart_policy: Some(restarts(true)),
        ..HostConfig::default()
    };
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec![String::new()]),
        cmd: texts(&["caddy", "run", "--config", "/data/systemprompt/caddy.json"]),
        env: texts(&["HOME=/data", "XDG_DATA_HOME=/data", "XDG_CONFIG_HOME=/tmp"]),
        exposed_ports: Some(ports.iter().map(|(inside, _)| format!("{inside}/tcp")).collect()),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    };
    ContainerSpec {
        name: name.to_owned(),
        labels: Labels::of_installation(ROLE),
        body,
        networks: vec![JoinedNetwork {
            name: name.to_owned(),
            aliases: Vec::new(),
        }],
        files: vec![
            entry(&format!("{TENANTS}/")),
            ContainerFile {
                contents: config(settings).to_string().into_bytes(),
                ..entry(CONFIG)
            },
        ],
        grace: Duration::from_secs(15),
    }
}

#[cfg(test)]
mod tests {
    use super::{also_serving, container, held, known, only, others_ended, unknown};
    use crate::server::containers::ContainerFile;
    use crate::server::edge::{EdgeSettings, Traffic};

    #[test]
    fn only_loopback_ports_are_published() {
        let spec = container("sp-x-edge", "caddy:2", &EdgeSettings::default());
        let bindings = spec
            .body
            .host_config
            .and_then(|host| host.port_bindings)
            .expect("ports");
        let published: Vec<_> = bindings
            .into_values()
            .flatten()
            .flatten()
            .map(|binding| binding.host_ip)
            .collect();
        assert_eq!(
            published,
            [Some("127.0.0.1".to_owned()), Some("127.0.0.1".to_owned())]
        );
    }

    #[test]
    fn what_is_over_is_replaced_by_the_other_kind() {
        let paths = |files: Vec<ContainerFile>| files.into_iter().map(|file| file.path).collect::<Vec<_>>();
        assert_eq!(paths(known("acme")), ["systemprompt/tenants/acme/"]);
        assert_eq!(paths(unknown("acme")), ["systemprompt/tenants/acme"]);
        assert_eq!(
            paths(also_serving("acme", 9)),
            ["systemprompt/tenants/acme/", "systemprompt/tenants/acme/r1"]
        );
        let ended = paths(others_ended("acme", 9));
        assert_eq!(ended.len(), 10, "the directory, seven routes and two words");
        assert!(!ended.iter().any(|path| path.contains("/r1")), "{ended:?}");
        assert!(ended[1..].iter().all(|path| path.ends_with('/')), "{ended:?}");
        assert_eq!(
            paths(held("acme")),
            ["systemprompt/tenants/acme/", "systemprompt/tenants/acme/held"]
        );
    }

    #[test]
    fn exactly_one_thing_is_said_and_requests_are_let_go_last() {
        let said = |traffic| {
            let files: Vec<String> = only("acme", traffic).into_iter().map(|file| file.path).collect();
            assert_eq!(files.len(), 11, "the directory, eight routes and two words");
            let file = files.iter().find(|path| !path.ends_with('/')).cloned();
            (file, files.last().cloned().expect("one"))
        };
        let file = |name: &str| Some(format!("systemprompt/tenants/acme/{name}"));
        let held = || "systemprompt/tenants/acme/held/".to_owned();
        assert_eq!(said(Traffic::To(9)), (file("r1"), held()));
        assert_eq!(said(Traffic::Suspended), (file("suspended"), held()));
        assert_eq!(said(Traffic::Nobody), (None, held()));
        assert_eq!(said(Traffic::Held).0, file("held"));
    }
}
