//! The PostgreSQL container of this installation: made, found again, joined to tenants' networks.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::api::secret::SecretText;
use crate::server::clock::Clock;
use crate::server::containers::{
    ContainerFile, ContainerSpec, Engine, EngineError, Ensured, ImageChoice, JoinedNetwork, Labels,
    NetworkSpec, key, restarts, rotated_logs, texts, volume_at,
};
use crate::server::databases::DatabaseError;

/// The name under which tenants find it.
pub(super) const ALIAS: &str = "postgres.internal";
/// The image that `scripts/setup` builds where none can be pulled.
const STAND_IN: &str = "systemprompt-standin/postgres:15";
const ROLE: &str = "postgres";
const PORT: &str = "5432/tcp";
const SUPERUSER: &str = "postgres";
const DATA: &str = "/var/lib/postgresql/data";
const PASSWORD_DIRECTORY: &str = "/etc";
const PASSWORD_PATH: &str = "systemprompt/postgres-password";

/// The container, as it shall be.
#[derive(Clone, Debug)]
pub(super) struct Managed {
    pub(super) engine: Engine,
    pub(super) image: String,
    pub(super) directory: PathBuf,
}

impl Managed {
    /// Its name, and that of its volume.
    pub(super) fn name(&self) -> String {
        self.engine.name(ROLE)
    }

    /// The network through which we reach it. Of all networks of a container, the engine publishes ports through
    /// the one whose name comes first; a tenant's label begins with a letter. Were a tenant's network the first,
    /// the port would change and our connections break whenever that tenant comes or goes.
    fn network(&self) -> String {
        self.engine.name("0-postgres")
    }

    /// The container runs afterwards, in every tenant's network. Answers how to reach it from here.
    pub(super) async fn ensure(&self, clock: &Clock) -> Result<PgConnectOptions, DatabaseError> {
        let password = superuser_password(&self.directory, clock)?;
        let name = self.name();
        let image = self.image().await?;
        let labels = Labels::of_installation(ROLE);
        self.engine
            .ensure_volume(&name, &labels, &[(key::IMAGE, &image)])
            .await?;
        self.engine
            .ensure_network(&NetworkSpec {
                name: self.network(),
                subnet: None,
                internal: false,
                labels: labels.clone(),
            })
            .await?;
        let spec = render(&name, &self.network(), &image, &password);
        if self.engine.ensure_container(&spec).await? == Ensured::Made {
            for network in self
                .engine
                .list_networks(&[(key::ROLE, "private-network")])
                .await?
            {
                self.engine.connect(&network, &name, &[ALIAS.to_owned()]).await?;
            }
        }
        let port = self.published_port().await?;
        Ok(PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username(SUPERUSER)
            .password(password.expose())
            .database("postgres")
            .ssl_mode(PgSslMode::Prefer)
            // Statements carry verifiers; a failed one would stand in the server's log.
            .options([("log_min_error_statement", "panic"), ("log_statement", "none")]))
    }

    /// The image whose version has written the data stays, though a newer one could be had by now: PostgreSQL
    /// does not read data of another major version.
    async fn image(&self) -> Result<String, EngineError> {
        let volumes = self.engine.volume_labels(&self.name()).await?;
        let first = volumes.and_then(|labels| labels.get(key::IMAGE).cloned());
        if first.as_deref() == Some(STAND_IN) && self.engine.find_image(STAND_IN).await?.is_some() {
            return Ok(STAND_IN.to_owned());
        }
        let choice = ImageChoice {
            wanted: &self.image,
            stand_in: STAND_IN,
        };
        self.engine.ensure_image(choice).await
    }

    /// The engine chooses a free port at every start.
    async fn published_port(&self) -> Result<u16, EngineError> {
        let name = self.name();
        let found = self.engine.find_container(&name).await?;
        let ports = found.and_then(|container| container.network_settings?.ports);
        let bindings = ports.and_then(|mut ports| ports.remove(PORT)?);
        let port = bindings
            .unwrap_or_default()
            .into_iter()
            .find_map(|binding| binding.host_port?.parse().ok());
        port.ok_or_else(|| {
            EngineError::busy(format!(
                "find the port of the container `{name}`: it does not run"
            ))
        })
    }
}

