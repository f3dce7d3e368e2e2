//! `systemprompt services`: what a tenant's container runs.

use std::time::Duration;

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::runtime::migrate::MigrateError;
use crate::runtime::settings::Settings;
use crate::runtime::{health, migrate, serve};

/// A release command may start before its database has joined the network.
const PATIENCE: Duration = Duration::from_secs(30);
/// At a start the migration is done already in most cases; the service can wait by itself.
const PATIENCE_AT_START: Duration = Duration::from_secs(5);

/// Flags of `systemprompt services`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serve the project: its web folder, its API, its health
    Serve {
        /// Stay in the foreground; the only way there is, written out where a reader may wonder
        #[arg(long)]
        foreground: bool,
    },
    /// Look after the tenant's database
    Db {
        #[command(subcommand)]
        command: DbCommand,
    },
    /// Ask the service on this machine whether it lives (exit code 0 if so)
    Health,
}

#[derive(Debug, clap::Subcommand)]
enum DbCommand {
    /// Apply the SQL files of `services/migrations` that the database does not have yet
    Migrate {
        /// Called as a container starts: a database that does not answer is only a warning
        #[arg(long)]
        at_start: bool,
    },
}

/// Runs inside a tenant.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let settings = Settings::from_variables(context.environment().variables())
        .map_err(|error| CliError::usage(error.to_string()))?;
    match args.command {
        Command::Serve { foreground: _ } => {
            serve::start_logs(&settings);
            serve::run(&settings)
                .await
                .map_err(|error| CliError::failed("failed to serve").because(error))
        }
        Command::Health => {
            let address = health::check(&settings).await.map_err(|error| {
                CliError::new(Kind::Failed, "the service is not well")
                    .because(error)
                    .hint("start it with `systemprompt services serve --foreground`")
            })?;
            context.ui().result(&json!({ "status": "ok" }), || {
                format!("the service on {address} lives")
            })
        }
        Command::Db {
            command: DbCommand::Migrate { at_start },
        } => migrate(context, &settings, at_start).await,
    }
}

async fn migrate(context: &Context, settings: &Settings, at_start: bool) -> Result<(), CliError> {
    let patience = if at_start { PATIENCE_AT_START } else { PATIENCE };
    match migrate::run(settings, patience).await {
        Ok(report) => context.ui().result(&report, || {
            let text = match report.applied.as_slice() {
                [] => format!("database is up to date ({} migrations)", report.total),
                applied => format!("applied {}; database is up to date", applied.join(", ")),
            };
            // The platform reads what its release command did from the last line.
            let is_release_command = settings.release.is_some() && !at_start;
            match serde_json::to_string(&report).ok().filter(|_| is_release_command) {
                Some(mark) => format!("{text}\n{mark}"),
                None => text,
            }
        }),
        Err(MigrateError::NoDatabase) if at_start => {
            context.ui().status("no database: nothing to migrate");
            Ok(())
        }
        Err(error @ MigrateError::Unreachable(_)) if at_start => {
            let why = CliError::failed("").because(error).causes().join(": ");
            context.ui().warning(format!(
                "{why}; starting all the same, not ready until it answers"
            ));
            Ok(())
        }
        Err(error) => Err(explain(error)),
    }
}

fn explain(error: MigrateError) -> CliError {
    let hint = match &error {
        MigrateError::NoDatabase => {
            "set `DATABASE_URL` to the tenant's PostgreSQL, such as `postgresql://user@host/name`"
        }
        MigrateError::Url(_) => "write it like `postgresql://user@host:5432/name`",
        MigrateError::Unreachable(_) => "check that the database runs and that `DATABASE_URL` names it",
        MigrateError::Read { .. } | MigrateError::Name { .. } => {
            "migrations are files like `0001_visits.sql`, each number once"
        }
        MigrateError::Changed { .. } => "put the file back as it was and write the change into a new one",
        MigrateError::Sql { .. } => "mend the file: nothing of it was kept",
        MigrateError::History(_) => "another release may be migrating: try again when it is done",
    };
    CliError::failed("failed to migrate the database")
        .because(error)
        .hint(hint)
}
