//! Settings of the server: flags first, then the environment, then defaults. The only reader of the environment here.

mod data;
pub mod exposure;
mod flags;
mod sign_in;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::api::secret::SecretText;
use crate::server::auth::providers::ProviderSettings;
pub use crate::server::config::data::{DataFlags, DataSettings};
use crate::server::config::exposure::ExposureSettings;
pub use crate::server::config::flags::ServeFlags;

/// What runs tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProviderKind {
    /// The Docker Engine of this machine
    Docker,
    /// Nothing: tenants are pretended, for tests
    Fake,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable of the environment that does not hold what it must.
    #[error("the environment variable `{name}` holds `{value}`, which is not {wanted}")]
    Variable {
        /// Which.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What it must hold.
        wanted: &'static str,
    },
    /// The public URL is not one.
    #[error("the public URL `{0}` is not an http or https URL without a path")]
    PublicUrl(String),
    /// One of the two files for TLS is missing.
    #[error("a certificate and its key go together: `{0}` is missing")]
    HalfTls(&'static str),
    /// An origin is none.
    #[error("`{0}` is not the origin of a site")]
    Origin(String),
    /// An issuer is none.
    #[error("the CI issuer `{0}` is not an http or https URL")]
    Issuer(String),
    /// A provider of identities is none.
    #[error("`{0}` does not name a provider of identities")]
    Oidc(String),
    /// A GitHub is none.
    #[error("`{0}` does not name a GitHub")]
    GitHub(String),
    /// GitHub gives nothing to programs that have no secret.
    #[error("the GitHub `{0}` has no client secret")]
    GitHubSecret(String),
    /// Two providers have one name.
    #[error("two providers of identities are named `{0}`")]
    OidcTwice(String),
    /// A domain is given to no provider.
    #[error("`{0}` does not name a provider of identities and a domain")]
    OidcSignUp(String),
    /// A secret is given to no provider.
    #[error("`{0}` does not name a provider of identities and a file with its secret")]
    OidcSecretOfNobody(String),
    /// The file with a client secret cannot be read.
    #[error("failed to read the client secret from `{path}`")]
    OidcSecretFile {
        /// Where from.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database URL is of something else.
    #[error("the database URL does not begin with `postgres://`")]
    DatabaseUrl,
    /// The file with a database URL cannot be read.
    #[error("failed to read the database URL from `{path}`")]
    UrlFile {
        /// Where from.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nobody says where the data shall be.
    #[error("there is no home directory to keep the data in")]
    NoDataDirectory,
    /// The password file cannot be read.
    #[error("failed to read the password from `{path}`")]
    PasswordFile {
        /// Where from.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ConfigError {
    /// The next thing to do.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoDataDirectory => Some("name a folder with `--data-dir DIR`"),
            Self::PublicUrl(_) => Some("write it like `--public-url https://api.example.com`"),
            Self::HalfTls(_) => Some("give both `--tls-cert FILE` and `--tls-key FILE`"),
            Self::Origin(_) => Some("write it like `https://app.example.com`, without a path"),
            Self::Issuer(_) => Some("write it as it stands in its tokens, like `https://gitlab.example.com`"),
            Self::Oidc(_)
            | Self::OidcTwice(_)
            | Self::OidcSignUp(_)
            | Self::OidcSecretOfNobody(_)
            | Self::GitHub(_)
            | Self::GitHubSecret(_) => sign_in::hint(self),
            Self::DatabaseUrl => Some(
                "write it like `postgres://USER:PASSWORD@HOST:5432/DATABASE`; without one the server keeps its data in one SQLite file",
            ),
            Self::Variable { .. }
            | Self::UrlFile { .. }
            | Self::OidcSecretFile { .. }
            | Self::PasswordFile { .. } => None,
        }
    }
}

/// The operator account that the first start makes.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Signs in with it.
    pub email: String,
    /// Its password; without one it signs in by a one-time link.
    pub password: Option<SecretText>,
}

