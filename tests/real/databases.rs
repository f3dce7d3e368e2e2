//! Tenants' databases on a real PostgreSQL: the managed container, and somebody's server where we are no superuser.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use systemprompt::api::id::TenantId;
use systemprompt::api::secret::SecretText;
use systemprompt::server::clock::Clock;
use systemprompt::server::databases::postgres::PostgresDatabases;
use systemprompt::server::databases::{DatabaseError, DatabaseSettings, LoginSlot, TenantDatabases};

use crate::installation::{Installation, docker, succeeds_in};
use crate::need;

const WANTED: &str = "systemprompt-standin/postgres:15";

/// A cluster with its databases, and how to reach it from here.
struct Cluster {
    databases: PostgresDatabases,
    port: u16,
}

fn available() -> Result<(), String> {
    Installation::available()?;
    crate::answers("docker", &["image", "inspect", WANTED])
}

async fn managed(installation: &Installation) -> Cluster {
    let settings = DatabaseSettings::Managed {
        image: WANTED.to_owned(),
        directory: installation.directory.path().to_owned(),
    };
    let databases =
        PostgresDatabases::new(settings, installation.engine.clone(), Clock::system()).expect("databases");
    assert!(
        databases
            .ping()
            .await
            .expect("answers")
            .starts_with("PostgreSQL 15")
    );
    let published = docker(&["port", &installation.engine.name("postgres"), "5432/tcp"]);
    let port = published
        .trim()
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("port");
    assert!(published.starts_with("127.0.0.1:"), "{published}");
    Cluster { databases, port }
}

/// The same cluster through a role that may make databases and roles, and nothing else.
async fn external(installation: &Installation, managed: &Cluster) -> Cluster {
    let container = installation.engine.name("postgres");
    let sql = "CREATE ROLE prov LOGIN CREATEDB CREATEROLE PASSWORD 'word'; GRANT CONNECT ON DATABASE postgres TO prov";
    assert!(succeeds_in(&container, &format!("psql -U postgres -c \"{sql}\"")));
    let url = format!("postgresql://prov:word@127.0.0.1:{}/postgres", managed.port);
    let settings = DatabaseSettings::External {
        url: SecretText::new(url),
        tenant_address: None,
    };
    Cluster {
        databases: PostgresDatabases::new(settings, installation.engine.clone(), Clock::system())
            .expect("databases"),
        port: managed.port,
    }
}

impl Cluster {
    /// A tenant's login, tried from this machine.
    async fn log_in(
        &self,
        (tenant, slot): (&TenantId, LoginSlot),
        password: &str,
        database: Option<&str>,
    ) -> Result<PgConnection, sqlx::Error> {
        let url = self.databases.url(tenant, slot, &SecretText::new(password));
        let options: PgConnectOptions = url.expose().parse().expect("url");
        let options = options.host("127.0.0.1").port(self.port);
        let options = match database {
            Some(database) => options.database(database),
            None => options,
        };
        options.connect().await
    }

    async fn tenant(&self, password: &str) -> TenantId {
        let tenant = TenantId::new(Clock::system().uuid());
        let made = self
            .databases
            .create(&tenant, None, LoginSlot::A, &SecretText::new(password))
            .await;
        assert_eq!(made.expect("made").len(), 4);
        tenant
    }
}

async fn run(session: &mut PgConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(session).await.map(|_| ())
}

fn code(error: &sqlx::Error) -> String {
    let code = error
        .as_database_error()
        .and_then(|error| error.code().map(|code| code.into_owned()));
    code.unwrap_or_else(|| error.to_string())
}

fn name(tenant: &TenantId) -> String {
    tenant.as_str().replace("ten_", "t_")
}

