//! The creation of a tenant on a Docker Engine, until its infrastructure is there.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::RemoveVolumeOptions;
use futures::StreamExt as _;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::Scale;
use crate::harness::ask::{ask, follow};
use crate::harness::contest::{Contest, Measured, Outcome, Role, Unit};
use crate::harness::run::quietly;
use crate::harness::seed::{Database, accounts, token};
use crate::harness::served::{Folder, Served, block_on, free_port};

const AGAINST_PATH: f64 = 1.3;
const AGAINST_RAW: f64 = 0.8;
const RAW: &str = "the raw calls";
/// As many as the server works on at once.
const AT_ONCE: usize = 8;

/// One, and twenty at once.
pub(crate) fn bench(scale: Scale) -> Outcome<Vec<Measured>> {
    if Docker::connect_with_local_defaults().is_err()
        || quietly(Command::new("docker").arg("version")).is_err()
    {
        println!("  skipped: there is no Docker Engine");
        return Ok(Vec::new());
    }
    let folder = Folder::new()?;
    let place = Place::prepare(&folder)?;
    let rounds = scale.rounds(15);
    let one = Contest::new("`tenant create` on Docker until `infrastructure_ready`", Unit::Seconds)
        .with(Role::Ours, "systemprompt", || place.create(1))
        .with(Role::Floor, RAW, || place.raw(1))
        .goal(RAW, AGAINST_PATH)
        .note("The raw calls of one tenant side by side: two networks, who joins them, a volume, roles and a database.")
        .run(rounds)?;
    let count = if scale.quick { 4 } else { 20 };
    #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
    let whole = count as f64;
    let many = Contest::new(format!("{count} tenants at once on Docker"), Unit::PerSecond)
        .with(Role::Ours, "systemprompt", || Ok(whole / place.create(count)?))
        .with(Role::Floor, RAW, || Ok(whole / place.raw(count)?))
        .goal(RAW, AGAINST_RAW)
        .note(format!("{AT_ONCE} tenants are worked on at once."))
        .run(scale.rounds(4))?;
    Ok(vec![one, many])
}

/// A server over the engine, and what is left there of its installation.
struct Place {
    served: Option<Served>,
    instance: String,
    database: PgPool,
    docker: Docker,
    next: Cell<usize>,
}

impl Place {
    fn prepare(folder: &Folder) -> Outcome<Self> {
        let data = folder.path();
        let database = Database::in_folder(data);
        database.prepare(data)?;
        database.run(&accounts(400, 400, "read deploy secrets admin"))?;
        let (http, https) = (free_port()?.to_string(), free_port()?.to_string());
        let ports = ["--edge-http-port", &http, "--edge-https-port", &https];
        let more = [&["--address-pool", "10.219.0.0/16"], ports.as_slice()].concat();
        let instance = std::fs::read_to_string(data.join("instance"))?.trim().to_owned();
        let served = Served::ours_with(data, &more)?;
        Ok(Self {
            served: Some(served),
            database: cluster(data, &instance)?,
            instance,
            docker: Docker::connect_with_local_defaults()?,
            next: Cell::new(1),
        })
    }

    fn url(&self) -> &str {
        self.served.as_ref().map_or("", |served| &served.url)
    }

    /// Creates so many at once; seconds until the last is there. Then they are deleted, which nobody measures.
    fn create(&self, count: usize) -> Outcome<f64> {
        let first = self.next.replace(self.next.get() + count);
        let server = self.url();
        let began = Instant::now();
        let accepted = together(first, count, |number| {
            let wanted =
                json!({ "price_id": "pri_free", "name": format!("bench-{number}"), "region": "local" });
            let url = format!("{server}/api/v1/checkout");
            let answer = ask("POST", &url, Some(&token(number)), Some(&wanted))?;
            let tenant = answer["tenant_id"].as_str().ok_or("no tenant")?;
            let events = format!("{server}/api/v1/tenants/{tenant}/events");
            // As the command waits: who asks again and again keeps the processors from the work.
            follow(&events, &token(number), "infrastructure_ready")?;
            Ok(answer["tenant_id"].clone())
        })?;
        let took = began.elapsed().as_secs_f64();
        together(first, count, |number| {
            let id = accepted[number - first].as_str().unwrap_or_default();
            let url = format!("{server}/api/v1/tenants/{id}");
            let answer = ask("DELETE", &url, Some(&token(number)), None)?;
            succeeded(server, number, &answer["id"])
        })?;
        Ok(took)
    }

    /// The same by hand.
    fn raw(&self, count: usize) -> Outcome<f64> {
        let first = self.next.replace(self.next.get() + count);
        block_on(async {
            let began = Instant::now();
            let made = futures::stream::iter(first..first + count).map(|number| self.raw_one(number));
            let made: Vec<Outcome<()>> = made.buffer_unordered(AT_ONCE).collect().await;
            let took = began.elapsed().as_secs_f64();
            let away = futures::stream::iter(first..first + count).map(|number| self.raw_away(number));
            away.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
            made.into_iter().collect::<Outcome<()>>()?;
            Ok(took)
        })
    }

