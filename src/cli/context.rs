//! What every command gets: the global flags, the environment read once, the clock, and `Ui`.
//!
//! This is the only reader of the environment in the CLI.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use url::Url;

use crate::api::secret::SecretText;
use crate::cli::ci_identity;
use crate::cli::error::{CliError, Kind};
use crate::cli::session::KeptSession;
use crate::cli::ui::{Ui, UiOptions};
use crate::client::session::Credential;
use crate::client::{Client, ClientSettings};
use crate::image::endpoint::EngineEnvironment;
use crate::server::clock::Clock;
use crate::workspace::credentials::CredentialStore;
use crate::workspace::preferences::Preferences;
use crate::workspace::{FOLDER, Workspace};

/// Where a server is when nobody says otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8787";

/// Flags that every command takes.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Print one JSON document on stdout (streams: one object a line)
    #[arg(long, global = true)]
    pub json: bool,
    /// Print nothing but results and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Never ask; a missing answer is an error that names its flag
    #[arg(long, global = true)]
    pub no_input: bool,
    /// The server to talk to [env: `SYSTEMPROMPT_API_URL`]
    #[arg(long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// The profile whose tenant is meant [env: `SYSTEMPROMPT_PROFILE`]
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// Trust the certificate authorities in this PEM file too [env: `SYSTEMPROMPT_CA_FILE`]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// The environment, read once.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    current_dir: PathBuf,
}

impl Environment {
    /// This process's environment. Variables that are not Unicode are not ours and are left out.
    #[must_use]
    pub fn read() -> Self {
        Self {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            current_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
        }
    }

    /// The value of a variable; an empty one counts as absent.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Every variable, for what is started or resolved with all of them.
    #[must_use]
    pub const fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// Where the command was called.
    #[must_use]
    pub fn current_dir(&self) -> &Path {
        &self.current_dir
    }

    /// `$XDG_CONFIG_HOME/systemprompt`, else `~/.config/systemprompt`.
    #[must_use]
    pub fn config_dir(&self) -> Option<PathBuf> {
        self.base_dir("XDG_CONFIG_HOME", ".config")
    }

    /// `$XDG_DATA_HOME/systemprompt`, else `~/.local/share/systemprompt`.
    #[must_use]
    pub fn data_dir(&self) -> Option<PathBuf> {
        self.base_dir("XDG_DATA_HOME", ".local/share")
    }

    fn base_dir(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        // The XDG specification: a path that is not absolute is to be ignored.
        let base = self
            .variable(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| self.variable("HOME").map(|home| Path::new(home).join(below_home)))?;
        Some(base.join("systemprompt"))
    }
}

/// What every command gets.
#[derive(Debug)]
pub struct Context {
    ui: Ui,
    global: GlobalArgs,
    environment: Environment,
    clock: Clock,
    reattach: Mutex<Option<String>>,
    go_on: Mutex<Option<String>>,
    workspace: OnceLock<Option<Workspace>>,
    client: OnceLock<Client>,
}

impl Context {
    /// From the global flags and this process's environment.
    #[must_use]
    pub fn new(global: GlobalArgs) -> Self {
        let environment = Environment::read();
        let ui = Ui::new(&UiOptions {
            json: global.json,
            quiet: global.quiet,
            no_input: global.no_input || environment.variable("CI").is_some_and(|value| value != "false"),
            no_color: environment.variable("NO_COLOR").is_some()
                || environment.variable("TERM") == Some("dumb"),
        });
        Self {
            ui,
            global,
            environment,
            clock: Clock::system(),
            reattach: Mutex::new(None),
            go_on: Mutex::new(None),
            workspace: OnceLock::new(),
            client: OnceLock::new(),
        }
    }

    /// The only writer.
    #[must_use]
    pub const fn ui(&self) -> &Ui {
        &self.ui
    }

    /// The environment as it was when the command began.
    #[must_use]
    pub const fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Time, ids and chance.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The project's workspace; an error that says how to make one when there is none.
    pub fn workspace(&self) -> Result<&Workspace, CliError> {
        self.find_workspace().ok_or_else(|| {
            CliError::new(
                Kind::NotFound,
                format!("there is no `{FOLDER}` folder here or above"),
            )
            .code("no-workspace")
            .hint("make one with `systemprompt init`")
        })
    }

    /// The project's workspace, if this is a project.
    pub fn find_workspace(&self) -> Option<&Workspace> {
        self.workspace
            .get_or_init(|| Workspace::find(self.environment.current_dir()))
            .as_ref()
    }

    /// The sessions of this machine.
    pub fn credentials(&self) -> Result<CredentialStore, CliError> {
        let config_dir = self.environment.config_dir().ok_or_else(no_home)?;
        Ok(CredentialStore::new(self.find_workspace().cloned(), config_dir))
    }

    /// A client that speaks for whoever is signed in. Nothing is sent before its first call.
    pub fn client(&self) -> Result<&Client, CliError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let credential = match self.environment.variable("SYSTEMPROMPT_TOKEN") {
            Some(token) => Credential::Token(SecretText::new(token.trim())),
            None => Credential::Session(Arc::new(KeptSession::new(
                self.credentials()?,
                server_name(&self.server_url()?),
                ci_identity::renewal(self)?,
            ))),
        };
        let client = self.client_with(credential)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// A client with a credential of its own.
    pub fn client_with(&self, credential: Credential) -> Result<Client, CliError> {
        let reporter = self.ui.progress();
        let client = Client::new(ClientSettings {
            server: self.server_url()?,
            ca_file: self.ca_file(),
            credential,
            clock: self.clock.clone(),
            notice: Arc::new(move |text| reporter.line(text)),
        })?;
        Ok(client)
    }