async fn isolates(cluster: &Cluster) {
    let (acme, bolt) = (
        cluster.tenant("acme-word").await,
        cluster.tenant("bolt-word").await,
    );
    let login = (&acme, LoginSlot::A);
    let mut session = cluster.log_in(login, "acme-word", None).await.expect("logs in");
    run(
        &mut session,
        "CREATE TABLE visits (n int); INSERT INTO visits VALUES (1)",
    )
    .await
    .expect("may write");
    let owner: String = sqlx::query_scalar("SELECT tableowner FROM pg_tables WHERE tablename = 'visits'")
        .fetch_one(&mut session)
        .await
        .expect("owner");
    assert_eq!(owner, format!("{}_app", name(&acme)));
    for forbidden in [
        "CREATE SCHEMA other",
        "CREATE ROLE other",
        "CREATE DATABASE other",
        "COPY visits FROM PROGRAM 'id'",
        "SELECT pg_read_file('/etc/passwd')",
    ] {
        assert_eq!(
            code(&run(&mut session, forbidden).await.expect_err(forbidden)),
            "42501",
            "{forbidden}"
        );
    }
    for other in [name(&bolt).as_str(), "postgres", "template1"] {
        let refused = cluster
            .log_in(login, "acme-word", Some(other))
            .await
            .expect_err("not its own");
        assert_eq!(code(&refused), "42501", "{other}");
    }
    let refused = cluster
        .log_in(login, "bolt-word", None)
        .await
        .expect_err("another's password");
    assert_eq!(code(&refused), "28P01");

    let mut sessions = vec![session];
    let refused = loop {
        match cluster.log_in(login, "acme-word", None).await {
            Ok(session) => sessions.push(session),
            Err(error) => break code(&error),
        }
    };
    assert_eq!((sessions.len(), refused.as_str()), (20, "53300"));
    for tenant in [&acme, &bolt] {
        // With sessions open.
        cluster.databases.drop(tenant, None).await.expect("dropped");
    }
}

async fn rotates(cluster: &Cluster) {
    let tenant = cluster.tenant("first-word").await;
    let databases = &cluster.databases;
    let mut old = cluster
        .log_in((&tenant, LoginSlot::A), "first-word", None)
        .await
        .expect("logs in");
    run(&mut old, "CREATE TABLE t (n int)").await.expect("may write");
    let word = SecretText::new("second-word");
    for _ in 0..2 {
        databases
            .create_login(&tenant, LoginSlot::B, &word)
            .await
            .expect("made");
    }
    let mut new = cluster
        .log_in((&tenant, LoginSlot::B), "second-word", None)
        .await
        .expect("logs in");
    run(&mut new, "INSERT INTO t VALUES (1); ALTER TABLE t ADD m int")
        .await
        .expect("owns it as well");
    run(&mut old, "INSERT INTO t VALUES (2)")
        .await
        .expect("still works");
    // What a session makes behind the group's back must not keep the role.
    run(&mut old, "SET ROLE none; CREATE TABLE behind (n int)")
        .await
        .expect("may");
    databases.lock_login(&tenant, LoginSlot::A).await.expect("locked");
    run(&mut old, "SELECT 1").await.expect_err("ended");
    let refused = cluster
        .log_in((&tenant, LoginSlot::A), "first-word", None)
        .await
        .expect_err("locked");
    assert_eq!(code(&refused), "28000");
    for _ in 0..2 {
        databases
            .drop_login(&tenant, LoginSlot::A)
            .await
            .expect("dropped");
        databases
            .lock_login(&tenant, LoginSlot::A)
            .await
            .expect("nothing to lock");
    }
    run(&mut new, "INSERT INTO behind VALUES (1); SELECT * FROM t")
        .await
        .expect("nothing was lost");
    databases.drop(&tenant, None).await.expect("dropped");
}

