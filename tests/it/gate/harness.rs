//! A gate on a real port, and a client that speaks the registry's words.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, HeaderMap};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha512};
use systemprompt::api::id::TenantId;
use systemprompt::api::time::Time;
use systemprompt::server::clock::Clock;
use systemprompt::server::registry::{Gate, GateAccess, GateSettings};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Where every request without a leading slash goes.
pub(crate) const REPOSITORY: &str = "/v2/systemprompt-images/";
/// The signing key of all gates of these tests.
pub(crate) const KEY: [u8; 32] = [42; 32];

/// One gate, its folder and its clock.
pub(crate) struct World {
    pub(crate) gate: Gate,
    pub(crate) clock: Clock,
    pub(crate) url: String,
    pub(crate) directory: TempDir,
    _server: JoinSet<()>,
}

impl World {
    /// A new gate over an empty folder.
    pub(crate) async fn start() -> Self {
        // Late enough that every file of this test is older, so that the sweep can be tested by moving the clock.
        let clock = Clock::manual("2100-01-01T00:00:00Z".parse::<Time>().expect("a time"));
        Self::serve(tempfile::tempdir().expect("a folder"), clock).await
    }

    /// Another gate over the same folder, as after a restart of the server.
    pub(crate) async fn restart(self) -> Self {
        let Self { clock, directory, .. } = self;
        Self::serve(directory, clock).await
    }

    async fn serve(directory: TempDir, clock: Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let url = format!("http://{host}");
        let settings = GateSettings {
            registry_host: host,
            realm: format!("{url}/v2/token"),
            directory: directory.path().to_owned(),
            signing_key: KEY,
        };
        let gate = Gate::open(settings, clock.clone()).await.expect("the gate opens");
        let router = gate.router();
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self {
            gate,
            clock,
            url,
            directory,
            _server: server,
        }
    }

    /// A tenant that nobody used before.
    pub(crate) fn tenant(&self) -> TenantId {
        TenantId::new(self.clock.uuid())
    }

    /// A client that does not say who it is.
    pub(crate) fn anonymous(&self) -> Client {
        let http = reqwest::Client::builder()
            // Plain HTTP: reading the machine's certificates would take longer than most calls.
            .tls_certs_only([])
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build();
        Client {
            http: http.expect("a client"),
            url: self.url.clone(),
            authorization: None,
        }
    }

    /// A client with an access token that carries all that its credential allows.
    pub(crate) async fn client(&self, tenant: &TenantId, access: GateAccess) -> Client {
        let mut client = self.anonymous();
        let credential = self.gate.mint(tenant, access, 3600).0;
        let path = "/v2/token?scope=repository:systemprompt-images:pull,push,delete";
        let request = client
            .call(Method::GET, path)
            .basic_auth("systemprompt", Some(credential.expose()));
        let answer = client.send(request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let token = answer.json()["token"].as_str().expect("a token").to_owned();
        client.authorization = Some(format!("Bearer {token}"));
        client
    }

    /// Every file in the store, by its path, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect(self.directory.path(), self.directory.path(), &mut found);
        found.sort();
        found
    }
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => collect(root, &path, found),
            false => found.push(path.strip_prefix(root).expect("below it").display().to_string()),
        }
    }
}

/// Speaks to one gate as one caller.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) authorization: Option<String>,
}

impl Client {
    /// A request; a path without a leading slash is one of the repository.
    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let url = match path.starts_with('/') {
            true => format!("{}{path}", self.url),
            false => format!("{}{REPOSITORY}{path}", self.url),
        };
        let request = self.http.request(method, url);
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        }
    }

    /// Sends it and reads the whole answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.expect("the gate answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer {
            status,
            headers,
            body: response.bytes().await.expect("the whole body"),
        }
    }

    /// A request without a body.
    pub(crate) async fn ask(&self, method: Method, path: &str) -> Answer {
        self.send(self.call(method, path)).await
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path).await
    }

    /// `HEAD`.
    pub(crate) async fn head(&self, path: &str) -> Answer {
        self.ask(Method::HEAD, path).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path).await
    }

    /// Begins an upload; answers its location.
    pub(crate) async fn begin(&self) -> String {
        let answer = self.ask(Method::POST, "blobs/uploads/").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.header("location")
    }

    /// Pushes a blob by `POST` and `PUT`; answers its digest.
    pub(crate) async fn push_blob(&self, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let location = self.begin().await;
        let answer = self.finish(&location, &digest, bytes).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        digest
    }

    /// `PUT` of the last bytes of an upload.
    pub(crate) async fn finish(&self, location: &str, digest: &str, bytes: &[u8]) -> Answer {
        let request = self.call(Method::PUT, &format!("{location}?digest={digest}"));
        self.send(request.body(bytes.to_vec())).await
    }

    /// `PATCH`, streamed when there is no offset, else as a chunk that begins there.
    pub(crate) async fn patch(&self, location: &str, offset: Option<usize>, bytes: &[u8]) -> Answer {
        let mut request = self.call(Method::PATCH, location);
        if let Some(first) = offset {
            request = request.header(CONTENT_RANGE, format!("{first}-{}", first + bytes.len() - 1));
        }
        self.send(request.body(bytes.to_vec())).await
    }

    /// `PUT` of a manifest.
    pub(crate) async fn put_manifest(&self, reference: &str, media_type: &str, bytes: &[u8]) -> Answer {
        let request = self.call(Method::PUT, &format!("manifests/{reference}"));
        self.send(request.header("content-type", media_type).body(bytes.to_vec()))
            .await
    }

    /// Pushes a small image with a config and a layer of its own under `tag`; answers its parts.
    pub(crate) async fn push_image(&self, tag: &str, content: &str) -> Image {
        let config = self
            .push_blob(format!("{{\"architecture\": \"{content}\"}}").as_bytes())
            .await;
        let layer = self.push_blob(content.as_bytes()).await;
        let manifest = image_manifest(&config, &[(LAYER, &layer)]).to_string();
        let answer = self.put_manifest(tag, IMAGE, manifest.as_bytes()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        Image {
            digest: sha256(manifest.as_bytes()),
            layer,
            manifest,
        }
    }
}

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image that was pushed.
pub(crate) struct Image {
    pub(crate) digest: String,
    pub(crate) layer: String,
    pub(crate) manifest: String,
}

/// An image manifest; sizes are not what the gate looks at.
pub(crate) fn image_manifest(config: &str, layers: &[(&str, &str)]) -> Value {
    let layers: Vec<Value> = layers
        .iter()
        .map(|(media_type, digest)| serde_json::json!({"mediaType": media_type, "digest": digest, "size": 1}))
        .collect();
    let config_type = "application/vnd.oci.image.config.v1+json";
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": {"mediaType": config_type, "digest": config, "size": 1},
        "layers": layers,
    })
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// A header, empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> String {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("ascii").to_owned())
            .unwrap_or_default()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Status and code of an error.
    pub(crate) fn problem(&self) -> (u16, String) {
        let code = self.json()["errors"][0]["code"]
            .as_str()
            .expect("a code")
            .to_owned();
        (self.status, code)
    }
}

/// `sha256:…`.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// `sha512:…`.
pub(crate) fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex::encode(Sha512::digest(bytes)))
}

/// Bytes that are different for each `seed`.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}
