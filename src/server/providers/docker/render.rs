//! What a tenant's things look like to the Docker Engine. Pure: no calls.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig};

use crate::server::containers::{
    ContainerSpec, JoinedNetwork, Labels, NetworkSpec, edge_network, restarts, rotated_logs, texts, volume_at,
};
use crate::server::providers::docker::pool::Subnets;
use crate::server::providers::{MachineSpec, TenantNetwork, TenantSpec};

/// Where a tenant finds its volume.
pub(super) const DATA_DIRECTORY: &str = "/app/data";

/// What an image may say about itself: it needs to write outside of its volume and `/tmp`.
pub const WRITABLE_ROOT: &str = "io.systemprompt.writable-root";

const PIDS_LIMIT: i64 = 256;
const NANO_CPUS: i64 = 1_000_000_000;
const TMP_OPTIONS: &str = "rw,nosuid,nodev,size=64m,mode=1777";

/// The names of a tenant's things, all derived from its label. A label has no dot, so none can be another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    prefix: String,
    edge_network: String,
}

impl Names {
    /// The names of one tenant in one installation.
    #[must_use]
    pub(super) fn new(instance: &str, label: &str) -> Self {
        Self {
            prefix: format!("sp-{instance}-{label}"),
            edge_network: edge_network(instance, label),
        }
    }

    /// The network to its database and the outside.
    #[must_use]
    pub(super) fn private_network(&self) -> String {
        self.prefix.clone()
    }

    /// The network between it and the edge.
    #[must_use]
    pub(super) fn edge_network(&self) -> String {
        self.edge_network.clone()
    }

    /// Either of them.
    #[must_use]
    pub(super) fn network(&self, network: TenantNetwork) -> String {
        match network {
            TenantNetwork::Private => self.private_network(),
            TenantNetwork::Edge => self.edge_network(),
        }
    }

    /// Its volume.
    #[must_use]
    pub(super) fn volume(&self) -> String {
        self.prefix.clone()
    }

    /// The container of a release.
    #[must_use]
    pub(super) fn machine(&self, release: u32) -> String {
        format!("{}-v{release}", self.prefix)
    }

    /// The container of a release's command.
    #[must_use]
    pub(super) fn command(&self, release: u32) -> String {
        format!("{}-v{release}-release", self.prefix)
    }

    /// The container that makes the volume ready; it never starts.
    #[must_use]
    pub(super) fn preparation(&self) -> String {
        format!("{}-prepare", self.prefix)
    }
}

/// The labels of one of a tenant's things.
#[must_use]
pub(super) fn labels(spec: &TenantSpec, role: &'static str, release: Option<u32>) -> Labels {
    Labels {
        role,
        tenant: Some(spec.tenant_id.clone()),
        label: Some(spec.label.clone()),
        operation: Some(spec.operation_id.clone()),
        release,
    }
}

/// One of the tenant's networks: the private one has a way out, the edge's has none.
#[must_use]
pub(super) fn network(
    spec: &TenantSpec,
    names: &Names,
    (network, subnets): (TenantNetwork, Subnets),
) -> NetworkSpec {
    let (subnet, internal, role) = match network {
        TenantNetwork::Private => (subnets.private, false, "private-network"),
        TenantNetwork::Edge => (subnets.edge, true, "edge-network"),
    };
    NetworkSpec {
        name: names.network(network),
        subnet: Some(subnet),
        internal,
        labels: labels(spec, role, None),
    }
}

/// The container of a release that serves. It joins the edge network, and gets its restart policy, with the
/// traffic: a release that never gets ready ends once and keeps its last words.
#[must_use]
pub(super) fn machine(spec: &MachineSpec, names: &Names, writable_root: bool) -> ContainerSpec {
    let mut body = common(spec, names, writable_root);
    body.cmd.clone_from(&spec.command);
    ContainerSpec {
        name: names.machine(spec.release),
        labels: labels(&spec.tenant, "machine", Some(spec.release)),
        body,
        networks: private_only(names),
        files: Vec::new(),
        grace: Duration::from_secs(10),
    }
}

/// The container that runs a release's command once.
#[must_use]
pub(super) fn command(spec: &MachineSpec, names: &Names, writable_root: bool) -> ContainerSpec {
    let mut body = common(spec, names, writable_root);
    body.cmd.clone_from(&spec.command);
    // The image's own entrypoint may serve or migrate by itself: the command is all that shall run. One empty
    // text is the engine's way to say "none".
    body.entrypoint = Some(vec![String::new()]);
    ContainerSpec {
        name: names.command(spec.release),
        labels: labels(&spec.tenant, "command", Some(spec.release)),
        body,
        networks: private_only(names),
        files: Vec::new(),
        grace: Duration::ZERO,
    }
}

/// A container that never starts: through it the volume is reached before the first release has it.
#[must_use]
pub(super) fn preparation(spec: &MachineSpec, names: &Names) -> ContainerSpec {
    let host_config = HostConfig {
        mounts: Some(vec![volume_at(&names.volume(), "/volume/data")]),
        ..HostConfig::default()
    };
    ContainerSpec {
        name: names.preparation(),
        labels: labels(&spec.tenant, "preparation", Some(spec.release)),
        body: ContainerCreateBody {
            image: Some(spec.image.clone()),
            // An image without a command of its own cannot be made a container of without one.
            cmd: Some(vec!["true".to_owned()]),
            host_config: Some(host_config),
            ..ContainerCreateBody::default()
        },
        networks: Vec::new(),
        files: Vec::new(),
        grace: Duration::ZERO,
    }
}

