//! The edge's container and the files that say who is there. Pure: no calls.
//!
//! The files are empty: a tenant is a directory of its label's name. In it a file says that the tenant is suspended
//! or that its requests are held, and the name of one in `to/` is the address of the release that serves. Through the
//! engine, files can be brought into a container but not taken out, so what is over is replaced by the other kind: a
//! former tenant is a file, the address of a release that does not serve any more is a directory.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};

use crate::server::containers::{
    ContainerFile, ContainerSpec, JoinedNetwork, Labels, ROUTES, restarts, rotated_logs, route, texts,
    volume_at,
};
use crate::server::edge::caddy::config::{Plan, config};
use crate::server::edge::caddy::sessions::DOOR_AT;
use crate::server::edge::caddy::signs::IN_VOLUME;

/// Where Caddy keeps the certificate of its own authority.
pub(super) const ROOT_CERTIFICATE: &str = "/data/caddy/pki/authorities/local/root.crt";
/// The role label.
pub(super) const ROLE: &str = "edge";

pub(super) const HTTP: u16 = 8080;
pub(super) const HTTPS: u16 = 8443;
/// The volume: everything that the edge writes, and the only place where files can be brought to it.
pub(super) const DATA: &str = "/data";
const CONFIG: &str = "systemprompt/caddy.json";
/// Its name in a tenant's directory, where requests shall wait.
pub(super) const HELD_FILE: &str = "held";
/// Its name in a tenant's directory, where it is suspended.
pub(super) const SUSPENDED_FILE: &str = "suspended";
/// Its name in a tenant's directory, where visitors are asked who they are.
pub(super) const ASKED_FILE: &str = "asked";

/// Its name in a tenant's directory, where a file stands for each address that serves.
pub(super) const SERVING: &str = "to";

/// The tenant is known from now on; which release serves stays as it is.
pub(super) fn known(label: &str) -> Vec<String> {
    vec![format!("{label}/")]
}

/// The tenant is not known any more.
pub(super) fn unknown(label: &str) -> Vec<String> {
    vec![label.to_owned()]
}

/// The release at this address serves from now on, beside those that do already.
pub(super) fn also_serving(label: &str, address: Ipv4Addr) -> Vec<String> {
    let mut entries = known(label);
    entries.push(format!("{label}/{SERVING}/"));
    entries.push(serving(label, address));
    entries
}

/// The file that says that the release at an address serves.
pub(super) fn serving(label: &str, address: Ipv4Addr) -> String {
    format!("{label}/{SERVING}/{address}")
}

/// The tenant's requests wait from now on, whatever else is said.
pub(super) fn held(label: &str) -> Vec<String> {
    let mut entries = known(label);
    entries.push(format!("{label}/{HELD_FILE}"));
    entries
}

/// The file that says that visitors are asked who they are.
pub(super) fn asking(label: &str) -> String {
    format!("{label}/{ASKED_FILE}")
}

/// Visitors are asked who they are from now on, or not any more.
pub(super) fn asked(label: &str, asks: bool) -> Vec<String> {
    let end = if asks { "" } else { "/" };
    let mut entries = known(label);
    entries.push(format!("{}{end}", asking(label)));
    entries
}

/// Of the releases that serve, only the one at this address does from now on. Its own file stays untouched: through the
/// engine a file is removed before it is written, and a look at the directory in between would find nobody. Requests
/// that wait are let go last.
pub(super) fn others_ended(label: &str, address: Ipv4Addr) -> Vec<String> {
    let mut entries = known(label);
    let others = (0..ROUTES).map(|release| route(address, release));
    let others = others.filter(|other| *other != address);
    entries.extend(others.map(|other| format!("{}/", serving(label, other))));
    entries.extend([SUSPENDED_FILE, HELD_FILE].map(|word| format!("{label}/{word}/")));
    entries
}

