//! Credentials of the user's own docker configuration, for base images in private registries. Read, never written.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use bollard::auth::DockerCredentials;
use docker_credential::DockerCredential;

use crate::image::engine::Engine;

/// How the configuration file, and the engine in its two ways of asking, call Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";
const HUB_HOSTS: [&str; 3] = [HUB, "docker.io", "registry-1.docker.io"];

/// What is there for the registries of these images. A helper that fails is the same as no credential: most base
/// images need none, and the engine says which image it could not get.
pub(super) async fn find(engine: &Engine, images: Vec<String>) -> Option<HashMap<String, DockerCredentials>> {
    let config = engine.config_directory()?.join("config.json");
    let mut registries: Vec<String> = images.iter().map(|image| registry(image).to_owned()).collect();
    registries.sort();
    registries.dedup();
    // Helpers are programs: some ask a keychain, and take their time.
    let found = tokio::task::spawn_blocking(move || {
        registries
            .iter()
            .filter_map(|registry| Some((registry.clone(), read(&config, registry)?)))
            .collect::<Vec<_>>()
    });
    let mut all = HashMap::new();
    for (registry, credential) in found.await.ok()? {
        let hosts = if registry == HUB {
            HUB_HOSTS.to_vec()
        } else {
            vec![registry.as_str()]
        };
        for host in hosts {
            all.insert(host.to_owned(), credential.clone());
        }
    }
    (!all.is_empty()).then_some(all)
}

fn read(config: &Path, registry: &str) -> Option<DockerCredentials> {
    let file = File::open(config).ok()?;
    let mut credential = match docker_credential::get_credential_from_reader(file, registry).ok()? {
        DockerCredential::IdentityToken(token) => DockerCredentials {
            identitytoken: Some(token),
            ..DockerCredentials::default()
        },
        DockerCredential::UsernamePassword(username, password) => DockerCredentials {
            username: Some(username),
            password: Some(password),
            ..DockerCredentials::default()
        },
    };
    credential.serveraddress = Some(registry.to_owned());
    Some(credential)
}

/// The registry of an image reference: what stands before the first `/`, if it looks like a host.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => match host {
            "docker.io" | "index.docker.io" => HUB,
            host => host,
        },
        _ => HUB,
    }
}

#[cfg(test)]
mod tests {
    use super::{HUB, read, registry};

    #[test]
    fn knows_a_host_from_a_folder() {
        assert_eq!(registry("debian:bookworm"), HUB);
        assert_eq!(registry("library/debian"), HUB);
        assert_eq!(registry("docker.io/library/debian"), HUB);
        assert_eq!(registry("localhost/x"), "localhost");
        assert_eq!(registry("127.0.0.1:5000/x@sha256:0"), "127.0.0.1:5000");
        assert_eq!(registry("ghcr.io/a/b:c"), "ghcr.io");
    }

    #[test]
    fn reads_the_users_configuration() {
        let directory = tempfile::tempdir().expect("a folder");
        let path = directory.path().join("config.json");
        let text = r#"{"auths":{"registry.example":{"auth":"bWU6YTpi"}}}"#;
        std::fs::File::create(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
            .expect("written");
        let found = read(&path, "registry.example").expect("a credential");
        assert_eq!(
            (found.username.as_deref(), found.password.as_deref()),
            (Some("me"), Some("a:b"))
        );
        assert!(read(&path, "other.example").is_none());
    }
}
