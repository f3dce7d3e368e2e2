//! `systemprompt whoami`: who is signed in, where, and for how long.

use serde_json::json;

use crate::api::account::Me;
use crate::api::oauth::Scope;
use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt whoami`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Shows the account.
pub async fn run(context: &Context, _args: Args) -> Result<(), CliError> {
    let client = context.client()?;
    let me = client.me().await?;
    let server = client.server();
    let document = json!({ "server": server, "account": me });
    context.ui().result(&document, || text(server, &me))
}

fn text(server: &str, me: &Me) -> String {
    let scopes: Vec<&str> = me.scopes.iter().map(|scope| Scope::as_str(*scope)).collect();
    let operator = if me.operator { " (operator)" } else { "" };
    let tenant = me
        .tenant_id
        .as_ref()
        .map(|id| format!(", only for {id}"))
        .unwrap_or_default();
    let ends = match me.credential.as_str() {
        "session" => format!("{} (renewed by itself)", me.expires_at),
        _ => me.expires_at.to_string(),
    };
    format!(
        "account: {}{operator}\nserver:  {server}\nwith:    {}\nscopes:  {}{tenant}\nends:    {ends}",
        me.email,
        me.credential.replace('_', " "),
        scopes.join(" "),
    )
}
