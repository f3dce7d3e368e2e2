//! Settings that say by which providers of identities (OpenID Connect, and GitHub) people may sign in.

use std::path::{Path, PathBuf};

use crate::api::secret::SecretText;
use crate::server::auth::github;
use crate::server::auth::providers::{ProviderKind, ProviderSettings};
use crate::server::config::{ConfigError, Environment, exposure};

const LIST: &str = "SYSTEMPROMPT_OIDC_PROVIDERS";
const GITHUBS: &str = "SYSTEMPROMPT_GITHUB_PROVIDERS";
const SIGN_UP: &str = "SYSTEMPROMPT_OIDC_SIGN_UP";

/// The key that signs access tokens is rotated after so many days.
const SIGNING_KEY_DAYS: u32 = 90;

/// Flags that say by which providers people may sign in.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SignInFlags {
    /// A provider of identities (OpenID Connect) by which people may sign in: a name for it, its issuer, and the id that
    /// it knows this server by; may be given several times [env: `SYSTEMPROMPT_OIDC_PROVIDERS`, separated by spaces]
    #[arg(long = "oidc-provider", value_name = "NAME=ISSUER,CLIENT-ID")]
    pub oidc_providers: Vec<String>,
    /// A GitHub by which people may sign in, which is no provider of OpenID Connect: a name for it, its address (of an
    /// Enterprise Server; without one it is `https://github.com`), and the client id of its OAuth app; may be given several
    /// times; its secret is given as a provider's is [env: `SYSTEMPROMPT_GITHUB_PROVIDERS`, separated by spaces]
    #[arg(long = "github-provider", value_name = "NAME=[ADDRESS,]CLIENT-ID")]
    pub github_providers: Vec<String>,
    /// File with the client secret that a provider gave this server [env: `SYSTEMPROMPT_OIDC_NAME_SECRET_FILE`, or the
    /// secret itself in `SYSTEMPROMPT_OIDC_NAME_SECRET`]
    #[arg(long = "oidc-secret-file", value_name = "NAME=FILE")]
    pub oidc_secret_files: Vec<String>,
    /// Whoever this provider vouches for with an address of this domain is given an account at the first sign-in; may be
    /// given several times [env: `SYSTEMPROMPT_OIDC_SIGN_UP`, separated by spaces] [default: nobody]
    #[arg(long = "oidc-sign-up", value_name = "NAME=DOMAIN")]
    pub oidc_sign_up: Vec<String>,
    /// After how many days the key that signs access tokens is rotated by itself; 0: never [env:
    /// `SYSTEMPROMPT_SIGNING_KEY_DAYS`] [default: 90]
    #[arg(long, value_name = "DAYS")]
    pub signing_key_days: Option<u32>,
}

impl SignInFlags {
    /// After how many days the key of access tokens is rotated; `None`: never.
    ///
    /// # Errors
    /// The variable is no number.
    pub(super) fn signing_key_days(&self, environment: &Environment) -> Result<Option<u32>, ConfigError> {
        let days = match self.signing_key_days {
            Some(days) => days,
            None => environment
                .parse("SYSTEMPROMPT_SIGNING_KEY_DAYS", "a number of days")?
                .unwrap_or(SIGNING_KEY_DAYS),
        };
        Ok((days > 0).then_some(days))
    }

    /// Files that hold a client secret.
    pub(super) fn secret_files(&self) -> impl Iterator<Item = PathBuf> {
        let files = self
            .oidc_secret_files
            .iter()
            .filter_map(|text| text.split_once('='));
        files.map(|(_, file)| PathBuf::from(file))
    }
}

