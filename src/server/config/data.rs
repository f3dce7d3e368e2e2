//! Settings that say where the server's data is: its folder, its database, its keys.

use std::path::{Path, PathBuf};

use crate::api::secret::SecretText;
use crate::server::config::{ConfigError, Environment};
use crate::server::store::postgres::{CONNECTIONS, PostgresSettings};
use crate::server::vault::KeySource;

/// Flags that say where the server's data is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DataFlags {
    /// Folder with the database, the keys and the images [env: `SYSTEMPROMPT_DATA_DIR`] [default:
    /// ~/.local/share/systemprompt]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// PostgreSQL in place of the embedded database, so that several servers may share it; with a password, better
    /// given as an environment variable or a file [env: `SYSTEMPROMPT_DATABASE_URL`]
    #[arg(long, value_name = "URL", value_parser = secret)]
    pub database_url: Option<SecretText>,
    /// File with that URL [env: `SYSTEMPROMPT_DATABASE_URL_FILE`]
    #[arg(long, value_name = "FILE", conflicts_with = "database_url")]
    pub database_url_file: Option<PathBuf>,
    /// How many connections to PostgreSQL this server holds at most [env: `SYSTEMPROMPT_DATABASE_CONNECTIONS`]
    /// [default: 16]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: Option<u32>,
    /// The key that tenants' secrets are sealed with, the same for all servers of a database; it must be there [env:
    /// `SYSTEMPROMPT_MASTER_KEY_FILE`] [default: `master.key` in the folder, made by the first start]
    #[arg(long, value_name = "FILE")]
    pub master_key_file: Option<PathBuf>,
    /// Shell command that prints that key, from wherever it is kept (`age -d …`, a cloud's key service) [env:
    /// `SYSTEMPROMPT_MASTER_KEY_COMMAND`; the key itself: `SYSTEMPROMPT_MASTER_KEY`]
    #[arg(long, value_name = "COMMAND", conflicts_with = "master_key_file")]
    pub master_key_command: Option<String>,
    /// The key that tokens are signed with, the same for all servers of a database; it must be there [env:
    /// `SYSTEMPROMPT_SIGNING_KEY_FILE`] [default: `signing.key` in the folder, made by the first start]
    #[arg(long, value_name = "FILE")]
    pub signing_key_file: Option<PathBuf>,
}

pub(super) fn secret(text: &str) -> Result<SecretText, std::convert::Infallible> {
    Ok(SecretText::new(text))
}

impl DataFlags {
    /// Whether everybody on this machine can read a password among the arguments.
    #[must_use]
    pub fn show_a_password(&self) -> bool {
        self.database_url.as_ref().is_some_and(has_password)
    }
}

