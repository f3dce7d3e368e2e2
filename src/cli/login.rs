//! `systemprompt login`: the device flow of RFC 8628, a token from standard input, or the identity of a CI job.

use std::io::Read as _;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::json;

use crate::api::account::Me;
use crate::api::oauth::{CLIENT_ID, DEVICE_GRANT, DeviceAuthorization, DeviceAuthorizationRequest, Scope};
use crate::api::oauth::{TokenRequest, TokenResponse};
use crate::api::secret::SecretText;
use crate::cli::ci_identity;
use crate::cli::context::{Context, server_name};
use crate::cli::error::{CliError, Kind};
use crate::cli::ui::Prompt;
use crate::client::session::{Credential, Tokens};
use crate::workspace::credentials::{CredentialStore, Place, StoredSession};

const WAIT: &str = "login";
/// RFC 8628 section 3.5: what `slow_down` adds.
const SLOWER: Duration = Duration::from_secs(5);
const SLOWEST: Duration = Duration::from_secs(60);

/// Flags of `systemprompt login`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the link instead of opening a browser
    #[arg(long)]
    no_browser: bool,
    /// Read an API token (`spt_…`) from standard input instead of signing in with a browser
    #[arg(long)]
    with_token: bool,
    /// Sign a CI job in by the identity that its CI gives it, without a stored secret, to deploy to one tenant
    #[arg(long, conflicts_with_all = ["with_token", "no_browser"])]
    oidc: bool,
    /// The tenant of that job, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT", requires = "oidc")]
    tenant: Option<String>,
    /// Where the session is kept: in the keyring, or in a file that only you can read
    #[arg(long, value_enum)]
    store: Option<Store>,
}

/// Where a session is kept.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Store {
    /// The keyring of the operating system
    Keyring,
    /// A file that only you can read
    File,
}

/// Signs in.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let store = context.credentials()?;
    // Asked first: nobody shall sign in and then hear that it cannot be kept.
    let place = place(context, &args, &store).await?;
    let mut ci_tenant = None;
    let tokens = if args.oidc {
        let (tokens, tenant) = ci_identity::sign_in(context, args.tenant.as_deref()).await?;
        ci_tenant = Some(tenant);
        tokens
    } else if args.with_token {
        Tokens {
            access_token: read_token(context).await?,
            refresh_token: None,
            expires_at: None,
        }
    } else {
        device_login(context, &args).await?
    };
    let client = context.client_with(Credential::Token(tokens.access_token.clone()))?;
    let me = client.me().await?;
    let session = StoredSession {
        access_token: tokens.access_token,
        refresh_token: tokens.refresh_token,
        expires_at: tokens.expires_at,
        email: Some(me.email.clone()),
        ci_tenant,
    };
    let server = server_name(&context.server_url()?);
    store.save(&server, &session, place).await?;
    remember_server(context, &server)?;
    if context.environment().variable("SYSTEMPROMPT_TOKEN").is_some() {
        context
            .ui()
            .warning("`SYSTEMPROMPT_TOKEN` is set and wins over this session");
    }
    signed_in(context, &server, &me, place)
}

fn signed_in(context: &Context, server: &str, me: &Me, place: Place) -> Result<(), CliError> {
    let scopes: Vec<&str> = me.scopes.iter().map(|scope| Scope::as_str(*scope)).collect();
    context.ui().done(
        &json!({
            "server": server,
            "email": me.email,
            "account_id": me.account_id,
            "scopes": scopes,
            "stored_in": place.as_str(),
        }),
        format!("signed in to {server} as {}", me.email),
    )
}

/// The next command need not be told which server is meant.
fn remember_server(context: &Context, server: &str) -> Result<(), CliError> {
    let Some((mut preferences, path)) = context.preferences()? else {
        return Ok(());
    };
    if preferences.server.as_deref() != Some(server) {
        preferences.server = Some(server.to_owned());
        preferences.write(&path)?;
    }
    Ok(())
}

