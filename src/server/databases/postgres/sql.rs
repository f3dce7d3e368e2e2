//! Statements about tenants. They cannot take bound parameters where they define something, so names are checked
//! identifiers, and a verifier has no character that would have to be escaped.
//!
//! One tenant is worked on by one session at a time (an advisory lock); every statement finds what an earlier,
//! interrupted call has left.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};

use crate::api::secret::SecretText;
use crate::server::databases::DatabaseError;
use crate::server::databases::postgres::error::{code_of, failed};
use crate::server::databases::postgres::names::{Identifier, Names};

/// Sessions of one login, and of all logins of a tenant together.
const LOGIN_LIMIT: u32 = 20;
const DATABASE_LIMIT: u32 = 25;

/// Guards, not boundaries: a session may change them.
const SESSION_SETTINGS: [(&str, &str); 3] = [
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("lock_timeout", "10s"),
];

/// `duplicate_object`, `unique_violation`, `duplicate_database`: somebody else made it meanwhile.
const THERE_ALREADY: [&str; 3] = ["42710", "23505", "42P04"];

pub(super) async fn run(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await
        .map(|_| ())
}

async fn make(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    match run(connection, statement).await {
        Err(error) if code_of(&error).is_some_and(|code| THERE_ALREADY.contains(&code.as_str())) => Ok(()),
        other => other,
    }
}

/// Waits for its turn with this tenant. The session's end gives the turn on.
pub(super) async fn lock(connection: &mut PgConnection, names: &Names) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_lock(hashtextextended($1, 0))")
        .bind(names.database.as_str())
        .execute(connection)
        .await
        .map(|_| ())
}

pub(super) async fn has_role(connection: &mut PgConnection, role: &Identifier) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(role.as_str())
        .fetch_one(connection)
        .await
}

pub(super) async fn has_database(
    connection: &mut PgConnection,
    name: &Identifier,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name.as_str())
        .fetch_one(connection)
        .await
}

async fn is_superuser(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        .fetch_one(connection)
        .await
}

/// Statements that take effect together: one round trip, and one flush of the server's log.
async fn run_all(connection: &mut PgConnection, statements: &[String]) -> Result<(), sqlx::Error> {
    run(connection, statements.join(";\n")).await
}

/// A provisioner that is no superuser must be a member of what it hands on.
fn join(role: &Identifier, is_superuser: bool) -> Option<String> {
    (!is_superuser).then(|| format!("GRANT {} TO CURRENT_USER", role.quoted()))
}

/// The roles that own: neither can log in.
pub(super) async fn make_owners(connection: &mut PgConnection, names: &Names) -> Result<(), sqlx::Error> {
    let is_superuser = is_superuser(connection).await?;
    let mut statements = Vec::new();
    for role in [&names.owner, &names.app] {
        if !has_role(connection, role).await? {
            statements.push(format!(
                "CREATE ROLE {} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
                role.quoted()
            ));
        }
        statements.extend(join(role, is_superuser));
    }
    match statements.is_empty() {
        true => Ok(()),
        false => run_all(connection, &statements).await,
    }
}

/// The tenant's database, closed to everybody but its own logins.
pub(super) async fn make_database(connection: &mut PgConnection, names: &Names) -> Result<(), sqlx::Error> {
    let (database, owner, app) = (names.database.quoted(), names.owner.quoted(), names.app.quoted());
    if !has_database(connection, &names.database).await? {
        let statement = format!(
            "CREATE DATABASE {database} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8' \
             LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8' CONNECTION LIMIT {DATABASE_LIMIT}"
        );
        make(connection, statement).await?;
    }
    let statements = [
        format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC"),
        format!("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {app}"),
        format!("ALTER DATABASE {database} CONNECTION LIMIT {DATABASE_LIMIT}"),
    ];
    run_all(connection, &statements).await
}

/// A login whose sessions work as the group that owns the objects, so that the other login can use them too. All of it
/// takes effect together: nobody logs in before the session would be what it shall be.
pub(super) async fn make_login(
    connection: &mut PgConnection,
    names: &Names,
    login: &Identifier,
    verifier: &SecretText,
) -> Result<(), sqlx::Error> {
    let (role, app, database) = (login.quoted(), names.app.quoted(), names.database.quoted());
    let is_superuser = is_superuser(connection).await?;
    let mut statements = Vec::new();
    if !has_role(connection, login).await? {
        statements.push(format!("CREATE ROLE {role} NOLOGIN"));
    }
    statements.push(format!("GRANT {app} TO {role}"));
    statements.extend(join(login, is_superuser));
    let group = ("role", names.app.as_str());
    let settings = [group].into_iter().chain(SESSION_SETTINGS);
    statements.extend(
        settings
            .map(|(name, value)| format!("ALTER ROLE {role} IN DATABASE {database} SET {name} = '{value}'")),
    );
    statements.push(format!(
        "ALTER ROLE {role} LOGIN CONNECTION LIMIT {LOGIN_LIMIT} PASSWORD '{}'",
        verifier.expose()
    ));
    run_all(connection, &statements).await
}