    /// The tenant that the environment names: itself, or by the profile that the flag or the environment names.
    pub fn named_tenant(&self) -> Result<Option<String>, CliError> {
        let variable = |name| self.environment.variable(name).map(str::to_owned);
        let by_flag = self.global.profile.clone();
        if by_flag.is_none()
            && let Some(tenant) = variable("SYSTEMPROMPT_TENANT")
        {
            return Ok(Some(tenant));
        }
        let Some(name) = by_flag.or_else(|| variable("SYSTEMPROMPT_PROFILE")) else {
            return Ok(None);
        };
        let profile = self.workspace()?.read_profile(&name)?.ok_or_else(|| {
            CliError::new(Kind::NotFound, format!("this project has no profile `{name}`"))
                .hint("see the tenants of this project with `systemprompt tenant list`")
        })?;
        Ok(Some(profile.cloud.tenant_id))
    }

    /// The server to talk to: flag, then environment, then the last that was signed in to, then the default.
    pub fn server_url(&self) -> Result<Url, CliError> {
        let (text, source) = match (
            &self.global.server,
            self.environment.variable("SYSTEMPROMPT_API_URL"),
        ) {
            (Some(text), _) => (text.as_str(), "`--server`"),
            (None, Some(text)) => (text, "`SYSTEMPROMPT_API_URL`"),
            (None, None) => (DEFAULT_SERVER, "the default"),
        };
        Url::parse(text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                CliError::usage(format!("{source} is `{text}`, which is not an http or https URL"))
                    .hint(format!("write it like `{DEFAULT_SERVER}`"))
            })
    }

    /// What decides where the Docker Engine is; the flags win over the environment.
    #[must_use]
    pub fn engine_environment(
        &self,
        host_flag: Option<String>,
        context_flag: Option<String>,
    ) -> EngineEnvironment {
        let variable = |name| self.environment.variable(name).map(str::to_owned);
        let path = |name| self.environment.variable(name).map(PathBuf::from);
        EngineEnvironment {
            host_flag,
            context_flag,
            docker_host: variable("DOCKER_HOST"),
            docker_context: variable("DOCKER_CONTEXT"),
            config_directory: path("DOCKER_CONFIG").or_else(|| Some(path("HOME")?.join(".docker"))),
            tls_verify: variable("DOCKER_TLS_VERIFY"),
            certificate_directory: path("DOCKER_CERT_PATH"),
            runtime_directory: path("XDG_RUNTIME_DIR"),
            buildkit: variable("DOCKER_BUILDKIT"),
        }
    }

    /// What this person prefers, and the file that says so; `None` where there is no home.
    pub fn preferences(&self) -> Result<Option<(Preferences, PathBuf)>, CliError> {
        let Some(folder) = self.environment.config_dir() else {
            return Ok(None);
        };
        let path = folder.join("config.json");
        Ok(Some((Preferences::read(&path)?, path)))
    }

    /// Private certificate authorities to trust: flag, then environment.
    #[must_use]
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.global.ca_file.clone().or_else(|| {
            self.environment
                .variable("SYSTEMPROMPT_CA_FILE")
                .map(PathBuf::from)
        })
    }

    /// From now on work goes on without us: Ctrl-C prints this command, which takes it up again.
    pub fn set_reattach(&self, command: Option<String>) {
        *self.reattach.lock().unwrap_or_else(PoisonError::into_inner) = command;
    }

    /// The same, unless there is such a command already; `true` when this one is it now.
    pub fn offer_reattach(&self, command: String) -> bool {
        let mut reattach = self.reattach.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = reattach.is_none();
        reattach.get_or_insert(command);
        is_free
    }

    /// Nothing is begun, only followed: Ctrl-C prints this command, which goes on after the last line.
    pub fn set_go_on(&self, command: String) {
        *self.go_on.lock().unwrap_or_else(PoisonError::into_inner) = Some(command);
    }

    /// What Ctrl-C ends a command with.
    #[must_use]
    pub fn interrupted(&self) -> CliError {
        let take =
            |command: &Mutex<Option<String>>| command.lock().unwrap_or_else(PoisonError::into_inner).take();
        let error = CliError::new(Kind::Interrupted, "interrupted");
        match (take(&self.reattach), take(&self.go_on)) {
            (Some(command), _) => error.hint(format!("the work goes on; see how it ends with `{command}`")),
            (None, Some(command)) => error.hint(format!(
                "nothing was stopped but this command; go on from here with `{command}`"
            )),
            (None, None) => error,
        }
    }
}

/// A server's URL as it is written in files and messages: without a slash at its end.
#[must_use]
pub fn server_name(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

fn no_home() -> CliError {
    CliError::failed("neither `XDG_CONFIG_HOME` nor `HOME` says where your settings are")
        .hint("set `HOME`, or give a token in `SYSTEMPROMPT_TOKEN`")
}
