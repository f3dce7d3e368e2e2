//! `systemprompt server`: work on the management API's own data, on the machine where that data is.

mod migrate;

use std::io::Read as _;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use crate::api::account::CreateToken;
use crate::api::id::TenantId;
use crate::api::oauth::Scope;
use crate::api::secret::SecretText;
use crate::cli::checklist;
use crate::cli::context::{Context, DEFAULT_SERVER};
use crate::cli::error::{CliError, Kind};
use crate::cli::keys;
use crate::cli::reconcile;
use crate::cli::ui::Prompt;
use crate::server::config::DataFlags;
use crate::server::{Class, Maintenance, MaintenanceError, Server};

/// Flags of `systemprompt server`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the database up to date, or see how it is
    Migrate(migrate::Args),
    /// Make accounts
    Account(AccountArgs),
    /// Make a one-time link that lets an account sign in without a password
    Link(LinkArgs),
    /// Make API tokens
    Token(TokenArgs),
    /// Compare the ledger of a running server with what its provider has, and mend what differs
    Reconcile(reconcile::Args),
    /// Rotate the key that tenants' secrets are sealed with
    Keys(keys::Args),
    /// Check whether the server is safe to be reached by others; takes the flags of `systemprompt serve`
    Check(Box<checklist::Args>),
}

#[derive(Debug, clap::Args)]
struct AccountArgs {
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    /// Make an account; its password is read from standard input
    Create(CreateAccountArgs),
}

#[derive(Debug, clap::Args)]
struct CreateAccountArgs {
    /// Signs in with it
    email: String,
    /// It may operate the server
    #[arg(long)]
    operator: bool,
    /// Without a password: it signs in by a link of `systemprompt server link`
    #[arg(long)]
    no_password: bool,
    #[command(flatten)]
    data: DataFlags,
}

#[derive(Debug, clap::Args)]
struct LinkArgs {
    /// The account
    email: String,
    #[command(flatten)]
    data: DataFlags,
}

#[derive(Debug, clap::Args)]
struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make an API token and print it, once
    Create(CreateTokenArgs),
}

#[derive(Debug, clap::Args)]
struct CreateTokenArgs {
    /// E-mail address of the account that the token is for
    #[arg(long, value_name = "EMAIL")]
    account: String,
    /// What it may do: read, deploy, secrets, admin (several: separated by commas)
    #[arg(long, value_name = "SCOPE", required = true, value_delimiter = ',', value_parser = scope)]
    scope: Vec<Scope>,
    /// Its life, at most 90 days: `10m`, `12h`, `30d`
    #[arg(long, value_name = "TIME", value_parser = duration)]
    expires_in: Duration,
    /// Only for this tenant
    #[arg(long, value_name = "ID")]
    tenant: Option<TenantId>,
    /// Its name in the list of tokens
    #[arg(long, default_value = "made by `systemprompt server token create`")]
    name: String,
    #[command(flatten)]
    data: DataFlags,
}

fn scope(word: &str) -> Result<Scope, String> {
    Scope::parse(word).ok_or_else(|| "the scopes are read, deploy, secrets, admin".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err("write it like `10m`, `12h` or `30d`".to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "write it like `10m`, `12h` or `30d`".to_owned())
}

/// Looks after the management API's own data.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    match args.command {
        Command::Migrate(args) => migrate::run(context, args).await,
        Command::Account(args) => match args.command {
            AccountCommand::Create(args) => create_account(context, args).await,
        },
        Command::Link(args) => create_link(context, args).await,
        Command::Token(args) => match args.command {
            TokenCommand::Create(args) => create_token(context, args).await,
        },
        Command::Reconcile(args) => reconcile::run(context, args).await,
        Command::Keys(args) => keys::run(context, args).await,
        Command::Check(args) => checklist::run(context, *args).await,
    }
}

async fn open(context: &Context, data: DataFlags) -> Result<Maintenance, CliError> {
    open_or_make(context, data, false).await
}

async fn open_or_make(context: &Context, data: DataFlags, make: bool) -> Result<Maintenance, CliError> {
    if data.show_a_password() {
        crate::cli::serve::warn_of_password(context);
    }
    Server::maintain(data, make, context.clock().clone())
        .await
        .map_err(crate::cli::serve::failed)
}

fn failed(error: MaintenanceError) -> CliError {
    let hint = error.hint();
    let kind = match error.class() {
        Class::Failed => Kind::Failed,
        Class::Input => Kind::Usage,
        Class::Absent => Kind::NotFound,
        Class::Conflict => Kind::Conflict,
    };
    with_hint(CliError::new(kind, error.to_string()).because(error), hint)
}

fn with_hint(error: CliError, hint: Option<String>) -> CliError {
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

async fn create_account(context: &Context, args: CreateAccountArgs) -> Result<(), CliError> {
    let password = if args.no_password {
        None
    } else {
        Some(read_password(context).await?)
    };
    let maintenance = open(context, args.data).await?;
    let id = maintenance
        .create_account(&args.email, password, args.operator)
        .await
        .map_err(failed)?;
    maintenance.close().await;
    let document = json!({ "account_id": id, "email": args.email, "operator": args.operator });
    context
        .ui()
        .result(&document, || format!("made the account {} ({id})", args.email))
}

async fn read_password(context: &Context) -> Result<SecretText, CliError> {
    if context.ui().interactive() {
        let prompt = Prompt::new("Password of the new account", "--no-password");
        return context.ui().ask_secret(prompt).await;
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| {
        CliError::failed("failed to read the password from standard input").because(error)
    })?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(SecretText::new(line)),
        _ => Err(CliError::usage("there is no password on standard input")
            .hint("pipe it in, or make the account with `--no-password` and send a link")),
    }
}

async fn create_link(context: &Context, args: LinkArgs) -> Result<(), CliError> {
    let maintenance = open(context, args.data).await?;
    let (path, server) = maintenance.create_link(&args.email).await.map_err(failed)?;
    maintenance.close().await;
    let server = server.unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    let link = format!("{server}{}", path.expose());
    context.ui().status("works once, within 24 hours");
    context
        .ui()
        .result(&json!({ "sign_in_link": link }), || link.clone())
}

async fn create_token(context: &Context, args: CreateTokenArgs) -> Result<(), CliError> {
    let wanted = CreateToken {
        name: args.name,
        scopes: args.scope,
        tenant_id: args.tenant,
        expires_in_seconds: args.expires_in.as_secs(),
    };
    let maintenance = open(context, args.data).await?;
    let token = maintenance
        .create_token(&args.account, &wanted)
        .await
        .map_err(failed)?;
    maintenance.close().await;
    context
        .ui()
        .result(&json!({ "token": token.expose() }), || token.expose().to_owned())
}

#[cfg(test)]
mod tests {
    use super::duration;
    use std::time::Duration;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86400)));
        for bad in ["", "10", "m", "1w", "-1d", "99999999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