/// Whether a URL holds a password.
pub(super) fn has_password(url: &SecretText) -> bool {
    url::Url::parse(url.expose())
        .is_ok_and(|url| url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password"))
}

/// Where the data is.
#[derive(Clone, Debug)]
pub struct DataSettings {
    /// The data directory.
    pub directory: PathBuf,
    /// PostgreSQL in place of the embedded database.
    pub postgres: Option<PostgresSettings>,
    /// The master key, where it is not in the directory.
    pub master_key: Option<KeySource>,
    /// The signing key, where it is not in the directory.
    pub signing_key_file: Option<PathBuf>,
}

impl DataSettings {
    /// From flags and environment; reads the file with the URL.
    ///
    /// # Errors
    /// Nobody says where the data shall be, or the URL is none of PostgreSQL.
    pub fn resolve(flags: DataFlags, environment: &Environment) -> Result<Self, ConfigError> {
        let path =
            |flag: Option<PathBuf>, name: &str| flag.or_else(|| environment.text(name).map(PathBuf::from));
        let connections = match flags.database_connections {
            Some(count) => count,
            None => environment
                .parse("SYSTEMPROMPT_DATABASE_CONNECTIONS", "a number")?
                .unwrap_or(CONNECTIONS),
        };
        let url = database_url(flags.database_url, flags.database_url_file, environment)?;
        Ok(Self {
            directory: path(flags.data_dir, "SYSTEMPROMPT_DATA_DIR")
                .or_else(|| environment.home_of_data())
                .ok_or(ConfigError::NoDataDirectory)?,
            postgres: url.map(|url| PostgresSettings { url, connections }),
            master_key: master_key(flags.master_key_file, flags.master_key_command, environment),
            signing_key_file: path(flags.signing_key_file, "SYSTEMPROMPT_SIGNING_KEY_FILE"),
        })
    }
}

/// What was said by a flag counts first, then what the environment says.
fn master_key(
    file: Option<PathBuf>,
    command: Option<String>,
    environment: &Environment,
) -> Option<KeySource> {
    let text = |name| environment.text(name);
    let told = file
        .map(KeySource::File)
        .or_else(|| command.map(KeySource::Command));
    told.or_else(|| text("SYSTEMPROMPT_MASTER_KEY_FILE").map(|file| KeySource::File(PathBuf::from(file))))
        .or_else(|| text("SYSTEMPROMPT_MASTER_KEY_COMMAND").map(KeySource::Command))
        .or_else(|| text("SYSTEMPROMPT_MASTER_KEY").map(|key| KeySource::Text(SecretText::new(key))))
}

fn database_url(
    flag: Option<SecretText>,
    file: Option<PathBuf>,
    environment: &Environment,
) -> Result<Option<SecretText>, ConfigError> {
    let told = match (flag, file) {
        (Some(url), _) => Some(url),
        (None, Some(file)) => Some(read_url(&file)?),
        (None, None) => match environment.text("SYSTEMPROMPT_DATABASE_URL") {
            Some(url) => Some(SecretText::new(url)),
            None => environment
                .text("SYSTEMPROMPT_DATABASE_URL_FILE")
                .map(|file| read_url(Path::new(&file)))
                .transpose()?,
        },
    };
    match told {
        Some(url) if !is_postgres(url.expose()) => Err(ConfigError::DatabaseUrl),
        told => Ok(told),
    }
}

/// Whether a URL is one of PostgreSQL.
pub(super) fn is_postgres(url: &str) -> bool {
    ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}

fn read_url(file: &Path) -> Result<SecretText, ConfigError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(SecretText::new(text.trim())),
        Err(source) => Err(ConfigError::UrlFile {
            path: file.display().to_string(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{DataFlags, DataSettings};
    use crate::api::secret::SecretText;
    use crate::server::config::{ConfigError, Environment};

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let home = ("HOME", "/home/ada");
        Environment::of(variables.iter().chain([&home]).copied())
    }

    fn url_of(flags: DataFlags, variables: &[(&str, &str)]) -> Option<String> {
        let settings = DataSettings::resolve(flags, &environment(variables)).expect("settings");
        settings.postgres.map(|postgres| postgres.url.expose().to_owned())
    }

    #[test]
    fn the_url_comes_from_a_flag_a_file_or_the_environment() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("url");
        std::io::Write::write_all(
            &mut std::fs::File::create(&file).expect("a file"),
            b"postgresql://file/db\n",
        )
        .expect("written");
        let path = file.display().to_string();
        let variable = ("SYSTEMPROMPT_DATABASE_URL", "postgres://variable/db");
        let named = ("SYSTEMPROMPT_DATABASE_URL_FILE", path.as_str());
        let by_flag = DataFlags {
            database_url: Some(SecretText::new("postgres://flag/db")),
            ..DataFlags::default()
        };
        let by_file = DataFlags {
            database_url_file: Some(file.clone()),
            ..DataFlags::default()
        };
        assert_eq!(
            url_of(by_flag, &[variable, named]).as_deref(),
            Some("postgres://flag/db")
        );
        assert_eq!(
            url_of(by_file, &[variable]).as_deref(),
            Some("postgresql://file/db")
        );
        let none = DataFlags::default;
        assert_eq!(
            url_of(none(), &[variable, named]).as_deref(),
            Some("postgres://variable/db")
        );
        assert_eq!(url_of(none(), &[named]).as_deref(), Some("postgresql://file/db"));
        assert_eq!(url_of(none(), &[]), None);
        let other = environment(&[("SYSTEMPROMPT_DATABASE_URL", "mysql://ada:secret@host/db")]);
        let refused = DataSettings::resolve(none(), &other).expect_err("not PostgreSQL");
        assert!(matches!(refused, ConfigError::DatabaseUrl));
        assert!(!refused.to_string().contains("secret"));
    }

    #[test]
    fn a_password_among_the_arguments_is_noticed() {
        for (url, shown) in [
            ("postgres://ada:secret@host/db", true),
            ("postgres://host/db?password=secret", true),
            ("postgres://ada@host/db", false),
        ] {
            let flags = DataFlags {
                database_url: Some(SecretText::new(url)),
                ..DataFlags::default()
            };
            assert_eq!(flags.show_a_password(), shown, "{url}");
        }
        assert!(!DataFlags::default().show_a_password());
    }
}
