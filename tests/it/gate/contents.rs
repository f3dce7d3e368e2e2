//! Contents: images, indexes, artifacts and what speaks of them, each pushed, listed, read and removed.

use serde_json::{Value, json};

use crate::gate::blobs;
use crate::gate::conformance::{Run, expect};
use crate::gate::harness::{IMAGE, LAYER, pattern, sha256, sha512};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const KIND: &str = "application/vnd.example.kind";

struct Manifest {
    bytes: Vec<u8>,
    media_type: &'static str,
    digest: String,
    tag: Option<&'static str>,
    subject: Option<String>,
}

/// What one case pushes.
struct Contents {
    name: &'static str,
    digest: fn(&[u8]) -> String,
    blobs: Vec<(String, Vec<u8>)>,
    manifests: Vec<Manifest>,
}

impl Contents {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            digest: sha256,
            blobs: Vec::new(),
            manifests: Vec::new(),
        }
    }

    fn descriptor(&self, media_type: &str, bytes: &[u8]) -> Value {
        json!({"mediaType": media_type, "digest": (self.digest)(bytes), "size": bytes.len()})
    }

    fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let descriptor = self.descriptor(media_type, &bytes);
        self.blobs.push(((self.digest)(&bytes), bytes));
        descriptor
    }

    fn image(&mut self, tag: Option<&'static str>, edit: impl FnOnce(&mut Value)) -> Value {
        let seed = (self.blobs.len() as u64 + 1) * 1000 + self.name.len() as u64;
        let config = self.blob(
            CONFIG,
            format!("{{\"architecture\": \"amd64\", \"n\": {seed}}}").into_bytes(),
        );
        let layers = [
            self.blob(LAYER, pattern(seed, 900)),
            self.blob(LAYER, pattern(seed + 1, 1100)),
        ];
        let mut manifest =
            json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers});
        edit(&mut manifest);
        self.manifest(IMAGE, tag, &manifest)
    }

    fn index(
        &mut self,
        tag: Option<&'static str>,
        children: Vec<Value>,
        edit: impl FnOnce(&mut Value),
    ) -> Value {
        let mut manifest = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
        edit(&mut manifest);
        self.manifest(INDEX, tag, &manifest)
    }

    fn manifest(&mut self, media_type: &'static str, tag: Option<&'static str>, manifest: &Value) -> Value {
        // With white space that no serializer of the gate would write: it must come back as it is.
        let bytes = format!("\n {manifest:#}\t\n").into_bytes();
        let subject = manifest["subject"]["digest"].as_str().map(str::to_owned);
        let descriptor = self.descriptor(media_type, &bytes);
        self.manifests.push(Manifest {
            digest: (self.digest)(&bytes),
            bytes,
            media_type,
            tag,
            subject,
        });
        descriptor
    }
}

fn nothing(_: &mut Value) {}

fn artifact(manifest: &mut Value) {
    manifest["artifactType"] = json!(KIND);
}

/// All contents, one after the other.
pub(crate) async fn all(run: &mut Run) {
    for contents in images().into_iter().chain(indexes()).chain(subjects()) {
        push(run, &contents).await;
        list(run, &contents).await;
        read(run, &contents).await;
        referrers(run, &contents).await;
        remove(run, &contents).await;
    }
    refused(run).await;
}

fn images() -> Vec<Contents> {
    let one = |name: &'static str, edit: &dyn Fn(&mut Value)| {
        let mut contents = Contents::new(name);
        contents.image(Some(name), edit);
        contents
    };
    let mut sha512s = Contents::new("sha512");
    sha512s.digest = sha512;
    sha512s.image(None, nothing);
    let mut bare = Contents::new("artifact-without-layers");
    let empty = bare.blob(EMPTY, b"{}".to_vec());
    let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "artifactType": KIND, "config": empty, "layers": [empty]});
    bare.manifest(IMAGE, Some("bare"), &manifest);
    let foreign = |manifest: &mut Value| {
        let media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
        let urls = ["https://store.example.com/layer"];
        let layer = json!({"mediaType": media_type, "digest": sha256(b"elsewhere"), "size": 9, "urls": urls});
        manifest["layers"].as_array_mut().expect("layers").push(layer);
    };
    vec![
        one("image", &nothing),
        one("image-uncompressed", &|manifest| {
            manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
        }),
        one("large-manifest", &|manifest| {
            let many = (0..400).map(|n| (format!("n{n}"), json!("A".repeat(10_000))));
            manifest["annotations"] = Value::Object(many.collect());
        }),
        one("no-layers", &|manifest| manifest["layers"] = json!([])),
        one("data-field", &|manifest| {
            manifest["config"]["data"] = json!("e30=")
        }),
        one("custom-fields", &|manifest| {
            manifest["org.example.field"] = json!({"any": ["thing", 1, null]})
        }),
        one("non-distributable-layers", &foreign),
        one("artifact", &artifact),
        bare,
        sha512s,
    ]
}

