//! Settings that say who can reach the server, and what stands in front of it.

use std::path::PathBuf;

use crate::api::trust::{GITHUB, GITLAB};
use crate::server::config::{ConfigError, Environment};
use crate::server::front::proxies::Network;
use crate::server::front::tls::TlsFiles;
use crate::server::http::STREAMS;

/// How tenants are paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BillingMode {
    /// A button stands for a payment: for trying out
    Sandbox,
    /// Only free plans can be had
    Off,
}

/// Flags that say who can reach the server.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ExposureFlags {
    /// PEM file with the certificate for HTTPS, and those that lead to its authority; read again when it changes [env:
    /// `SYSTEMPROMPT_TLS_CERT`]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's private key [env: `SYSTEMPROMPT_TLS_KEY`]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Address or network of a proxy in front, which is believed about who asks (`X-Forwarded-For`); may be given
    /// several times [env: `SYSTEMPROMPT_TRUSTED_PROXIES`, separated by commas]
    #[arg(long = "trusted-proxy", value_name = "ADDRESS", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,
    /// Site whose pages may call the API from a browser, like `https://app.example.com`; may be given several times
    /// [env: `ALLOWED_ORIGINS`, separated by commas] [default: none]
    #[arg(long = "allowed-origin", value_name = "ORIGIN", value_delimiter = ',')]
    pub allowed_origins: Vec<String>,
    /// Who signs the identities by which CI jobs sign in without a stored secret; may be given several times [env:
    /// `SYSTEMPROMPT_CI_ISSUERS`, separated by commas] [default: those of GitHub Actions and gitlab.com]
    #[arg(long = "ci-issuer", value_name = "URL", value_delimiter = ',')]
    pub ci_issuers: Vec<String>,
    /// How tenants are paid for [env: `SYSTEMPROMPT_BILLING`] [default: sandbox]
    #[arg(long, value_enum)]
    pub billing: Option<BillingMode>,
    /// How many streams of events and lines this server serves at once; each holds a connection and some 20 KB [env:
    /// `SYSTEMPROMPT_MAX_STREAMS`] [default: 2000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: Option<u32>,
}

/// Who can reach the server.
#[derive(Clone, Debug)]
pub struct ExposureSettings {
    /// `ENVIRONMENT=production`: nothing careless is let pass, wherever the server listens.
    pub production: bool,
    /// HTTPS by the server itself.
    pub tls: Option<TlsFiles>,
    /// Proxies that are believed.
    pub trusted_proxies: Vec<Network>,
    /// Sites whose pages may call the API; `*` is everybody.
    pub allowed_origins: Vec<String>,
    /// Who signs the identities of CI jobs; without a slash at the end.
    pub ci_issuers: Vec<String>,
    /// How tenants are paid for.
    pub billing: BillingMode,
    /// How many streams are served at once.
    pub max_streams: u32,
}