/// The same where nobody serves, and what serves may be written.
pub(super) fn serves_alone(label: &str, address: Ipv4Addr) -> Vec<String> {
    let mut entries = also_serving(label, address);
    entries.extend(others_ended(label, address).into_iter().skip(1));
    entries
}

/// No release serves from now on, and this is why. Requests that wait are let go last.
pub(super) fn nobody(label: &str, suspended: bool) -> Vec<String> {
    let end = if suspended { "" } else { "/" };
    let said = [
        format!("{SUSPENDED_FILE}{end}"),
        // A file in place of the directory ends all that were in it.
        SERVING.to_owned(),
        format!("{SERVING}/"),
        format!("{HELD_FILE}/"),
    ];
    let mut entries = known(label);
    entries.extend(said.map(|name| format!("{label}/{name}")));
    entries
}

/// An empty file of the volume, or a directory where the path ends with `/`.
pub(super) fn entry(path: &str) -> ContainerFile {
    ContainerFile {
        directory: DATA.to_owned(),
        path: path.to_owned(),
        mode: if path.ends_with('/') { 0o755 } else { 0o644 },
        owner: (0, 0),
        contents: Vec::new(),
    }
}

/// The edge's container: it writes nothing but its volume, and has no powers.
pub(super) fn container(name: &str, image: &str, plan: Plan<'_>) -> ContainerSpec {
    let settings = plan.settings;
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
        binds: settings
            .door
            .as_ref()
            .map(|door| vec![format!("{}:{DOOR_AT}:ro", door.display())]),
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
            entry(&format!("{IN_VOLUME}/")),
            ContainerFile {
                contents: config(plan).to_string().into_bytes(),
                ..entry(CONFIG)
            },
        ],
        grace: Duration::from_secs(15),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{also_serving, asked, container, held, known, nobody, others_ended, serves_alone, unknown};
    use crate::server::edge::EdgeSettings;
    use crate::server::edge::caddy::config::Plan;

    const NINTH: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 20);

    #[test]
    fn only_loopback_ports_are_published() {
        let plan = Plan {
            settings: &EdgeSettings::default(),
            tenants: "/tenants",
        };
        let spec = container("sp-x-edge", "caddy:2", plan);
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

    fn paths(signs: Vec<String>) -> Vec<String> {
        signs.into_iter().map(|sign| sign.replace("acme", "")).collect()
    }

    #[test]
    fn what_is_over_is_replaced_by_the_other_kind() {
        assert_eq!(paths(known("acme")), ["/"]);
        assert_eq!(paths(unknown("acme")), [""]);
        assert_eq!(
            paths(also_serving("acme", NINTH)),
            ["/", "/to/", "/to/10.213.0.20"]
        );
        assert_eq!(paths(held("acme")), ["/", "/held"]);
        assert_eq!(paths(asked("acme", true)), ["/", "/asked"]);
        assert_eq!(paths(asked("acme", false)), ["/", "/asked/"]);
        let ended = paths(others_ended("acme", NINTH));
        assert_eq!(ended.len(), 10, "the directory, seven addresses and two words");
        assert!(
            !ended.iter().any(|path| path.contains("10.213.0.20")),
            "{ended:?}"
        );
        assert!(ended.iter().all(|path| path.ends_with('/')), "{ended:?}");
    }

    #[test]
    fn exactly_one_thing_is_said_and_requests_are_let_go_last() {
        let alone = paths(serves_alone("acme", NINTH));
        let said: Vec<&String> = alone.iter().filter(|path| !path.ends_with('/')).collect();
        assert_eq!((said, alone.len()), (vec![&alone[2]], 12));
        let suspended = paths(nobody("acme", true));
        assert_eq!(suspended, ["/", "/suspended", "/to", "/to/", "/held/"]);
        let nobody = paths(nobody("acme", false));
        assert_eq!(nobody, ["/", "/suspended/", "/to", "/to/", "/held/"]);
        assert_eq!(alone.last(), nobody.last());
    }
}