fn indexes() -> Vec<Contents> {
    let mut index = Contents::new("index");
    let children = vec![index.image(None, nothing), index.image(None, nothing)];
    index.index(Some("index"), children, nothing);
    let mut nested = Contents::new("nested-index");
    let mut inner = Vec::new();
    for n in 0..2 {
        let children = vec![nested.image(None, nothing)];
        inner.push(nested.index(None, children, |manifest| {
            manifest["annotations"] = json!({"n": n.to_string()})
        }));
    }
    nested.index(Some("nested"), inner, nothing);
    let mut empty = Contents::new("empty-index");
    empty.index(Some("empty"), Vec::new(), nothing);
    let mut artifacts = Contents::new("artifact-index");
    let children = vec![artifacts.image(None, artifact)];
    artifacts.index(Some("artifacts"), children, artifact);
    vec![index, nested, empty, artifacts]
}

fn subjects() -> Vec<Contents> {
    let mut speaking = Contents::new("artifacts-with-subject");
    let subject = speaking.image(Some("image"), nothing);
    speaking.image(None, |manifest| manifest["subject"] = subject.clone());
    speaking.image(Some("tagged"), |manifest| {
        artifact(manifest);
        manifest["subject"] = subject.clone();
        manifest["annotations"] = json!({"org.example.note": "hello"});
    });
    let mut list = Contents::new("index-with-subject");
    let subject = list.index(Some("index"), Vec::new(), nothing);
    let children = vec![list.image(None, nothing)];
    list.index(Some("tagged"), children, |manifest| {
        artifact(manifest);
        manifest["subject"] = subject.clone();
    });
    let mut missing = Contents::new("missing-subject");
    let subject = json!({"mediaType": IMAGE, "digest": sha256(b"not there"), "size": 9});
    missing.image(Some("tagged"), |manifest| {
        artifact(manifest);
        manifest["subject"] = subject;
    });
    vec![speaking, list, missing]
}

async fn push(run: &mut Run, contents: &Contents) {
    let case = format!("{}/push", contents.name);
    for (digest, bytes) in &contents.blobs {
        blobs::push(run, &case, digest, bytes).await;
    }
    for manifest in &contents.manifests {
        let references = [
            Some(("manifest-by-digest", manifest.digest.as_str())),
            manifest.tag.map(|tag| ("manifest-by-tag", tag)),
        ];
        for (name, reference) in references.into_iter().flatten() {
            let answer = run
                .client
                .put_manifest(reference, manifest.media_type, &manifest.bytes)
                .await;
            let location = format!("/v2/systemprompt-images/manifests/{}", manifest.digest);
            let subject = manifest.subject.clone().unwrap_or_default();
            let result = expect("status", answer.status, 201, &answer)
                .and(expect("location", answer.header("location"), location, &answer))
                .and(expect(
                    "digest",
                    answer.header("docker-content-digest"),
                    manifest.digest.clone(),
                    &answer,
                ))
                .and(expect("subject", answer.header("oci-subject"), subject, &answer));
            run.note(&format!("{case}/{name}"), result);
        }
    }
}

async fn list(run: &mut Run, contents: &Contents) {
    let answer = run.client.get("tags/list").await;
    let mut tags: Vec<&str> = contents
        .manifests
        .iter()
        .filter_map(|manifest| manifest.tag)
        .collect();
    tags.sort_unstable();
    let expected = json!({"name": "systemprompt-images", "tags": tags});
    run.note(
        &format!("{}/tag-list", contents.name),
        expect("list", answer.json(), expected, &answer),
    );
}

async fn read(run: &mut Run, contents: &Contents) {
    let (head, pull) = (
        format!("{}/head", contents.name),
        format!("{}/pull", contents.name),
    );
    for (digest, bytes) in &contents.blobs {
        blobs::read(run, &head, &pull, (digest, bytes)).await;
    }
    for manifest in &contents.manifests {
        let references = [
            Some(("by-digest", manifest.digest.as_str())),
            manifest.tag.map(|tag| ("by-tag", tag)),
        ];
        for (name, reference) in references.into_iter().flatten() {
            let path = format!("manifests/{reference}");
            let length = manifest.bytes.len().to_string();
            for (method, with_body) in [("manifest-head-", false), ("manifest-", true)] {
                let answer = if with_body {
                    run.client.get(&path).await
                } else {
                    run.client.head(&path).await
                };
                let body: &[u8] = if with_body { &manifest.bytes } else { &[] };
                let result = expect("status", answer.status, 200, &answer)
                    .and(expect(
                        "type",
                        answer.header("content-type"),
                        manifest.media_type.to_owned(),
                        &answer,
                    ))
                    .and(expect(
                        "length",
                        answer.header("content-length"),
                        length.clone(),
                        &answer,
                    ))
                    .and(expect(
                        "digest",
                        answer.header("docker-content-digest"),
                        manifest.digest.clone(),
                        &answer,
                    ))
                    .and(expect(
                        "sameness of the bytes",
                        answer.body == body,
                        true,
                        &answer,
                    ));
                let case = if with_body { &pull } else { &head };
                run.note(&format!("{case}/{method}{name}"), result);
            }
        }
    }
}