fn private_only(names: &Names) -> Vec<JoinedNetwork> {
    vec![JoinedNetwork {
        name: names.private_network(),
        aliases: Vec::new(),
    }]
}

fn common(spec: &MachineSpec, names: &Names, writable_root: bool) -> ContainerCreateBody {
    let memory = i64::from(spec.memory_mb) * 1024 * 1024;
    let environment = spec
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={}", value.expose()))
        .collect();
    let host_config = HostConfig {
        memory: Some(memory),
        memory_swap: Some(memory),
        nano_cpus: Some(NANO_CPUS),
        pids_limit: Some(PIDS_LIMIT),
        cap_drop: texts(&["ALL"]),
        security_opt: texts(&["no-new-privileges:true"]),
        readonly_rootfs: Some(!writable_root),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), TMP_OPTIONS.to_owned())])),
        mounts: Some(vec![volume_at(&names.volume(), DATA_DIRECTORY)]),
        log_config: Some(rotated_logs()),
        restart_policy: Some(restarts(false)),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        env: Some(environment),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Names, command, machine, network};
    use crate::api::id::{OperationId, TenantId};
    use crate::api::secret::SecretText;
    use crate::server::providers::docker::pool::AddressPool;
    use crate::server::providers::{MachineSpec, PullCredential, TenantNetwork, TenantSpec};

    fn spec() -> MachineSpec {
        MachineSpec {
            tenant: TenantSpec {
                tenant_id: TenantId::new(uuid::Uuid::from_u128(1)),
                label: "acme".to_owned(),
                network_slot: 3,
                region: "local".to_owned(),
                operation_id: OperationId::new(uuid::Uuid::from_u128(2)),
            },
            release: 7,
            image: "127.0.0.1:8787/systemprompt-images@sha256:00".to_owned(),
            pull: PullCredential {
                registry: "127.0.0.1:8787".to_owned(),
                username: "systemprompt".to_owned(),
                password: SecretText::new("pull-password"),
            },
            environment: BTreeMap::from([("OPENAI_API_KEY".to_owned(), SecretText::new("sk-1"))]),
            memory_mb: 512,
            port: 8080,
            command: None,
        }
    }

    #[test]
    fn machines_are_fenced_in() {
        let names = Names::new("ab12cd", "acme");
        let rendered = machine(&spec(), &names, false);
        assert_eq!(rendered.name, "sp-ab12cd-acme-v7");
        insta::with_settings!({ sort_maps => true }, {
            insta::assert_json_snapshot!(rendered.body, @r#"
        {
          "Env": [
            "OPENAI_API_KEY=sk-1"
          ],
          "Image": "127.0.0.1:8787/systemprompt-images@sha256:00",
          "HostConfig": {
            "Memory": 536870912,
            "MemorySwap": 536870912,
            "NanoCpus": 1000000000,
            "PidsLimit": 256,
            "LogConfig": {
              "Type": "json-file",
              "Config": {
                "max-file": "3",
                "max-size": "10m"
              }
            },
            "RestartPolicy": {
              "Name": "no"
            },
            "Mounts": [
              {
                "Target": "/app/data",
                "Source": "sp-ab12cd-acme",
                "Type": "volume"
              }
            ],
            "CapDrop": [
              "ALL"
            ],
            "ReadonlyRootfs": true,
            "SecurityOpt": [
              "no-new-privileges:true"
            ],
            "Tmpfs": {
              "/tmp": "rw,nosuid,nodev,size=64m,mode=1777"
            }
          }
        }
        "#);
        });
    }

    #[test]
    fn secrets_are_nowhere_but_in_the_environment() {
        let rendered = machine(&spec(), &Names::new("ab12cd", "acme"), true);
        let mut body = rendered.body.clone();
        assert!(body.env.take().is_some_and(|env| env == ["OPENAI_API_KEY=sk-1"]));
        let rest = format!("{body:?} {:?} {:?}", rendered.labels, rendered.networks);
        assert!(
            !rest.contains("sk-1") && !rest.contains("pull-password"),
            "{rest}"
        );
        assert_eq!(
            body.host_config.and_then(|host| host.readonly_rootfs),
            Some(false)
        );
    }

    #[test]
    fn commands_run_without_the_entrypoint() {
        let spec = MachineSpec {
            command: Some(vec!["migrate".to_owned()]),
            ..spec()
        };
        let rendered = command(&spec, &Names::new("ab12cd", "acme"), false);
        assert_eq!(rendered.name, "sp-ab12cd-acme-v7-release");
        assert_eq!(rendered.body.entrypoint, Some(vec![String::new()]));
        assert_eq!(rendered.body.cmd, Some(vec!["migrate".to_owned()]));
    }

    #[test]
    fn only_the_private_network_has_a_way_out() {
        let spec = spec().tenant;
        let subnets = AddressPool::default().subnets(spec.network_slot).expect("slot");
        let names = Names::new("ab12cd", "acme");
        let [private, edge] = [TenantNetwork::Private, TenantNetwork::Edge]
            .map(|one| network(&spec, &names, (one, subnets.clone())));
        assert_eq!(
            (private.internal, private.subnet.as_deref()),
            (false, Some("10.213.0.96/28"))
        );
        assert_eq!(
            (edge.internal, edge.subnet.as_deref()),
            (true, Some("10.213.0.112/28"))
        );
    }

    #[test]
    fn no_tenant_can_have_a_name_of_another_one_s_things() {
        let taken = Names::new("ab12cd", "acme").edge_network();
        assert_ne!(Names::new("ab12cd", "acme-edge").private_network(), taken);
    }
}