async fn suspends_and_drops(cluster: &Cluster) {
    let tenant = cluster.tenant("word").await;
    let databases = &cluster.databases;
    let login = (&tenant, LoginSlot::A);
    let mut session = cluster.log_in(login, "word", None).await.expect("logs in");
    for _ in 0..2 {
        databases.set_connections(&tenant, false).await.expect("closed");
    }
    run(&mut session, "SELECT 1").await.expect_err("ended");
    let refused = cluster.log_in(login, "word", None).await.expect_err("closed");
    assert_eq!(code(&refused), "55000");
    databases.set_connections(&tenant, true).await.expect("opened");
    cluster
        .log_in(login, "word", None)
        .await
        .expect("logs in again")
        .close()
        .await
        .expect("closed");
    assert!(databases.exists(&tenant).await.expect("looked"));
    for _ in 0..2 {
        databases.drop(&tenant, None).await.expect("dropped");
    }
    assert!(!databases.exists(&tenant).await.expect("looked"));
    let missing = databases.set_connections(&tenant, true).await.expect_err("gone");
    assert!(
        matches!(
            missing,
            DatabaseError::Fatal {
                code: "database-not-found",
                ..
            }
        ),
        "{missing:?}"
    );
}

async fn bears_repetition(cluster: &Cluster) {
    let tenant = TenantId::new(Clock::system().uuid());
    let word = SecretText::new("word");
    // Callers that die in the middle, one later each time, then several at once.
    for millis in [1, 5, 10, 20, 40, 80, 160] {
        let create = cluster.databases.create(&tenant, None, LoginSlot::A, &word);
        let _ = tokio::time::timeout(Duration::from_millis(millis), create).await;
    }
    let calls = (0..4).map(|_| cluster.databases.create(&tenant, None, LoginSlot::A, &word));
    for made in futures::future::join_all(calls).await {
        made.expect("made");
    }
    cluster
        .log_in((&tenant, LoginSlot::A), "word", None)
        .await
        .expect("logs in");
    let (one, two) = tokio::join!(
        cluster.databases.drop(&tenant, None),
        cluster.databases.drop(&tenant, None)
    );
    one.and(two).expect("dropped");
    assert!(!cluster.databases.exists(&tenant).await.expect("looked"));
}

#[tokio::test]
async fn tenants_are_kept_apart() {
    need!(available());
    let installation = Installation::new();
    let managed = managed(&installation).await;
    let external = external(&installation, &managed).await;
    for cluster in [&managed, &external] {
        isolates(cluster).await;
        rotates(cluster).await;
        suspends_and_drops(cluster).await;
        bears_repetition(cluster).await;
    }
    let shown = docker(&["inspect", &installation.engine.name("postgres")]);
    let password =
        std::fs::read_to_string(installation.directory.path().join("postgres.password")).expect("file");
    assert!(
        !shown.contains(&password),
        "the superuser's password is in the container's description"
    );
    let log = docker(&["logs", &installation.engine.name("postgres")]);
    assert!(
        !log.contains("SCRAM-SHA-256$"),
        "a verifier is in the server's log"
    );
}

#[tokio::test]
async fn the_managed_server_is_found_again() {
    need!(available());
    let installation = Installation::new();
    let cluster = managed(&installation).await;
    let tenant = installation.made_tenant("acme", 0).await;
    let network = installation.engine.name("acme");
    let word = SecretText::new("word");
    for _ in 0..2 {
        let made = cluster
            .databases
            .create(&tenant.tenant_id, Some(&network), LoginSlot::A, &word)
            .await;
        made.expect("made");
    }
    let machine = installation.start(&installation.release(&tenant, 1)).await;
    // A tenant's network that comes first among the server's would take its published port along.
    let container = installation.engine.name("postgres");
    assert!(docker(&["port", &container]).contains(&format!(":{}", cluster.port)));
    let reach = "timeout 2 nc postgres.internal 5432 < /dev/null";
    assert!(succeeds_in(&machine, reach));

    // Whatever happens to the container, data and ways stay.
    docker(&["restart", &container]);
    let answered = async || {
        for _ in 0..20 {
            if cluster.databases.exists(&tenant.tenant_id).await.unwrap_or(false) {
                return true;
            }
        }
        false
    };
    assert!(answered().await, "after a restart, on another port");
    docker(&["rm", "--force", &container]);
    assert!(answered().await, "after the container was removed");
    assert!(
        succeeds_in(&machine, reach),
        "the new container is in the tenant's network"
    );

    cluster
        .databases
        .drop(&tenant.tenant_id, Some(&network))
        .await
        .expect("dropped");
    assert!(!succeeds_in(&machine, reach));
}
