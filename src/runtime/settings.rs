//! What the platform tells a tenant: its environment, read once into one value.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::api::secret::SecretText;

/// Everything that the runtime reads from its environment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to listen on (`HOST`).
    pub host: IpAddr,
    /// Port to listen on (`PORT`).
    pub port: u16,
    /// Folder with `agents/`, `skills/` and `migrations/` (`SYSTEMPROMPT_SERVICES_PATH`).
    pub services_path: PathBuf,
    /// Folder of static files (`WEB_DIR`).
    pub web_dir: PathBuf,
    /// The tenant's own PostgreSQL (`DATABASE_URL`).
    pub database_url: Option<SecretText>,
    /// `TENANT_ID`.
    pub tenant_id: String,
    /// `TENANT_NAME`.
    pub tenant_name: String,
    /// Number of the release that this process is (`SYSTEMPROMPT_RELEASE`).
    pub release: Option<String>,
    /// What is logged (`RUST_LOG`).
    pub log: String,
}

/// A variable that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` is `{value}`, which is not {expected}")]
pub struct SettingsError {
    name: &'static str,
    value: String,
    expected: &'static str,
}

impl Settings {
    /// From the variables of this process; an empty one counts as absent.
    ///
    /// # Errors
    /// `HOST` is no address or `PORT` no port.
    pub fn from_variables(variables: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        let find = |name: &str| {
            variables
                .get(name)
                .filter(|value| !value.is_empty())
                .map(String::as_str)
        };
        let host = find("HOST").unwrap_or("0.0.0.0");
        let port = find("PORT").unwrap_or("8080");
        Ok(Self {
            host: host.parse().map_err(|_| SettingsError {
                name: "HOST",
                value: host.to_owned(),
                expected: "an IP address such as `0.0.0.0`",
            })?,
            port: port.parse().map_err(|_| SettingsError {
                name: "PORT",
                value: port.to_owned(),
                expected: "a port number such as `8080`",
            })?,
            services_path: find("SYSTEMPROMPT_SERVICES_PATH").unwrap_or("services").into(),
            web_dir: find("WEB_DIR").unwrap_or("web/dist").into(),
            database_url: find("DATABASE_URL").map(SecretText::new),
            tenant_id: find("TENANT_ID").unwrap_or("local").to_owned(),
            tenant_name: find("TENANT_NAME").unwrap_or("local").to_owned(),
            release: find("SYSTEMPROMPT_RELEASE").map(str::to_owned),
            log: find("RUST_LOG").unwrap_or("info").to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Settings;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let variables: BTreeMap<String, String> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Settings::from_variables(&variables).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_environment_serves_the_project_in_the_current_folder() {
        let settings = read(&[("DATABASE_URL", "")]).expect("defaults");
        assert_eq!(
            (settings.host.to_string().as_str(), settings.port),
            ("0.0.0.0", 8080)
        );
        assert!(settings.database_url.is_none());
        assert_eq!(settings.web_dir.to_str(), Some("web/dist"));
    }

    #[test]
    fn a_port_that_is_none_is_named() {
        let error = read(&[("PORT", "eighty")]).expect_err("not a port");
        assert_eq!(
            error,
            "`PORT` is `eighty`, which is not a port number such as `8080`"
        );
    }
}
