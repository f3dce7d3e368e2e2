//! The edge's configuration and container. Pure: no calls.
//!
//! The configuration never changes while the edge runs, since every change would reset connections of all tenants.
//! A tenant is known by an empty file of its label's name; its upstream is looked up by name at every request,
//! so that a release takes over by taking the name.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};
use serde_json::{Value, json};

use crate::server::containers::{ContainerFile, ContainerSpec, JoinedNetwork, Labels};
use crate::server::edge::EdgeSettings;

/// A path that the edge answers itself, under every name.
pub(super) const OWN_PATH: &str = "/.well-known/systemprompt/edge";
/// Where Caddy keeps the certificate of its own authority.
pub(super) const ROOT_CERTIFICATE: &str = "/data/caddy/pki/authorities/local/root.crt";
/// The role label.
pub(super) const ROLE: &str = "edge";

const HTTP: u16 = 8080;
const HTTPS: u16 = 8443;
const TENANT_PORT: u16 = 8080;
/// The volume: everything that the edge writes, and the only place where files can be brought to it.
const DATA: &str = "/data";
const CONFIG: &str = "systemprompt/caddy.json";
const TENANTS: &str = "systemprompt/tenants";

const UNKNOWN: &str = "<!doctype html><title>Not found</title><h1>There is nothing here</h1>\
    <p>No tenant answers under this name.</p>\n";
const SILENT: &str = "<!doctype html><title>Not available</title><h1>This tenant does not answer</h1>\
    <p>It has no running release, or its release does not accept connections. Try again in a moment.</p>\n";

/// What says that a tenant is known: a file. That it is not any more: a directory of the same name, since files
/// can be brought into a container, but not taken out.
pub(super) fn tenant_file(label: &str, known: bool) -> ContainerFile {
    let end = if known { "" } else { "/" };
    ContainerFile {
        directory: DATA.to_owned(),
        path: format!("{TENANTS}/{label}{end}"),
        mode: if known { 0o644 } else { 0o755 },
        owner: (0, 0),
        contents: Vec::new(),
    }
}

/// Caddy's configuration.
pub(super) fn config(settings: &EdgeSettings) -> Value {
    let server = |port: u16| {
        json!({
            "listen": [format!(":{port}")],
            "automatic_https": { "disable": true },
            "protocols": ["h1", "h2"],
            "read_header_timeout": "10s",
            "idle_timeout": "2m",
            "routes": routes(settings),
            "errors": { "routes": [{ "handle": [page("{http.error.status_code}", SILENT)] }] },
        })
    };
    let mut https = server(HTTPS);
    https["tls_connection_policies"] = json!([{}]);
    json!({
        // Nobody can change anything: a change is a new container.
        "admin": { "disabled": true, "config": { "persist": false } },
        "apps": {
            "http": { "grace_period": "10s", "servers": { "http": server(HTTP), "https": https } },
            "pki": { "certificate_authorities": { "local": { "install_trust": false } } },
            // A certificate per name when it is first asked for: clients refuse `*.localhost`.
            "tls": { "automation": { "policies": [{
                "subjects": [format!("*.{}", settings.domain)],
                "issuers": [{ "module": "internal" }],
                "on_demand": true,
            }] } },
        },
    })
}

fn routes(settings: &EdgeSettings) -> Value {
    // Labels are counted from the right: of `acme.localhost`, 0 is `localhost`.
    let label = format!(
        "{{http.request.host.labels.{}}}",
        settings.domain.split('.').count()
    );
    let host = format!("*.{}", settings.domain);
    // A name that is no label must not reach the file matcher, which knows `*`.
    let shape = format!("^[a-z0-9-]+\\.{}(:[0-9]+)?$", settings.domain.replace('.', "\\."));
    json!([
        {
            "match": [{ "path": [OWN_PATH] }],
            "handle": [{ "handler": "static_response", "status_code": "200", "body": "edge\n" }],
        },
        {
            "match": [{
                "host": [host],
                "header_regexp": { "Host": { "pattern": shape } },
                "file": { "root": format!("{DATA}/{TENANTS}"), "try_files": [format!("/{label}")] },
            }],
            "handle": [proxy(&label)],
        },
        { "handle": [page("404", UNKNOWN)] },
    ])
}

/// A connection per request, to whoever has the name now; while a name changes hands, the dial is repeated.
fn proxy(label: &str) -> Value {
    json!({
        "handler": "reverse_proxy",
        "upstreams": [{ "dial": format!("{label}.app:{TENANT_PORT}") }],
        "transport": {
            "protocol": "http",
            "dial_timeout": "300ms",
            "keep_alive": { "enabled": false },
        },
        "load_balancing": { "try_duration": "3s", "try_interval": "50ms" },
        // Only the edge itself may say who is signed in.
        "headers": { "request": { "delete": ["X-Session-*"] } },
    })
}

fn page(status: &str, body: &str) -> Value {
    json!({
        "handler": "static_response",
        "status_code": status,
        "headers": { "Content-Type": ["text/html; charset=utf-8"], "Cache-Control": ["no-store"] },
        "body": body,
    })
}

/// The edge's container: it writes nothing but its volume, and has no powers.
pub(super) fn container(name: &str, image: &str, settings: &EdgeSettings) -> ContainerSpec {
    let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    let ports = [(HTTP, settings.http_port), (HTTPS, settings.https_port)];
    let bindings = ports.iter().map(|(inside, outside)| {
        let binding = PortBinding {
            host_ip: Some("127.0.0.1".to_owned()),
            host_port: Some(outside.to_string()),
        };
        (format!("{inside}/tcp"), Some(vec![binding]))
    });
    let log_options =
        [("max-size", "10m"), ("max-file", "3")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let host_config = HostConfig {
        cap_drop: texts(&["ALL"]),
        security_opt: texts(&["no-new-privileges:true"]),
        readonly_rootfs: Some(true),
        pids_limit: Some(1024),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), String::new())])),
        port_bindings: Some(bindings.collect()),
        mounts: Some(vec![Mount {
            typ: Some(MountType::VOLUME),
            source: Some(name.to_owned()),
            target: Some(DATA.to_owned()),
            ..Mount::default()
        }]),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from(log_options)),
        }),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
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
    let directory = |path: &str| ContainerFile {
        directory: DATA.to_owned(),
        path: format!("{path}/"),
        mode: 0o755,
        owner: (0, 0),
        contents: Vec::new(),
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
            directory(TENANTS),
            ContainerFile {
                directory: DATA.to_owned(),
                path: CONFIG.to_owned(),
                mode: 0o644,
                owner: (0, 0),
                contents: config(settings).to_string().into_bytes(),
            },
        ],
        grace: Duration::from_secs(15),
    }
}
