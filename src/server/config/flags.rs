//! Flags of `systemprompt serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::api::secret::SecretText;
use crate::server::config::data::{DataFlags, has_password, secret};
use crate::server::config::exposure::ExposureFlags;
use crate::server::config::sign_in::SignInFlags;
use crate::server::config::{LogFormat, ProviderKind};

/// Flags of `systemprompt serve`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeFlags {
    /// Where the data is
    #[command(flatten)]
    pub data: DataFlags,
    /// Address and port to listen on; port 0 takes a free one [env: `SYSTEMPROMPT_LISTEN`] [default: 127.0.0.1:8787]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Who can reach the server
    #[command(flatten)]
    pub exposure: ExposureFlags,
    /// By whom people may sign in
    #[command(flatten)]
    pub sign_in: SignInFlags,
    /// The address by which browsers and command lines reach this server [env: `SYSTEMPROMPT_PUBLIC_URL`]
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Host and port that image references begin with; that of the public URL unless told [env:
    /// `SYSTEMPROMPT_REGISTRY_HOST`]
    #[arg(long, value_name = "HOST:PORT")]
    pub registry_host: Option<String>,
    /// Folder with the images that were pushed, the same for all servers of a database [env:
    /// `SYSTEMPROMPT_REGISTRY_DIR`] [default: `registry` in the data folder]
    #[arg(long, value_name = "DIR")]
    pub registry_dir: Option<PathBuf>,
    /// File with the pretended world of `--provider fake`; `:memory:` keeps it nowhere
    #[arg(long, value_name = "FILE", hide = true)]
    pub world_file: Option<PathBuf>,
    /// What runs tenants [env: `SYSTEMPROMPT_PROVIDER`] [default: docker]
    #[arg(long, value_enum)]
    pub provider: Option<ProviderKind>,
    /// Image of the managed PostgreSQL server [env: `SYSTEMPROMPT_POSTGRES_IMAGE`] [default: postgres:16-alpine]
    #[arg(long, value_name = "IMAGE")]
    pub postgres_image: Option<String>,
    /// Image of the edge proxy (Caddy 2) [env: `SYSTEMPROMPT_EDGE_IMAGE`] [default: caddy:2]
    #[arg(long, value_name = "IMAGE")]
    pub edge_image: Option<String>,
    /// Port of this machine on which tenants answer over HTTP [env: `SYSTEMPROMPT_EDGE_HTTP_PORT`] [default: 8080]
    #[arg(long, value_name = "PORT")]
    pub edge_http_port: Option<u16>,
    /// Port of this machine on which tenants answer over HTTPS [env: `SYSTEMPROMPT_EDGE_HTTPS_PORT`] [default:
    /// 8443]
    #[arg(long, value_name = "PORT")]
    pub edge_https_port: Option<u16>,
    /// Addresses that tenants' networks are cut from [env: `SYSTEMPROMPT_ADDRESS_POOL`] [default: 10.213.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub address_pool: Option<String>,
    /// A PostgreSQL server of your own for tenants' databases, with a role that may create roles and databases;
    /// better given as an environment variable [env: `SYSTEMPROMPT_TENANT_DATABASE_URL`]
    #[arg(long, value_name = "URL", value_parser = secret)]
    pub tenant_database_url: Option<SecretText>,
    /// E-mail address of the operator account that the first start makes [env: `SYSTEMPROMPT_ADMIN_EMAIL`]
    /// [default: operator@localhost]
    #[arg(long, value_name = "EMAIL")]
    pub admin_email: Option<String>,
    /// File with that account's password; `-` reads it from standard input
    #[arg(long, value_name = "FILE", requires = "admin_email")]
    pub admin_password_file: Option<PathBuf>,
    /// Refuse to start instead of bringing the database up to date
    #[arg(long)]
    pub no_migrate: bool,
    /// How log lines are written: text on a terminal and json elsewhere, unless told [env:
    /// `SYSTEMPROMPT_LOG_FORMAT`]
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
}

impl ServeFlags {
    /// Whether everybody on this machine can read a password among the arguments.
    #[must_use]
    pub fn show_a_password(&self) -> bool {
        self.data.show_a_password() || self.tenant_database_url.as_ref().is_some_and(has_password)
    }

    /// Files that hold a secret and are read once, at the start.
    #[must_use]
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let files = [&self.admin_password_file, &self.data.database_url_file];
        let files = files.into_iter().flatten().cloned();
        files.chain(self.sign_in.secret_files()).collect()
    }
}
