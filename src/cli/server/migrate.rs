//! `systemprompt server migrate`: the schema of the server's database, its roles, and the way to another database.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use crate::api::secret::SecretText;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::server::{failed, open, open_or_make};
use crate::cli::ui::Table;
use crate::server::config::DataFlags;
use crate::server::{Roles, Server, check_name};

/// Flags of `systemprompt server migrate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Apply every migration that the database lacks
    Up(Where),
    /// Say whether the database is up to date
    Status(Where),
    /// List every migration and when it was applied
    History(Where),
    /// Copy everything from the SQLite file into an empty PostgreSQL database
    Copy(CopyArgs),
    /// Print the SQL that makes two PostgreSQL roles: one that owns the tables, one that the servers run with
    Roles(RolesArgs),
}

#[derive(Debug, clap::Args)]
struct Where {
    #[command(flatten)]
    data: DataFlags,
}

#[derive(Debug, clap::Args)]
struct CopyArgs {
    /// The SQLite file: `sqlite://` and the path of `systemprompt.db` in a data folder [default: that of `--data-dir`]
    #[arg(long, value_name = "URL", value_parser = folder_of, conflicts_with = "data_dir")]
    from: Option<PathBuf>,
    /// The empty PostgreSQL database, with the role that shall own the tables [default: as `--database-url`]
    #[arg(long, value_name = "URL", value_parser = secret, conflicts_with_all = ["database_url", "database_url_file"])]
    to: Option<SecretText>,
    #[command(flatten)]
    data: DataFlags,
}

#[derive(Debug, clap::Args)]
struct RolesArgs {
    /// Owns the tables: `systemprompt server migrate up` runs with it
    #[arg(long, value_name = "NAME", default_value = "systemprompt_owner", value_parser = check_name)]
    owner: String,
    /// Works with the tables and cannot change them: `systemprompt serve` runs with it
    #[arg(long, value_name = "NAME", default_value = "systemprompt_app", value_parser = check_name)]
    app: String,
    /// The database
    #[arg(long, value_name = "NAME", default_value = "systemprompt", value_parser = check_name)]
    database: String,
}

fn secret(text: &str) -> Result<SecretText, std::convert::Infallible> {
    Ok(SecretText::new(text))
}

fn folder_of(url: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(url.strip_prefix("sqlite://").unwrap_or(url));
    match (path.file_name(), path.parent()) {
        (Some(name), Some(folder)) if name == "systemprompt.db" => Ok(folder.to_owned()),
        _ => Err("write it like `sqlite:///home/ada/.local/share/systemprompt/systemprompt.db`".to_owned()),
    }
}

/// Looks after the schema.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    match args.command {
        Command::Up(place) => migrate_up(context, place).await,
        Command::Status(place) => migrate_status(context, place).await,
        Command::History(place) => migrate_history(context, place).await,
        Command::Copy(args) => copy(context, args).await,
        Command::Roles(args) => roles(context, args),
    }
}

async fn copy(context: &Context, args: CopyArgs) -> Result<(), CliError> {
    let mut data = args.data;
    data.data_dir = args.from.or(data.data_dir);
    data.database_url = args.to.or(data.database_url);
    if data.show_a_password() {
        crate::cli::serve::warn_of_password(context);
    }
    let copied = Server::copy(data).await.map_err(crate::cli::serve::failed)?;
    let rows: u64 = copied.tables.iter().map(|table| table.rows).sum();
    let document = json!({ "rows": rows, "tables": copied.tables, "source": copied.aside });
    context.ui().result(&document, || {
        let mut table = Table::new(&["TABLE", "ROWS", "CHECKSUM"]);
        for one in &copied.tables {
            table.row([one.table.clone(), one.rows.to_string(), one.checksum.clone()]);
        }
        table.render()
    })?;
    context.ui().success(format!(
        "{rows} rows copied and compared; the file is kept as `{}`",
        copied.aside.display()
    ));
    context.ui().hint(
        "start the servers with `SYSTEMPROMPT_DATABASE_URL` and the same data folder: its keys and images stay",
    );
    Ok(())
}

fn roles(context: &Context, args: RolesArgs) -> Result<(), CliError> {
    let roles = Roles {
        owner: args.owner,
        app: args.app,
        database: args.database,
    };
    let sql = roles.sql();
    context
        .ui()
        .result(&json!({ "sql": sql }), || sql.trim_end().to_owned())
}

async fn migrate_up(context: &Context, place: Where) -> Result<(), CliError> {
    let maintenance = open_or_make(context, place.data, true).await?;
    let applied = maintenance.migrate_up().await.map_err(failed)?;
    maintenance.close().await;
    context
        .ui()
        .result(&json!({ "applied": applied }), || match applied.len() {
            0 => "the database is up to date".to_owned(),
            count => format!("migrations applied: {count}"),
        })
}

async fn migrate_status(context: &Context, place: Where) -> Result<(), CliError> {
    let maintenance = open(context, place.data).await?;
    let history = maintenance.history().await.map_err(failed)?;
    maintenance.close().await;
    let missing = history.iter().filter(|one| !one.applied).count();
    let document = json!({ "up_to_date": missing == 0, "missing": missing });
    context.ui().result(&document, || match missing {
        0 => "the database is up to date".to_owned(),
        count => format!("migrations that are missing: {count}; run `systemprompt server migrate up`"),
    })
}

async fn migrate_history(context: &Context, place: Where) -> Result<(), CliError> {
    let maintenance = open(context, place.data).await?;
    let history = maintenance.history().await.map_err(failed)?;
    maintenance.close().await;
    context.ui().result(&json!({ "migrations": history }), || {
        let mut table = Table::new(&["VERSION", "NAME", "APPLIED"]);
        for one in &history {
            let applied = one.applied_at.clone().unwrap_or_else(|| "no".to_owned());
            table.row([one.version.to_string(), one.name.clone(), applied]);
        }
        table.render()
    })
}