    async fn raw_one(&self, number: usize) -> Outcome<()> {
        let name = format!("sp-{}-raw-{number}", self.instance);
        let volume = VolumeCreateRequest {
            name: Some(name.clone()),
            ..VolumeCreateRequest::default()
        };
        let edge_name = format!("{name}-edge");
        let (private, edge, volume, database) = futures::join!(
            self.raw_network((&name, number * 2, false), "postgres"),
            self.raw_network((&edge_name, number * 2 + 1, true), "edge"),
            self.docker.create_volume(volume),
            self.raw_database(number),
        );
        private?;
        edge?;
        volume?;
        database
    }

    async fn raw_network(&self, (name, slot, internal): (&str, usize, bool), who: &str) -> Outcome<()> {
        let subnet = format!("10.220.{}.{}/28", slot / 16 % 256, slot % 16 * 16);
        let config = IpamConfig {
            subnet: Some(subnet),
            ..IpamConfig::default()
        };
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            internal: Some(internal),
            ipam: Some(Ipam {
                config: Some(vec![config]),
                ..Ipam::default()
            }),
            ..NetworkCreateRequest::default()
        };
        self.docker.create_network(request).await?;
        let request = NetworkConnectRequest {
            container: format!("sp-{}-{who}", self.instance),
            endpoint_config: None,
        };
        Ok(self.docker.connect_network(name, request).await?)
    }

    async fn raw_database(&self, number: usize) -> Outcome<()> {
        let name = format!("raw_{number}");
        for statement in [
            format!("CREATE ROLE {name}_owner NOLOGIN"),
            format!("CREATE ROLE {name}_app NOLOGIN"),
            format!("CREATE DATABASE {name} OWNER {name}_owner TEMPLATE template0"),
            format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
            format!("GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {name}_app"),
            format!("CREATE ROLE {name}_login LOGIN PASSWORD 'x' IN ROLE {name}_app"),
        ] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
                .execute(&self.database)
                .await?;
        }
        Ok(())
    }

    async fn raw_away(&self, number: usize) {
        let name = format!("sp-{}-raw-{number}", self.instance);
        for (network, who) in [(name.clone(), "postgres"), (format!("{name}-edge"), "edge")] {
            let request = bollard::models::NetworkDisconnectRequest {
                container: format!("sp-{}-{who}", self.instance),
                force: Some(true),
            };
            let _ = self.docker.disconnect_network(&network, request).await;
            let _ = self.docker.remove_network(&network).await;
        }
        let _ = self
            .docker
            .remove_volume(&name, None::<RemoveVolumeOptions>)
            .await;
        for statement in [
            format!("DROP DATABASE IF EXISTS raw_{number}"),
            format!("DROP ROLE IF EXISTS raw_{number}_login, raw_{number}_app, raw_{number}_owner"),
        ] {
            let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
                .execute(&self.database)
                .await;
        }
    }
}

fn succeeded(server: &str, number: usize, operation: &Value) -> Outcome<()> {
    let id = operation.as_str().ok_or("no operation")?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(120) {
        let url = format!("{server}/api/v1/operations/{id}");
        let operation = ask("GET", &url, Some(&token(number)), None)?;
        match operation["status"].as_str() {
            Some("succeeded") => return Ok(()),
            Some("queued" | "running") => std::thread::sleep(Duration::from_millis(50)),
            _ => return Err(operation.to_string().into()),
        }
    }
    Err("the operation does not end".into())
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.served.take());
        let prefix = format!("sp-{}-", self.instance);
        for (list, remove) in [
            (
                &["ps", "-aq", "--filter"] as &[&str],
                &["rm", "-f", "-v"] as &[&str],
            ),
            (&["network", "ls", "-q", "--filter"], &["network", "rm"]),
            (&["volume", "ls", "-q", "--filter"], &["volume", "rm", "-f"]),
        ] {
            let listed = Command::new("docker")
                .args(list)
                .arg(format!("name={prefix}"))
                .output();
            let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            for name in text.unwrap_or_default().lines() {
                let _ = quietly(Command::new("docker").args(remove).arg(name));
            }
        }
    }
}

/// Runs the same for several numbers, each on a thread of its own.
fn together<T: Send>(
    first: usize,
    count: usize,
    work: impl Fn(usize) -> Outcome<T> + Sync,
) -> Outcome<Vec<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let running: Vec<_> = (first..first + count)
            .map(|number| scope.spawn(move || work(number).map_err(|error| error.to_string())))
            .collect();
        running
            .into_iter()
            .map(|one| Ok(one.join().map_err(|_| "a thread is gone")??))
            .collect()
    })
}

/// The installation's own PostgreSQL, as its superuser.
fn cluster(data: &Path, instance: &str) -> Outcome<PgPool> {
    let password = std::fs::read_to_string(data.join("postgres.password"))?;
    let output = Command::new("docker")
        .args(["port", &format!("sp-{instance}-postgres"), "5432/tcp"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let port = text.lines().next().and_then(|line| line.rsplit(':').next());
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port.ok_or("the cluster has no port")?.trim().parse()?)
        .username("postgres")
        .password(password.trim())
        .database("postgres");
    Ok(block_on(async {
        PgPoolOptions::new().max_connections(8).connect_lazy_with(options)
    }))
}
