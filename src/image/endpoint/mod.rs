//! Where the Docker Engine is: the same answer that the docker CLI gives, from values that the caller collected.

mod context;

use std::path::{Path, PathBuf};

use crate::image::error::ImageError;

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
const DEFAULT_CONTEXT: &str = "default";

/// Everything outside of this module that decides where the engine is. Empty texts count as absent.
#[derive(Clone, Debug, Default)]
pub struct EngineEnvironment {
    /// `--docker-host`.
    pub host_flag: Option<String>,
    /// `--docker-context`.
    pub context_flag: Option<String>,
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// `DOCKER_CONFIG`, else `~/.docker`.
    pub config_directory: Option<PathBuf>,
    /// `DOCKER_TLS_VERIFY`: any text turns it on, as in the docker CLI.
    pub tls_verify: Option<String>,
    /// `DOCKER_CERT_PATH`.
    pub certificate_directory: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`, where a rootless engine puts its socket.
    pub runtime_directory: Option<PathBuf>,
    /// `DOCKER_BUILDKIT`: `0` forces the classic builder.
    pub buildkit: Option<String>,
}

/// Where the engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The docker context that said so; `default` where none did.
    pub context: String,
    /// `unix:///var/run/docker.sock`, `tcp://host:2376` …
    pub host: String,
    /// Certificates, where the connection is TLS.
    pub tls: Option<TlsFiles>,
}

/// The three files of a mutual TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who signs the engine's certificate.
    pub ca: PathBuf,
    /// This client's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Endpoint {
    /// Resolves as the docker CLI does: flags, `DOCKER_HOST`, `DOCKER_CONTEXT`, `currentContext`, the default socket,
    /// the rootless socket.
    pub fn resolve(environment: &EngineEnvironment) -> Result<Self, ImageError> {
        let name = context_name(environment)?;
        if name == DEFAULT_CONTEXT {
            return default_endpoint(environment);
        }
        context::endpoint(environment, &name)
    }

    /// The path of the socket, where the engine is reached through one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.host.strip_prefix("unix://").map(Path::new)
    }

    /// Whether the engine runs on another machine, so that its `127.0.0.1` is not ours.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        let Some(address) = self.host.strip_prefix("tcp://") else {
            return false;
        };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        !(host == "localhost" || host.starts_with("127.") || host == "[::1]")
    }
}

fn context_name(environment: &EngineEnvironment) -> Result<String, ImageError> {
    let host_flag = present(&environment.host_flag);
    if let Some(context) = present(&environment.context_flag) {
        if host_flag.is_some() {
            return Err(ImageError::Endpoint {
                what: "a Docker host and a Docker context are both given".to_owned(),
                hint: "leave out `--docker-host` or `--docker-context`".to_owned(),
            });
        }
        return Ok(context.to_owned());
    }
    if host_flag.is_some() || present(&environment.docker_host).is_some() {
        return Ok(DEFAULT_CONTEXT.to_owned());
    }
    if let Some(context) = present(&environment.docker_context) {
        return Ok(context.to_owned());
    }
    Ok(context::current(environment)?.unwrap_or_else(|| DEFAULT_CONTEXT.to_owned()))
}

fn default_endpoint(environment: &EngineEnvironment) -> Result<Endpoint, ImageError> {
    let given = present(&environment.host_flag).or_else(|| present(&environment.docker_host));
    let verify = present(&environment.tls_verify).is_some();
    let directory = environment
        .certificate_directory
        .as_deref()
        .or(environment.config_directory.as_deref());
    let host = match given {
        Some(host) => normalize(host, verify)?,
        None => format!("unix://{}", default_socket(environment)),
    };
    if !verify || !host.starts_with("tcp://") {
        return Ok(Endpoint {
            context: DEFAULT_CONTEXT.to_owned(),
            host,
            tls: None,
        });
    }
    // Never fall back to a connection without TLS when TLS was asked for.
    let tls = tls_files(directory).ok_or_else(|| ImageError::Endpoint {
        what: "`DOCKER_TLS_VERIFY` is set and there is no `ca.pem`".to_owned(),
        hint: "name the folder of ca.pem, cert.pem and key.pem with `DOCKER_CERT_PATH`".to_owned(),
    })?;
    Ok(Endpoint {
        context: DEFAULT_CONTEXT.to_owned(),
        host,
        tls: Some(tls),
    })
}

fn default_socket(environment: &EngineEnvironment) -> String {
    let rootless = environment
        .runtime_directory
        .as_ref()
        .map(|directory| directory.join("docker.sock"));
    match rootless {
        Some(rootless) if !Path::new(DEFAULT_SOCKET).exists() && rootless.exists() => {
            rootless.display().to_string()
        }
        _ => DEFAULT_SOCKET.to_owned(),
    }
}

/// Adds what the docker CLI lets people leave out: the scheme and the port.
fn normalize(host: &str, tls: bool) -> Result<String, ImageError> {
    let host = host.trim();
    let (scheme, address) = host.split_once("://").unwrap_or(("tcp", host));
    match scheme {
        "unix" if address.is_empty() => Ok(format!("unix://{DEFAULT_SOCKET}")),
        "unix" => Ok(format!("unix://{address}")),
        "tcp" | "http" | "https" => {
            let address = address.trim_end_matches('/');
            let address = if address.is_empty() { "localhost" } else { address };
            let has_port = address
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let port = if tls { 2376 } else { 2375 };
            Ok(if has_port {
                format!("tcp://{address}")
            } else {
                format!("tcp://{address}:{port}")
            })
        }
        "ssh" => Err(ImageError::Endpoint {
            what: format!("engines over ssh (`{host}`) are not supported"),
            hint: format!(
                "forward its socket with `ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock {address}` and set \
                 `DOCKER_HOST=unix:///tmp/docker.sock`"
            ),
        }),
        _ => Err(ImageError::Endpoint {
            what: format!("`{host}` is not the address of a Docker Engine"),
            hint: "write it as `unix:///path/to/docker.sock` or `tcp://host:port`".to_owned(),
        }),
    }
}