/// The providers, from flags and environment; reads the files with their secrets.
///
/// # Errors
/// A provider is not written as it must be, or a file cannot be read.
pub(super) fn resolve(
    flags: &SignInFlags,
    environment: &Environment,
) -> Result<Vec<ProviderSettings>, ConfigError> {
    let given = |flags: &[String], name| match flags {
        [] => words(environment, name),
        given => given.to_vec(),
    };
    let mut providers = Vec::<ProviderSettings>::new();
    let listed = given(&flags.oidc_providers, LIST).into_iter();
    let listed = listed.map(|text| (provider_of(&text), ConfigError::Oidc(text)));
    let githubs = given(&flags.github_providers, GITHUBS).into_iter();
    let githubs = githubs.map(|text| (github_of(&text), ConfigError::GitHub(text)));
    for (provider, error) in listed.chain(githubs) {
        let mut provider = provider.ok_or(error)?;
        if providers.iter().any(|one| one.name == provider.name) {
            return Err(ConfigError::OidcTwice(provider.name));
        }
        provider.secret = secret_of(&provider.name, flags, environment)?;
        if provider.kind == ProviderKind::GitHub && provider.secret.is_none() {
            return Err(ConfigError::GitHubSecret(provider.name));
        }
        providers.push(provider);
    }
    for text in given(&flags.oidc_sign_up, SIGN_UP) {
        let known = text.split_once('=').and_then(|(name, domain)| {
            let provider = providers.iter_mut().find(|provider| provider.name == name)?;
            let domain = domain.trim().to_ascii_lowercase();
            (!domain.is_empty() && !domain.contains('@')).then_some((provider, domain))
        });
        let (provider, domain) = known.ok_or_else(|| ConfigError::OidcSignUp(text.clone()))?;
        provider.sign_up.push(domain);
    }
    let named = |text: &&String| {
        let name = text.split_once('=').map(|(name, _)| name);
        !providers
            .iter()
            .any(|provider| name == Some(provider.name.as_str()))
    };
    if let Some(stray) = flags.oidc_secret_files.iter().find(named) {
        return Err(ConfigError::OidcSecretOfNobody(stray.clone()));
    }
    Ok(providers)
}

/// The next thing to do about a provider that is not written as it must be.
pub(super) const fn hint(error: &ConfigError) -> Option<&'static str> {
    match error {
        ConfigError::Oidc(_) => Some(
            "write it like `google=https://accounts.google.com,CLIENT-ID`: a name of small letters, an https issuer, and \
             the client id that it gave you",
        ),
        ConfigError::GitHub(_) => Some(
            "write it like `github=CLIENT-ID`, or `acme=https://git.acme.example,CLIENT-ID` for an Enterprise Server",
        ),
        ConfigError::GitHubSecret(_) => Some(
            "make one in the OAuth app's settings and give it with `--oidc-secret-file NAME=FILE` or \
             `SYSTEMPROMPT_OIDC_NAME_SECRET`",
        ),
        ConfigError::OidcTwice(_) => Some("give every provider a name of its own"),
        ConfigError::OidcSignUp(_) => {
            Some("write it like `google=example.com`, with the name of an `--oidc-provider`")
        }
        ConfigError::OidcSecretOfNobody(_) => {
            Some("write it like `google=/etc/systemprompt/google`, with the name of an `--oidc-provider`")
        }
        _ => None,
    }
}