/// Everything that the server is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the data is.
    pub data: DataSettings,
    /// Who vouches for people.
    pub providers: Vec<ProviderSettings>,
    /// After how many days the key of access tokens is rotated by itself.
    pub signing_key_days: Option<u32>,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Who can reach it.
    pub exposure: ExposureSettings,
    /// How others reach the server; `None` until it is known where it listens.
    pub public_url: Option<String>,
    /// What image references begin with.
    pub registry_host: Option<String>,
    /// Where images are.
    pub registry_directory: PathBuf,
    /// Where the pretended world is.
    pub world_file: PathBuf,
    /// What runs tenants.
    pub provider: ProviderKind,
    /// Image of the managed PostgreSQL.
    pub postgres_image: String,
    /// Image of the edge.
    pub edge_image: String,
    /// Where tenants answer over HTTP.
    pub edge_http_port: u16,
    /// Where tenants answer over HTTPS.
    pub edge_https_port: u16,
    /// What tenants' networks are cut from.
    pub address_pool: String,
    /// A PostgreSQL server of the operator's own.
    pub tenant_database_url: Option<SecretText>,
    /// The first account.
    pub admin: Admin,
    /// Whether the database is brought up to date.
    pub migrate: bool,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Which log lines are written (`RUST_LOG`).
    pub log_filter: String,
    /// Where the Docker Engine is, when the environment says so.
    pub docker_host: Option<String>,
    /// Where a debug build is told at which place to die; `None` in every other build.
    pub failpoints: Option<PathBuf>,
}

/// The environment, read once.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// This process's environment. Variables that are not Unicode are not ours and are left out.
    #[must_use]
    pub fn read() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .filter(|(_, value)| !value.is_empty())
                .collect(),
        )
    }

    #[cfg(test)]
    pub(super) fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self(variables.into_iter().map(owned).collect())
    }

    /// Where the data is when nobody says so.
    fn home_of_data(&self) -> Option<PathBuf> {
        // The XDG specification: a path that is not absolute is to be ignored.
        self.text("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| {
                self.text("HOME")
                    .map(|home| Path::new(&home).join(".local/share"))
            })
            .map(|base| base.join("systemprompt"))
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn parse<T: std::str::FromStr>(
        &self,
        name: &'static str,
        wanted: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        value.parse().map(Some).map_err(|_| ConfigError::Variable {
            name,
            value: value.clone(),
            wanted,
        })
    }

    fn choice<T: clap::ValueEnum>(
        &self,
        name: &'static str,
        wanted: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        T::from_str(value, true)
            .map(Some)
            .map_err(|_| ConfigError::Variable {
                name,
                value: value.clone(),
                wanted,
            })
    }
}

/// For people where people look on, else for programs.
fn default_log_format() -> LogFormat {
    if console::user_attended_stderr() {
        LogFormat::Text
    } else {
        LogFormat::Json
    }
}

fn provider(flag: Option<ProviderKind>, environment: &Environment) -> Result<ProviderKind, ConfigError> {
    let told = match flag {
        Some(provider) => Some(provider),
        None => environment.choice("SYSTEMPROMPT_PROVIDER", "`docker` or `fake`")?,
    };
    Ok(told.unwrap_or(ProviderKind::Docker))
}

