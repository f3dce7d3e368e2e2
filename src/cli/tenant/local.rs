//! A local tenant: PostgreSQL in a container of the project's own, described by a Compose file. Needs no server.

use serde_json::json;

use crate::api::id::TenantId;
use crate::api::secret::SecretText;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::tenant::create::{Args, Database, name};
use crate::cli::tenant::delete::forget_profile;
use crate::cli::tenant::show::Lines;
use crate::image::database::{DEFAULT_IMAGE, DatabaseState, LocalDatabase};
use crate::image::engine::Engine;
use crate::workspace::Workspace;
use crate::workspace::file::{self, Mode};
use crate::workspace::profile::Profile;
use crate::workspace::tenants::{TenantEntry, TenantKind};

/// Creates a local tenant, or finishes one that was begun.
pub(super) async fn create(context: &Context, args: &Args) -> Result<(), CliError> {
    if args.database == Some(Database::Sqlite) {
        return Err(
            CliError::usage("a local tenant has a PostgreSQL database").hint("leave `--database` out")
        );
    }
    let workspace = context.workspace()?;
    let tenants = workspace.read_tenants()?;
    let name = name(context, args).await?;
    let there = tenants.find(name.as_str()).cloned();
    if there
        .as_ref()
        .is_some_and(|entry| entry.kind == TenantKind::Cloud)
    {
        return Err(CliError::new(
            Kind::Conflict,
            format!("this project has a cloud tenant `{name}`"),
        )
        .hint("choose another name with `--name NAME`"));
    }
    let engine = connect(context).await?;
    let database = prepare(context, workspace, &engine, name.as_str(), args.image.as_deref()).await?;
    database.start(&engine, context.ui().progress().as_ref()).await?;
    let entry = there.unwrap_or_else(|| TenantEntry {
        id: TenantId::new(context.clock().uuid()),
        name: name.clone(),
        kind: TenantKind::Local,
        region: None,
        hostname: Some("127.0.0.1".to_owned()),
        created_at: context.clock().now(),
        other: serde_json::Map::new(),
    });
    keep(context, workspace, &entry, &database)?;
    context.ui().done(
        &json!({ "tenant": entry, "database": { "port": database.port, "compose_file": compose_file(workspace, &database) } }),
        format!(
            "local tenant `{name}` is ready: PostgreSQL on 127.0.0.1:{}, described by `{}`",
            database.port,
            compose_file(workspace, &database)
        ),
    )
}

async fn connect(context: &Context) -> Result<Engine, CliError> {
    Ok(Engine::connect(&context.engine_environment(None, None)).await?)
}

/// Reads the files of a database that was begun before, else plans one and writes them.
async fn prepare(
    context: &Context,
    workspace: &Workspace,
    engine: &Engine,
    name: &str,
    image: Option<&str>,
) -> Result<LocalDatabase, CliError> {
    if let Some(database) = LocalDatabase::read(workspace.root(), name)? {
        return Ok(database);
    }
    let progress = context.ui().progress();
    let planned = LocalDatabase::plan(engine, workspace.root(), name, image, progress.as_ref()).await?;
    let (database, is_stand_in) = planned;
    if is_stand_in {
        context.ui().warning(format!(
            "`{}` cannot be pulled here; `{}` takes its place",
            image.unwrap_or(DEFAULT_IMAGE),
            database.image
        ));
    }
    let secret = database.environment_text();
    workspace.write_private(&database.environment_path(), secret.expose().as_bytes())?;
    file::write(
        &database.compose_path(),
        database.compose_text().as_bytes(),
        Mode::Open,
    )?;
    Ok(database)
}

fn keep(
    context: &Context,
    workspace: &Workspace,
    entry: &TenantEntry,
    database: &LocalDatabase,
) -> Result<(), CliError> {
    let name = entry.name.as_str();
    if !workspace.has_secrets(name)? {
        let random: [u8; 32] = context.clock().random();
        workspace.keep_secrets(name, &database.url(), &SecretText::new(hex::encode(random)))?;
    }
    let profile = Profile::new(
        name,
        "postgres",
        "http://127.0.0.1:8080",
        entry.id.as_str(),
        false,
    );
    workspace.ensure_profile(&profile)?;
    workspace.change_tenants(|tenants| {
        tenants.put(entry.clone());
        tenants.selected.get_or_insert_with(|| entry.id.clone());
    })?;
    Ok(())
}

fn compose_file(workspace: &Workspace, database: &LocalDatabase) -> String {
    let path = database.compose_path();
    path.strip_prefix(workspace.root())
        .unwrap_or(&path)
        .display()
        .to_string()
}

/// Shows how the database is.
pub(super) async fn status(context: &Context, entry: &TenantEntry) -> Result<(), CliError> {
    let engine = connect(context).await?;
    let found = LocalDatabase::read(context.workspace()?.root(), entry.name.as_str())?;
    let state = match &found {
        Some(database) => database.state(&engine).await?,
        None => DatabaseState::Absent,
    };
    let word = match state {
        DatabaseState::Absent => "absent",
        DatabaseState::Stopped => "stopped",
        DatabaseState::Running => "running",
    };
    let port = found.map(|database| database.port);
    let document = json!({ "tenant": entry, "database": { "state": word, "port": port } });
    context.ui().result(&document, || {
        let mut lines = Lines::default();
        lines.add("tenant", entry.name.as_str());
        lines.add("type", "local");
        lines.add("database", word);
        if let Some(port) = port {
            lines.add("port", &port.to_string());
        }
        lines.text
    })
}

/// Removes the database with its data, its files, and what the project has of the tenant.
pub(super) async fn delete(context: &Context, entry: &TenantEntry) -> Result<(), CliError> {
    let workspace = context.workspace()?;
    if let Some(database) = LocalDatabase::read(workspace.root(), entry.name.as_str())? {
        let engine = connect(context).await?;
        database.remove(&engine, true).await?;
        file::remove(&database.compose_path())?;
        file::remove(&database.environment_path())?;
    }
    forget_profile(context, workspace, entry.name.as_str())?;
    workspace.change_tenants(|tenants| tenants.remove(&entry.id))?;
    context.ui().done(
        &json!({ "deleted": entry.id, "name": entry.name }),
        format!("local tenant `{}` and its data are gone", entry.name),
    )
}