fn words(environment: &Environment, name: &str) -> Vec<String> {
    let text = environment.text(name).unwrap_or_default();
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

fn github_of(text: &str) -> Option<ProviderSettings> {
    let (name, rest) = text.split_once('=')?;
    let (address, client_id) = rest.rsplit_once(',').unwrap_or((github::ADDRESS, rest));
    let provider = provider_of(&format!("{name}={address},{client_id}"))?;
    Some(ProviderSettings {
        kind: ProviderKind::GitHub,
        ..provider
    })
}

fn provider_of(text: &str) -> Option<ProviderSettings> {
    let (name, rest) = text.split_once('=')?;
    let (issuer, client_id) = rest.split_once(',')?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let named = (1..=32).contains(&name.len()) && name.chars().all(plain);
    let issuer = exposure::issuer_of(issuer).ok()?;
    let client_id = client_id.trim();
    (named && is_safe(&issuer) && !client_id.is_empty()).then(|| ProviderSettings {
        kind: ProviderKind::OpenId,
        name: name.to_owned(),
        issuer,
        client_id: client_id.to_owned(),
        secret: None,
        sign_up: Vec::new(),
    })
}

/// Over an open line anybody could vouch for anybody; on this machine there is none.
fn is_safe(issuer: &str) -> bool {
    url::Url::parse(issuer).is_ok_and(|url| {
        let here = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        url.scheme() == "https" || here
    })
}

fn secret_of(
    name: &str,
    flags: &SignInFlags,
    environment: &Environment,
) -> Result<Option<SecretText>, ConfigError> {
    let variable = format!(
        "SYSTEMPROMPT_OIDC_{}_SECRET",
        name.to_uppercase().replace('-', "_")
    );
    let by_flag = flags
        .oidc_secret_files
        .iter()
        .filter_map(|text| text.split_once('='))
        .find(|(of, _)| *of == name)
        .map(|(_, file)| file.to_owned());
    let file = match by_flag {
        Some(file) => file,
        None => match (
            environment.text(&variable),
            environment.text(&format!("{variable}_FILE")),
        ) {
            (Some(secret), _) => return Ok(Some(SecretText::new(secret))),
            (None, Some(file)) => file,
            (None, None) => return Ok(None),
        },
    };
    match std::fs::read_to_string(Path::new(&file)) {
        Ok(text) => Ok(Some(SecretText::new(text.trim()))),
        Err(source) => Err(ConfigError::OidcSecretFile { path: file, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::{SignInFlags, resolve};
    use crate::server::config::Environment;

    fn given(
        providers: &[&str],
        sign_up: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Vec<String>, String> {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let flags = SignInFlags {
            oidc_providers: owned(providers),
            github_providers: Vec::new(),
            oidc_secret_files: Vec::new(),
            oidc_sign_up: owned(sign_up),
            signing_key_days: None,
        };
        let providers = resolve(&flags, &Environment::of(variables.iter().copied()));
        let told = |one: super::ProviderSettings| {
            let secret = one.secret.map(|secret| secret.expose().to_owned());
            format!(
                "{} {} {} {secret:?} {:?}",
                one.name, one.issuer, one.client_id, one.sign_up
            )
        };
        match providers {
            Ok(providers) => Ok(providers.into_iter().map(told).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn several_are_told_by_flags_or_the_environment() {
        let google = "google=https://accounts.google.com,abc.apps";
        let variables = [("SYSTEMPROMPT_OIDC_GOOGLE_SECRET", "s3")];
        assert_eq!(
            given(
                &[google, "our-own=https://id.example.com/realm/,sp"],
                &["our-own=Example.com"],
                &variables
            ),
            Ok(vec![
                "google https://accounts.google.com abc.apps Some(\"s3\") []".to_owned(),
                "our-own https://id.example.com/realm sp None [\"example.com\"]".to_owned(),
            ])
        );
        let both = format!("{google} here=http://127.0.0.1:9000,sp");
        let variables = [
            ("SYSTEMPROMPT_OIDC_PROVIDERS", both.as_str()),
            ("SYSTEMPROMPT_OIDC_SIGN_UP", "here=example.com here=example.org"),
        ];
        assert_eq!(given(&[], &[], &variables).map(|all| all.len()), Ok(2));
    }

    #[test]
    fn a_github_is_told_apart_and_needs_a_secret() {
        let told = |list: &str, secret: Option<&str>| {
            let named = [("SYSTEMPROMPT_GITHUB_PROVIDERS", list)].into_iter();
            let secret = secret.map(|secret| ("SYSTEMPROMPT_OIDC_GITHUB_SECRET", secret));
            let variables: Vec<_> = named.chain(secret).collect();
            given(&[], &[], &variables)
        };
        assert_eq!(
            told("github=Iv1.abc", Some("s3")),
            Ok(vec![
                "github https://github.com Iv1.abc Some(\"s3\") []".to_owned()
            ])
        );
        assert_eq!(
            told("github=https://git.acme.example/,Iv1.abc", Some("s3")),
            Ok(vec![
                "github https://git.acme.example Iv1.abc Some(\"s3\") []".to_owned()
            ])
        );
        for (list, secret) in [
            ("github=Iv1.abc", None),
            ("Iv1.abc", Some("s3")),
            ("github=", Some("s3")),
            ("github=http://git.acme.example,Iv1.abc", Some("s3")),
            ("github=Iv1.abc github=Iv1.abc", Some("s3")),
        ] {
            assert!(told(list, secret).is_err(), "{list}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in [
            "https://accounts.google.com,abc",
            "google=https://accounts.google.com",
            "Google=https://accounts.google.com,abc",
            "google=accounts.google.com,abc",
            "google=http://accounts.google.com,abc",
            "google=https://accounts.google.com,",
        ] {
            assert!(given(&[bad], &[], &[]).is_err(), "{bad}");
        }
        let google = "google=https://accounts.google.com,abc";
        assert!(given(&[google, google], &[], &[]).is_err());
        for bad in [
            "example.com",
            "other=example.com",
            "google=",
            "google=ada@example.com",
        ] {
            assert!(given(&[google], &[bad], &[]).is_err(), "{bad}");
        }
    }
}