/// Inside of the tenant's database: its schema belongs to the owner, and the group may use it.
pub(super) async fn open_schema(connection: &mut PgConnection, names: &Names) -> Result<(), sqlx::Error> {
    let statements = [
        format!("ALTER SCHEMA public OWNER TO {}", names.owner.quoted()),
        "REVOKE ALL ON SCHEMA public FROM PUBLIC".to_owned(),
        format!("GRANT USAGE, CREATE ON SCHEMA public TO {}", names.app.quoted()),
    ];
    run_all(connection, &statements).await
}

/// No new sessions of that login.
pub(super) async fn refuse_login(
    connection: &mut PgConnection,
    login: &Identifier,
) -> Result<bool, sqlx::Error> {
    if !has_role(connection, login).await? {
        return Ok(false);
    }
    run(connection, format!("ALTER ROLE {} NOLOGIN", login.quoted())).await?;
    Ok(true)
}

async fn sessions(connection: &mut PgConnection, login: &Identifier) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE usename = $1")
        .bind(login.as_str())
        .fetch_one(connection)
        .await
}

/// Waits until the login has no session, and ends those that are left.
pub(super) async fn end_sessions(
    connection: &mut PgConnection,
    login: &Identifier,
    patience: Duration,
) -> Result<(), sqlx::Error> {
    let step = Duration::from_millis(200);
    let mut waited = Duration::ZERO;
    while sessions(connection, login).await? > 0 {
        if waited >= patience {
            sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1")
                .bind(login.as_str())
                .execute(&mut *connection)
                .await?;
        }
        // A terminated session takes a moment to be gone; one that does not go is somebody's to look at.
        if waited >= patience + Duration::from_secs(10) {
            break;
        }
        tokio::time::sleep(step).await;
        waited += step;
    }
    Ok(())
}

/// Drops a role; answers `false` when it still owns something, or something is granted to it.
pub(super) async fn drop_role(connection: &mut PgConnection, role: &Identifier) -> Result<bool, sqlx::Error> {
    const DEPENDENT_OBJECTS: &str = "2BP01";
    match run(connection, format!("DROP ROLE IF EXISTS {}", role.quoted())).await {
        Ok(()) => Ok(true),
        Err(error) if code_of(&error).as_deref() == Some(DEPENDENT_OBJECTS) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Inside of the tenant's database: what a session made after `SET ROLE none` goes to the group.
pub(super) async fn hand_over(
    connection: &mut PgConnection,
    names: &Names,
    login: &Identifier,
) -> Result<(), sqlx::Error> {
    let role = login.quoted();
    run(
        connection,
        format!("REASSIGN OWNED BY {role} TO {}", names.app.quoted()),
    )
    .await?;
    run(connection, format!("DROP OWNED BY {role}")).await
}

/// Allows or refuses connections; refusing ends the sessions there are.
pub(super) async fn allow_connections(
    connection: &mut PgConnection,
    names: &Names,
    allowed: bool,
) -> Result<(), sqlx::Error> {
    let database = names.database.quoted();
    run(
        connection,
        format!("ALTER DATABASE {database} ALLOW_CONNECTIONS {allowed}"),
    )
    .await?;
    if allowed {
        return Ok(());
    }
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1")
        .bind(names.database.as_str())
        .execute(connection)
        .await
        .map(|_| ())
}

/// The database goes before the roles that own it.
pub(super) async fn drop_all(connection: &mut PgConnection, names: &Names) -> Result<(), DatabaseError> {
    let what = "drop the tenant's database";
    if has_database(connection, &names.database)
        .await
        .map_err(|e| failed(what, e))?
    {
        allow_connections(connection, names, false)
            .await
            .map_err(|e| failed(what, e))?;
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", names.database.quoted());
        run(connection, statement).await.map_err(|e| failed(what, e))?;
    }
    for role in names.roles() {
        let dropped = drop_role(connection, role).await;
        if !dropped.map_err(|e| failed("drop the tenant's roles", e))? {
            return Err(DatabaseError::Fatal {
                code: "role-in-use",
                what: format!(
                    "failed to drop the role `{}`: it owns something elsewhere",
                    role.as_str()
                ),
                hint: Some("look for it with `\\dp` and `pg_shdepend`, then retry".to_owned()),
                source: None,
            });
        }
    }
    Ok(())
}