async fn place(context: &Context, args: &Args, store: &CredentialStore) -> Result<Place, CliError> {
    match args.store {
        Some(Store::File) => return Ok(Place::File),
        Some(Store::Keyring) => {
            store.check_keyring().await?;
            return Ok(Place::Keyring);
        }
        // For ten minutes, on a machine that is thrown away.
        None if args.oidc => return Ok(Place::File),
        None => {}
    }
    let Err(error) = store.check_keyring().await else {
        return Ok(Place::Keyring);
    };
    let path = store.file_path();
    let question = format!(
        "There is no keyring. Keep the session in `{}`, readable only by you?",
        path.display()
    );
    if !context.ui().interactive() {
        return Err(
            CliError::usage("there is no keyring, and no terminal to ask whether a file will do")
                .code("answer-missing")
                .because(error)
                .hint(format!(
                    "keep the session in `{}` with `--store file`",
                    path.display()
                ))
                .hint("or give a token in `SYSTEMPROMPT_TOKEN` instead of signing in"),
        );
    }
    if context
        .ui()
        .ask_confirm(Prompt::new(&question, "--store file"), true)
        .await?
    {
        Ok(Place::File)
    } else {
        Err(CliError::from(error))
    }
}

async fn read_token(context: &Context) -> Result<SecretText, CliError> {
    if context.ui().interactive() {
        return context
            .ui()
            .ask_secret(Prompt::new(
                "Token",
                "pipe it in: `systemprompt login --with-token < FILE`",
            ))
            .await;
    }
    let mut text = String::new();
    std::io::stdin()
        .take(64 * 1024)
        .read_to_string(&mut text)
        .map_err(|error| CliError::failed("failed to read the token from standard input").because(error))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(CliError::usage("standard input holds no token")
            .hint("pipe it in: `systemprompt login --with-token < token.txt`"));
    }
    Ok(SecretText::new(token))
}

async fn device_login(context: &Context, args: &Args) -> Result<Tokens, CliError> {
    let client = context.client_with(Credential::None)?;
    let request = DeviceAuthorizationRequest {
        client_id: CLIENT_ID.to_owned(),
        scope: None,
        device_name: device_name(),
    };
    let device = client.authorize_device(&request).await?;
    let ui = context.ui();
    ui.notice(format!("Your code:  {}", device.user_code));
    ui.notice(format!("Confirm it: {}", device.verification_uri_complete));
    if !args.no_browser {
        open_browser(context, &device.verification_uri_complete);
    }
    let reporter = ui.progress();
    reporter.wait(WAIT, "waiting until the code is confirmed");
    let response = poll(&client, &device).await;
    reporter.wait_over(WAIT);
    Ok(Tokens::granted(response?, context.clock().now()))
}

/// Asks until there is an answer (RFC 8628 sections 3.4 and 3.5).
async fn poll(
    client: &crate::client::Client,
    device: &DeviceAuthorization,
) -> Result<TokenResponse, CliError> {
    let ends = Instant::now() + Duration::from_secs(device.expires_in);
    let mut interval = Duration::from_secs(device.interval.max(1));
    let request = TokenRequest {
        grant_type: DEVICE_GRANT.to_owned(),
        client_id: CLIENT_ID.to_owned(),
        device_code: Some(device.device_code.clone()),
        ..TokenRequest::default()
    };
    let expired = || {
        CliError::new(Kind::NotAllowed, "the code was not confirmed in time")
            .code("expired_token")
            .hint("begin again with `systemprompt login`")
    };
    loop {
        tokio::time::sleep(interval).await;
        if Instant::now() >= ends {
            return Err(expired());
        }
        let error = match client.token(&request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        match error.code() {
            Some("authorization_pending") => {}
            Some("slow_down") => interval += SLOWER,
            Some("expired_token") => return Err(expired()),
            Some("access_denied") => {
                return Err(
                    CliError::new(Kind::NotAllowed, "the sign-in was refused in the browser")
                        .code("access_denied"),
                );
            }
            // "On encountering a connection timeout, clients MUST unilaterally reduce their polling frequency".
            _ if error.is_passing() => interval = (interval * 2).min(SLOWEST),
            _ => return Err(error.into()),
        }
    }
}

/// Opens the link where there is a desktop; elsewhere the person has read it.
pub(super) fn open_browser(context: &Context, url: &str) {
    let environment = context.environment();
    let has_desktop = cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"]
            .iter()
            .any(|name| environment.variable(name).is_some());
    if !context.ui().interactive() || !has_desktop {
        return;
    }
    let url = url.to_owned();
    // Starting a browser may take its time, and the wait for its answer need not wait for that.
    std::thread::spawn(move || {
        let _ = webbrowser::open(&url);
    });
}

/// Names this machine on the approval page.
fn device_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
