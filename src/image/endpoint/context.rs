//! Docker contexts: the one that the docker configuration chose, and what a context's files say.

use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::image::endpoint::{Endpoint, EngineEnvironment, normalize, tls_files};
use crate::image::error::ImageError;

/// The context that `docker context use` chose.
pub(super) fn current(environment: &EngineEnvironment) -> Result<Option<String>, ImageError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        #[serde(default)]
        current_context: String,
    }
    let Some(path) = environment
        .config_directory
        .as_ref()
        .map(|directory| directory.join("config.json"))
    else {
        return Ok(None);
    };
    let Some(text) = read_if_there(&path)? else {
        return Ok(None);
    };
    // The docker CLI warns and goes on with the default engine; deploying through another engine than the user
    // chose is worse than stopping.
    let config: Config = serde_json::from_str(&text).map_err(|error| ImageError::Mistake {
        path: path.display().to_string(),
        line: error.line(),
        what: error.to_string(),
        hint: "mend the file, or name the engine with `DOCKER_HOST`".to_owned(),
    })?;
    Ok(Some(config.current_context).filter(|name| !name.is_empty()))
}

/// The endpoint of the context `name`.
pub(super) fn endpoint(environment: &EngineEnvironment, name: &str) -> Result<Endpoint, ImageError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Meta {
        endpoints: Endpoints,
    }
    #[derive(Deserialize)]
    struct Endpoints {
        docker: Option<Docker>,
    }
    #[derive(Deserialize)]
    struct Docker {
        #[serde(rename = "Host", default)]
        host: String,
        #[serde(rename = "SkipTLSVerify", default)]
        skip_tls_verify: bool,
    }
    let absent = || ImageError::Endpoint {
        what: format!("the Docker context `{name}` does not exist"),
        hint: "`docker context ls` shows those that do".to_owned(),
    };
    let contexts = environment
        .config_directory
        .as_ref()
        .ok_or_else(absent)?
        .join("contexts");
    let id = hex::encode(Sha256::digest(name.as_bytes()));
    let path = contexts.join("meta").join(&id).join("meta.json");
    let text = read_if_there(&path)?.ok_or_else(absent)?;
    let meta: Meta = serde_json::from_str(&text).map_err(|error| ImageError::Mistake {
        path: path.display().to_string(),
        line: error.line(),
        what: error.to_string(),
        hint: format!("make the context `{name}` again with `docker context create`"),
    })?;
    let docker = meta
        .endpoints
        .docker
        .filter(|docker| !docker.host.is_empty())
        .ok_or_else(|| ImageError::Endpoint {
            what: format!("the Docker context `{name}` names no engine"),
            hint: format!("set one with `docker context update {name} --docker host=…`"),
        })?;
    if docker.skip_tls_verify {
        return Err(ImageError::Endpoint {
            what: format!("the Docker context `{name}` turns the check of the engine's certificate off"),
            hint: format!(
                "give it the engine's certificate authority with `docker context update {name} --docker ca=…`"
            ),
        });
    }
    let tls = tls_files(Some(&contexts.join("tls").join(&id).join("docker")));
    let host = normalize(&docker.host, tls.is_some())?;
    let tls = tls.filter(|_| host.starts_with("tcp://"));
    Ok(Endpoint {
        context: name.to_owned(),
        host,
        tls,
    })
}

fn read_if_there(path: &Path) -> Result<Option<String>, ImageError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ImageError::file("read", path)(error)),
    }
}