fn tls_files(directory: Option<&Path>) -> Option<TlsFiles> {
    let directory = directory?;
    let files = TlsFiles {
        ca: directory.join("ca.pem"),
        certificate: directory.join("cert.pem"),
        key: directory.join("key.pem"),
    };
    files.ca.exists().then_some(files)
}

fn present(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::{Endpoint, EngineEnvironment, context_name, normalize};

    const VECTORS: &str = include_str!("../../../tests/data/docker/context-resolution-vectors.json");

    fn vectors() -> Value {
        serde_json::from_str(VECTORS).expect("the vectors are JSON")
    }

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder is made");
        std::io::Write::write_all(&mut std::fs::File::create(path).expect("a file"), text.as_bytes())
            .expect("text is written");
    }

    fn environment(given: &Value, directory: &Path) -> EngineEnvironment {
        let text = |key: &str| given.get(key).and_then(Value::as_str).map(str::to_owned);
        if let Some(current) = text("currentContext") {
            write(
                &directory.join("config.json"),
                &format!("{{\"currentContext\":\"{current}\"}}"),
            );
        }
        EngineEnvironment {
            host_flag: text("flag_host"),
            context_flag: text("flag_context"),
            docker_host: text("env_DOCKER_HOST"),
            docker_context: text("env_DOCKER_CONTEXT"),
            config_directory: Some(directory.to_owned()),
            ..EngineEnvironment::default()
        }
    }

    #[test]
    fn chooses_the_context_that_the_docker_cli_chooses() {
        let vectors = vectors();
        let cases = vectors["resolution"].as_array().expect("cases");
        assert_eq!(cases.len(), 7);
        for case in cases {
            let directory = tempfile::tempdir().expect("a folder");
            let environment = environment(&case["given"], directory.path());
            let wanted = case["result"].as_str().expect("a result");
            let chosen = context_name(&environment);
            if wanted.starts_with("error") {
                assert!(chosen.is_err(), "{case}");
                continue;
            }
            let chosen = chosen.expect("a context");
            assert_eq!(chosen, wanted.split([' ', ':']).next().expect("a word"), "{case}");
            if chosen == "default" {
                let host = Endpoint::resolve(&environment).expect("an endpoint").host;
                let given = environment.host_flag.or(environment.docker_host);
                assert!(given.is_none_or(|given| given == host), "{case}: {host}");
            }
        }
    }

    #[test]
    fn reads_a_context_and_its_certificates() {
        let example = vectors()["example"].clone();
        let directory = tempfile::tempdir().expect("a folder");
        let id = example["id"].as_str().expect("an id");
        let path = directory.path().join("contexts/meta").join(id).join("meta.json");
        write(&path, &example["meta"].to_string());
        let environment = EngineEnvironment {
            docker_context: Some("foo".to_owned()),
            config_directory: Some(directory.path().to_owned()),
            ..EngineEnvironment::default()
        };
        let plain = Endpoint::resolve(&environment).expect("an endpoint");
        assert_eq!(
            (plain.host.as_str(), plain.tls.is_none()),
            ("tcp://127.0.0.1:1", true)
        );

        let tls = directory.path().join("contexts/tls").join(id).join("docker");
        write(&tls.join("ca.pem"), "");
        let secured = Endpoint::resolve(&environment).expect("an endpoint");
        assert_eq!(secured.tls.expect("certificates").key, tls.join("key.pem"));
        assert!(!plain.is_remote());
    }

    #[test]
    fn a_context_that_is_not_there_names_the_command_that_lists_them() {
        let directory = tempfile::tempdir().expect("a folder");
        let environment = EngineEnvironment {
            context_flag: Some("gone".to_owned()),
            config_directory: Some(directory.path().to_owned()),
            ..EngineEnvironment::default()
        };
        let error = Endpoint::resolve(&environment).expect_err("no such context");
        assert_eq!(error.to_string(), "the Docker context `gone` does not exist");
        assert!(error.hint().expect("a hint").contains("docker context ls"));
    }

    #[test]
    fn tls_that_was_asked_for_is_never_left_out() {
        let directory = tempfile::tempdir().expect("a folder");
        let environment = EngineEnvironment {
            docker_host: Some("tcp://engine.example".to_owned()),
            tls_verify: Some("0".to_owned()),
            config_directory: Some(directory.path().to_owned()),
            ..EngineEnvironment::default()
        };
        assert!(Endpoint::resolve(&environment).is_err());
    }

    #[test]
    fn adds_what_may_be_left_out() {
        let normalized = |host, tls| normalize(host, tls).expect("an address");
        assert_eq!(normalized("engine", false), "tcp://engine:2375");
        assert_eq!(normalized("tcp://engine", true), "tcp://engine:2376");
        assert_eq!(normalized("engine:9", true), "tcp://engine:9");
        assert_eq!(normalized("unix://", false), "unix:///var/run/docker.sock");
        assert!(normalize("ssh://me@engine", false).is_err());
        assert!(normalize("npipe:////./pipe/docker", false).is_err());
    }
}