/// The superuser's password: made at first start, readable by us alone.
fn superuser_password(directory: &Path, clock: &Clock) -> Result<SecretText, DatabaseError> {
    let file = directory.join("postgres.password");
    let failed = |what: &str, source: std::io::Error| DatabaseError::Fatal {
        code: "password-file",
        what: format!("failed to {what} `{}`", file.display()),
        hint: None,
        source: Some(Box::new(source)),
    };
    let read = || std::fs::read_to_string(&file);
    match read() {
        Ok(text) => return Ok(SecretText::new(text.trim())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read", error)),
    }
    let password = clock.random_text::<32>();
    // Files of this kind are 0600 from their first byte. Whoever came first wins.
    let mut temporary = tempfile::NamedTempFile::new_in(directory).map_err(|e| failed("make", e))?;
    temporary
        .write_all(password.as_bytes())
        .map_err(|e| failed("write", e))?;
    temporary.as_file().sync_all().map_err(|e| failed("write", e))?;
    match temporary.persist_noclobber(&file) {
        Ok(_) => Ok(SecretText::new(password)),
        Err(_) => read()
            .map(|text| SecretText::new(text.trim()))
            .map_err(|e| failed("read", e)),
    }
}

/// The container: as few powers as its entrypoint can do with. The password comes in a file, so that neither the
/// engine's description of the container nor a process list shows it.
fn render(name: &str, network: &str, image: &str, password: &SecretText) -> ContainerSpec {
    let capabilities = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"];
    let loopback = PortBinding {
        host_ip: Some("127.0.0.1".to_owned()),
        host_port: None,
    };
    let host_config = HostConfig {
        cap_drop: texts(&["ALL"]),
        cap_add: texts(&capabilities),
        security_opt: texts(&["no-new-privileges:true"]),
        pids_limit: Some(1024),
        shm_size: Some(256 * 1024 * 1024),
        port_bindings: Some(HashMap::from([(PORT.to_owned(), Some(vec![loopback]))])),
        mounts: Some(vec![volume_at(name, DATA)]),
        log_config: Some(rotated_logs()),
        restart_policy: Some(restarts(true)),
        ..HostConfig::default()
    };
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        env: texts(&[
            "POSTGRES_PASSWORD_FILE=/etc/systemprompt/postgres-password",
            "POSTGRES_INITDB_ARGS=--auth-host=scram-sha-256 --auth-local=trust",
            "PGDATA=/var/lib/postgresql/data/pgdata",
        ]),
        cmd: texts(&[
            "postgres",
            "-c",
            "max_connections=400",
            "-c",
            "password_encryption=scram-sha-256",
        ]),
        exposed_ports: texts(&[PORT]),
        stop_signal: Some("SIGINT".to_owned()),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    };
    ContainerSpec {
        name: name.to_owned(),
        labels: Labels::of_installation(ROLE),
        body,
        networks: vec![JoinedNetwork {
            name: network.to_owned(),
            aliases: Vec::new(),
        }],
        files: vec![ContainerFile {
            directory: PASSWORD_DIRECTORY.to_owned(),
            path: PASSWORD_PATH.to_owned(),
            // Read after the entrypoint has given up root, by a user whose number differs between images.
            mode: 0o444,
            owner: (0, 0),
            contents: password.expose().as_bytes().to_vec(),
        }],
        grace: Duration::from_secs(60),
    }
}

#[cfg(test)]
mod tests {
    use super::{render, superuser_password};
    use crate::api::secret::SecretText;
    use crate::server::clock::Clock;

    #[test]
    fn the_password_is_in_the_file_and_nowhere_else() {
        let spec = render(
            "sp-x-postgres",
            "sp-x-0-postgres",
            "postgres:16",
            &SecretText::new("hidden-word"),
        );
        assert!(!format!("{:?} {:?}", spec.body, spec.labels).contains("hidden-word"));
        assert!(spec.files.iter().any(|file| file.contents == b"hidden-word"));
    }

    #[test]
    fn the_password_is_made_once_and_for_us_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("directory");
        let first = superuser_password(directory.path(), &Clock::system()).expect("made");
        let again = superuser_password(directory.path(), &Clock::system()).expect("read");
        assert_eq!(first.expose(), again.expose());
        assert_eq!(first.expose().len(), 43);
        let metadata = std::fs::metadata(directory.path().join("postgres.password")).expect("file");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
}