async fn referrers(run: &mut Run, contents: &Contents) {
    let mut subjects: Vec<&String> = contents
        .manifests
        .iter()
        .filter_map(|manifest| manifest.subject.as_ref())
        .collect();
    subjects.dedup();
    for subject in subjects {
        let expected: Vec<Value> = contents
            .manifests
            .iter()
            .filter(|manifest| manifest.subject.as_ref() == Some(subject))
            .map(|manifest| {
                let said: Value = serde_json::from_slice(&manifest.bytes).expect("JSON");
                let kind = said["artifactType"].as_str().unwrap_or(CONFIG);
                let size = manifest.bytes.len();
                let mut line =
                    json!({"mediaType": manifest.media_type, "digest": manifest.digest, "size": size});
                line["artifactType"] = json!(kind);
                if !said["annotations"].is_null() {
                    line["annotations"] = said["annotations"].clone();
                }
                line
            })
            .collect();
        for filter in [
            "",
            "?artifactType=application%2Fvnd.example.kind",
            "?artifactType=other",
        ] {
            let answer = run.client.get(&format!("referrers/{subject}{filter}")).await;
            let wanted = |line: &&Value| match filter {
                "" => true,
                "?artifactType=other" => false,
                _ => line["artifactType"] == KIND,
            };
            let mut expected: Vec<Value> = expected.iter().filter(wanted).cloned().collect();
            expected.sort_by_key(|line| line["digest"].to_string());
            let applied = if filter.is_empty() { "" } else { "artifactType" };
            let result = expect("status", answer.status, 200, &answer)
                .and(expect(
                    "type",
                    answer.header("content-type"),
                    INDEX.to_owned(),
                    &answer,
                ))
                .and(expect(
                    "filter",
                    answer.header("oci-filters-applied"),
                    applied.to_owned(),
                    &answer,
                ))
                .and(expect(
                    "list",
                    &answer.json()["manifests"],
                    &json!(expected),
                    &answer,
                ));
            run.note(&format!("{}/referrers", contents.name), result);
        }
    }
}

async fn remove(run: &mut Run, contents: &Contents) {
    let case = format!("{}/delete", contents.name);
    for manifest in contents.manifests.iter().rev() {
        let references = [
            manifest.tag.map(|tag| ("tag-delete", tag)),
            Some(("manifest-delete", manifest.digest.as_str())),
        ];
        for (name, reference) in references.into_iter().flatten() {
            let answer = run.client.delete(&format!("manifests/{reference}")).await;
            let result = expect("status", answer.status, 202, &answer);
            let answer = run.client.head(&format!("manifests/{reference}")).await;
            let gone = expect("status after the removal", answer.status, 404, &answer);
            run.note(&format!("{case}/{name}"), result.and(gone));
        }
    }
    for (digest, _) in &contents.blobs {
        blobs::remove(run, &case, digest, 202).await;
    }
}

/// Contents whose manifest is refused: what is left of them is there, they are not.
async fn refused(run: &mut Run) {
    for name in ["bad-digest-image", "invalid-digest-format"] {
        let mut contents = Contents::new(name);
        contents.image(None, nothing);
        let setup = if name == "bad-digest-image" {
            format!("{name}/push")
        } else {
            name.to_owned()
        };
        for (digest, bytes) in &contents.blobs {
            blobs::push(run, &setup, digest, bytes).await;
            blobs::read(
                run,
                &format!("{name}/head"),
                &format!("{name}/pull"),
                (digest, bytes),
            )
            .await;
        }
        let wrong = sha256(b"another manifest");
        let answer = run
            .client
            .put_manifest(&wrong, IMAGE, &contents.manifests[0].bytes)
            .await;
        let problem = expect(
            "problem",
            answer.problem(),
            (400, "DIGEST_INVALID".to_owned()),
            &answer,
        );
        run.note(&format!("{name}/push/manifest-by-digest"), problem);
        contents.manifests.clear();
        list(run, &contents).await;
        let answer = run.client.delete(&format!("manifests/{wrong}")).await;
        run.note(
            &format!("{name}/delete/manifest-delete"),
            expect("status", answer.status, 404, &answer),
        );
        remove(run, &contents).await;
    }
}