impl ExposureSettings {
    /// From flags and environment.
    ///
    /// # Errors
    /// A variable cannot be used.
    pub fn resolve(flags: ExposureFlags, environment: &Environment) -> Result<Self, ConfigError> {
        let path = |flag: Option<PathBuf>, name| flag.or_else(|| environment.text(name).map(PathBuf::from));
        let certificate = path(flags.tls_cert, "SYSTEMPROMPT_TLS_CERT");
        let key = path(flags.tls_key, "SYSTEMPROMPT_TLS_KEY");
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return Err(ConfigError::HalfTls("SYSTEMPROMPT_TLS_KEY")),
            (None, Some(_)) => return Err(ConfigError::HalfTls("SYSTEMPROMPT_TLS_CERT")),
        };
        let trusted_proxies = if flags.trusted_proxies.is_empty() {
            listed(environment, "SYSTEMPROMPT_TRUSTED_PROXIES")
                .into_iter()
                .map(|text| {
                    text.parse().map_err(|_| ConfigError::Variable {
                        name: "SYSTEMPROMPT_TRUSTED_PROXIES",
                        value: text,
                        wanted: "addresses or networks separated by commas",
                    })
                })
                .collect::<Result<_, _>>()?
        } else {
            flags.trusted_proxies
        };
        let origins = if flags.allowed_origins.is_empty() {
            listed(environment, "ALLOWED_ORIGINS")
        } else {
            flags.allowed_origins
        };
        let issuers = if flags.ci_issuers.is_empty() {
            listed(environment, "SYSTEMPROMPT_CI_ISSUERS")
        } else {
            flags.ci_issuers
        };
        Ok(Self {
            max_streams: streams(flags.max_streams, environment)?,
            ci_issuers: match issuers.as_slice() {
                [] => [GITHUB, GITLAB].map(str::to_owned).into(),
                named => named
                    .iter()
                    .map(|text| issuer_of(text))
                    .collect::<Result<_, _>>()?,
            },
            production: match environment.text("ENVIRONMENT").as_deref() {
                None | Some("development" | "test" | "staging") => false,
                Some("production") => true,
                Some(other) => {
                    return Err(ConfigError::Variable {
                        name: "ENVIRONMENT",
                        value: other.to_owned(),
                        wanted: "`production`, `staging`, `test` or `development`",
                    });
                }
            },
            tls,
            trusted_proxies,
            allowed_origins: origins
                .iter()
                .map(|origin| origin_of(origin))
                .collect::<Result<_, _>>()?,
            billing: match flags.billing {
                Some(billing) => billing,
                None => environment
                    .choice("SYSTEMPROMPT_BILLING", "`sandbox` or `off`")?
                    .unwrap_or(BillingMode::Sandbox),
            },
        })
    }
}

fn listed(environment: &Environment, name: &str) -> Vec<String> {
    let text = environment.text(name).unwrap_or_default();
    text.split(',')
        .map(|entry| entry.trim().to_owned())
        .filter(|entry| !entry.is_empty())
        .collect()
}

fn streams(flag: Option<u32>, environment: &Environment) -> Result<u32, ConfigError> {
    let told = environment.parse("SYSTEMPROMPT_MAX_STREAMS", "a number")?;
    Ok(flag.or(told).unwrap_or(STREAMS))
}

/// An issuer, as it stands in what it signs but for a slash at the end.
pub(super) fn issuer_of(text: &str) -> Result<String, ConfigError> {
    url::Url::parse(text)
        .ok()
        .filter(|url| {
            matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none()
        })
        .map(|_| text.trim_end_matches('/').to_owned())
        .ok_or_else(|| ConfigError::Issuer(text.to_owned()))
}

/// An origin as browsers send it.
fn origin_of(text: &str) -> Result<String, ConfigError> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    url::Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.path() == "/" && url.query().is_none())
        .map(|url| url.origin().ascii_serialization())
        .ok_or_else(|| ConfigError::Origin(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{BillingMode, ExposureFlags, ExposureSettings};
    use crate::server::config::Environment;

    fn of(variables: &[(&str, &str)]) -> Result<ExposureSettings, String> {
        let environment = Environment::of(variables.iter().copied());
        ExposureSettings::resolve(ExposureFlags::default(), &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_says_it_all() {
        let settings = of(&[
            ("ENVIRONMENT", "production"),
            ("SYSTEMPROMPT_TLS_CERT", "/a"),
            ("SYSTEMPROMPT_TLS_KEY", "/b"),
            ("SYSTEMPROMPT_TRUSTED_PROXIES", "10.0.0.1, fd00::/64"),
            (
                "ALLOWED_ORIGINS",
                "https://App.example.com/,http://localhost:3000",
            ),
            ("SYSTEMPROMPT_BILLING", "off"),
        ])
        .expect("settings");
        assert!(settings.production && settings.tls.is_some());
        assert_eq!(settings.trusted_proxies.len(), 2);
        assert_eq!(
            settings.allowed_origins,
            ["https://app.example.com", "http://localhost:3000"]
        );
        assert_eq!(settings.billing, BillingMode::Off);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in [
            ("ENVIRONMENT", "prod"),
            ("SYSTEMPROMPT_TLS_CERT", "/a"),
            ("SYSTEMPROMPT_TRUSTED_PROXIES", "*"),
            ("ALLOWED_ORIGINS", "app.example.com"),
            ("SYSTEMPROMPT_BILLING", "free"),
        ] {
            assert!(of(&[bad]).is_err(), "{bad:?}");
        }
        assert!(!of(&[]).expect("settings").production);
    }
}