impl Settings {
    /// From flags and environment; reads the password file.
    ///
    /// # Errors
    /// A variable, the public URL or the password file cannot be used.
    pub fn resolve(flags: ServeFlags, environment: &Environment) -> Result<Self, ConfigError> {
        let text = |flag: Option<String>, name: &str| flag.or_else(|| environment.text(name));
        let port = |flag: Option<u16>, name, default| match flag {
            Some(port) => Ok(port),
            None => Ok(environment.parse(name, "a port (1 to 65535)")?.unwrap_or(default)),
        };
        let public_url = text(flags.public_url, "SYSTEMPROMPT_PUBLIC_URL")
            .map(|url| normal_url(&url))
            .transpose()?;
        let password = flags
            .admin_password_file
            .as_deref()
            .map(read_password)
            .transpose()?;
        let data = DataSettings::resolve(flags.data, environment)?;
        let in_data = |name: &str| data.directory.join(name);
        Ok(Self {
            registry_directory: flags
                .registry_dir
                .or_else(|| environment.text("SYSTEMPROMPT_REGISTRY_DIR").map(PathBuf::from))
                .unwrap_or_else(|| in_data("registry")),
            world_file: flags.world_file.unwrap_or_else(|| in_data("world.json")),
            data,
            providers: sign_in::resolve(&flags.sign_in, environment)?,
            signing_key_days: flags.sign_in.signing_key_days(environment)?,
            listen: flags
                .listen
                .map_or_else(
                    || environment.parse("SYSTEMPROMPT_LISTEN", "an address and port"),
                    |at| Ok(Some(at)),
                )?
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8787))),
            exposure: ExposureSettings::resolve(flags.exposure, environment)?,
            public_url,
            registry_host: text(flags.registry_host, "SYSTEMPROMPT_REGISTRY_HOST"),
            provider: provider(flags.provider, environment)?,
            postgres_image: text(flags.postgres_image, "SYSTEMPROMPT_POSTGRES_IMAGE")
                .unwrap_or_else(|| "postgres:16-alpine".to_owned()),
            edge_image: text(flags.edge_image, "SYSTEMPROMPT_EDGE_IMAGE")
                .unwrap_or_else(|| "caddy:2".to_owned()),
            edge_http_port: port(flags.edge_http_port, "SYSTEMPROMPT_EDGE_HTTP_PORT", 8080)?,
            edge_https_port: port(flags.edge_https_port, "SYSTEMPROMPT_EDGE_HTTPS_PORT", 8443)?,
            address_pool: text(flags.address_pool, "SYSTEMPROMPT_ADDRESS_POOL")
                .unwrap_or_else(|| "10.213.0.0/16".to_owned()),
            tenant_database_url: flags.tenant_database_url.or_else(|| {
                environment
                    .text("SYSTEMPROMPT_TENANT_DATABASE_URL")
                    .map(SecretText::new)
            }),
            admin: Admin {
                email: text(flags.admin_email, "SYSTEMPROMPT_ADMIN_EMAIL")
                    .unwrap_or_else(|| "operator@localhost".to_owned()),
                password,
            },
            migrate: !flags.no_migrate,
            log_format: match flags.log_format {
                Some(format) => format,
                None => environment
                    .choice("SYSTEMPROMPT_LOG_FORMAT", "`text` or `json`")?
                    .unwrap_or_else(default_log_format),
            },
            log_filter: environment
                .text("RUST_LOG")
                .unwrap_or_else(|| "info,sqlx=warn".to_owned()),
            docker_host: environment.text("DOCKER_HOST"),
            failpoints: crate::server::failpoint::folder(|name| environment.text(name)),
        })
    }

    /// How others reach the server, once it is known where it listens.
    #[must_use]
    pub fn public_url_at(&self, listening: SocketAddr) -> String {
        self.public_url.clone().unwrap_or_else(|| {
            let scheme = if self.exposure.tls.is_some() {
                "https"
            } else {
                "http"
            };
            if listening.ip().is_unspecified() {
                return format!("{scheme}://127.0.0.1:{}", listening.port());
            }
            format!("{scheme}://{listening}")
        })
    }
}

fn normal_url(text: &str) -> Result<String, ConfigError> {
    url::Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .filter(|url| url.path() == "/" && url.query().is_none() && url.fragment().is_none())
        .map(|url| url.as_str().trim_end_matches('/').to_owned())
        .ok_or_else(|| ConfigError::PublicUrl(text.to_owned()))
}

/// The first line of the file, or of standard input for `-`.
fn read_password(path: &Path) -> Result<SecretText, ConfigError> {
    let read = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    read.map(|text| SecretText::new(text.lines().next().unwrap_or_default()))
        .map_err(|source| ConfigError::PasswordFile {
            path: path.display().to_string(),
            source,
        })
}
