//! `systemprompt secrets set`.

use std::io::Read as _;
use std::path::PathBuf;

use crate::api::id::TenantId;
use crate::api::name::SecretKey;
use crate::api::secret::{SecretText, SetSecret};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::secrets::{ChangeArgs, applied};
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::ui::Prompt;

/// A secret has at most 32 KiB; a little more is read to see that it is too long.
const LONGEST: u64 = 32 * 1024;

/// Flags of `systemprompt secrets set`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its name: A-Z, 0-9 and `_`
    key: SecretKey,
    /// Read the value from this file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    #[command(flatten)]
    change: ChangeArgs,
}

impl Args {
    /// What the menu asks for.
    #[must_use]
    pub(super) fn of(key: SecretKey, tenant: &TenantId) -> Self {
        let change = ChangeArgs {
            tenant: Some(tenant.to_string()),
            ..ChangeArgs::default()
        };
        Self {
            key,
            from_file: None,
            change,
        }
    }
}

/// Sets a secret.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let id = pick_cloud(context, args.change.tenant.as_deref()).await?;
    let value = read_value(context, &args).await?;
    let secret = SetSecret {
        key: args.key.clone(),
        value,
    };
    let change = context
        .client()?
        .set_secret(&id, &secret, args.change.stage)
        .await?;
    applied(context, &args.change, &change, vec![args.key], "set").await
}

async fn read_value(context: &Context, args: &Args) -> Result<SecretText, CliError> {
    let (bytes, source) = match &args.from_file {
        Some(path) if path.as_os_str() != "-" => {
            let failed =
                |error| CliError::failed(format!("failed to read `{}`", path.display())).because(error);
            let file = std::fs::File::open(path).map_err(failed)?;
            let mut bytes = Vec::new();
            file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
            (bytes, format!("`{}`", path.display()))
        }
        None if context.ui().interactive() => {
            let question = format!("Value of {}", args.key);
            let flag = "--from-file FILE";
            return context.ui().ask_secret(Prompt::new(&question, flag)).await;
        }
        _ => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .take(LONGEST + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| CliError::failed("failed to read standard input").because(error))?;
            (bytes, "standard input".to_owned())
        }
    };
    check(bytes, &source)
}

fn check(bytes: Vec<u8>, source: &str) -> Result<SecretText, CliError> {
    if bytes.len() as u64 > LONGEST {
        return Err(CliError::usage(format!(
            "the value in {source} is longer than 32 KiB"
        )));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| CliError::usage(format!("the value in {source} is not UTF-8 text")))?;
    // The line end that an editor or `echo` puts there is not part of it.
    let text = SecretText::new(
        text.strip_suffix('\n')
            .map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text)),
    );
    if text.expose().is_empty() {
        return Err(CliError::usage(format!("the value in {source} is empty"))
            .hint("remove a secret with `systemprompt secrets unset KEY`"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn one_line_end_is_cut_off_and_no_more() {
        let value = |bytes: &[u8]| {
            check(bytes.to_vec(), "x")
                .map(|text| text.expose().to_owned())
                .ok()
        };
        assert_eq!(value(b"a\n").as_deref(), Some("a"));
        assert_eq!(value(b"a\r\n").as_deref(), Some("a"));
        assert_eq!(value(b"a\n\n").as_deref(), Some("a\n"));
        assert_eq!(value(b"\n"), None);
        assert_eq!(value(&[0xff]), None);
        assert_eq!(value(&vec![b'x'; 32 * 1024 + 1]), None);
    }
}
