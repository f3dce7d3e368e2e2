//! `systemprompt serve`.

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::server::config::ServeFlags;
use crate::server::{Class, Ready, Server, ServerError};

/// Flags of `systemprompt serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: ServeFlags,
}

/// Runs the management API until it is told to stop.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let clock = context.clock().clone();
    if args.flags.show_a_password() {
        warn_of_password(context);
    }
    Server::run(args.flags, clock, |ready| tell(context, &ready))
        .await
        .map_err(failed)
}

/// A password among the arguments is in every list of processes.
pub fn warn_of_password(context: &Context) {
    context.ui().warning(
        "everybody on this machine can read the password among the arguments; \
         use `SYSTEMPROMPT_DATABASE_URL`, `SYSTEMPROMPT_TENANT_DATABASE_URL` or `--database-url-file`",
    );
}

fn tell(context: &Context, ready: &Ready) {
    let first = ready.first.as_ref();
    let link = first.and_then(|first| first.link.as_ref());
    let document = json!({
        "listening": ready.url,
        "tenants": ready.tenant_url,
        "account": first.map(|first| &first.email),
        "sign_in_link": link.map(|link| link.expose()),
    });
    let text = || {
        let mut text = format!(
            "listening on {}\ntenants answer on {}",
            ready.url, ready.tenant_url
        );
        if let Some(first) = first {
            text.push_str(&format!("\nmade the operator account {}", first.email));
        }
        if let Some(link) = link {
            text.push_str(&format!("\nsign in once, within 24 hours: {}", link.expose()));
        }
        text
    };
    // Whoever started the server may have closed its output: it serves all the same.
    let _ = context.ui().entry(&document, text);
}

/// The server's refusal in the command line's form.
pub fn failed(error: ServerError) -> CliError {
    let kind = match error.class() {
        Class::Failed => Kind::Failed,
        Class::Input => Kind::Usage,
        Class::Absent => Kind::NotFound,
        Class::Conflict => Kind::Conflict,
    };
    let hint = error.hint();
    let lines = error.lines();
    let error = CliError::new(kind, error.to_string())
        .because(error)
        .details(lines);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
