//! Nothing of anybody else can be seen: what is foreign answers, byte for byte, as what was never there.

use reqwest::Method;
use reqwest::header::RANGE;
use systemprompt::api::registry::tenant_tag;
use systemprompt::server::registry::GateAccess;

use crate::gate::harness::{Answer, Client, IMAGE, World, image_manifest, sha256};

/// What a client can tell two answers apart by, with the names in it made the same.
fn seen(answer: &Answer, names: &[(&str, &str)]) -> (u16, Vec<(String, String)>, String) {
    let plain = |text: &str| {
        names
            .iter()
            .fold(text.to_owned(), |text, (name, word)| text.replace(name, word))
    };
    let mut headers: Vec<(String, String)> = answer
        .headers
        .iter()
        .filter(|(name, _)| *name != "date")
        .map(|(name, value)| (name.to_string(), plain(value.to_str().expect("ascii"))))
        .collect();
    headers.sort();
    (answer.status, headers, plain(&answer.text()))
}

async fn probe(client: &Client, method: &Method, path: &str, range: bool) -> Answer {
    let mut request = client.call(method.clone(), path);
    if range {
        request = request.header(RANGE, "bytes=0-1");
    }
    client.send(request).await
}

/// Asks for the foreign thing and for an absent one in its place; both must look the same, and like `status`.
async fn same(client: &Client, (method, path): (Method, &str), (foreign, absent): (&str, &str), status: u16) {
    for range in [false, true] {
        let there = probe(client, &method, &path.replace("{}", foreign), range).await;
        let nowhere = probe(client, &method, &path.replace("{}", absent), range).await;
        let what = format!("{method} {path}");
        assert_eq!(there.status, status, "{what}: {}", there.text());
        // A new upload has an id of its own in each answer.
        let (ids, others) = (
            there.header("docker-upload-uuid"),
            nowhere.header("docker-upload-uuid"),
        );
        let named = |id: &'static str| if id.is_empty() { "no id at all" } else { id };
        let (ids, others) = (named(ids.leak()), named(others.leak()));
        assert_eq!(
            seen(&there, &[(foreign, "NAME"), (ids, "ID")]),
            seen(&nowhere, &[(absent, "NAME"), (others, "ID")]),
            "{what}"
        );
    }
}

#[tokio::test]
async fn by_no_verb_does_what_is_foreign_look_other_than_what_is_absent() {
    let world = World::start().await;
    let (owner, stranger) = (world.tenant(), world.tenant());
    let own = world.client(&owner, GateAccess::Push).await;
    let image = own.push_image(&tenant_tag(&owner), "the owner's layer").await;
    let upload = own.begin().await;
    own.patch(&upload, None, b"the owner's bytes").await;
    let upload = upload.rsplit_once('/').expect("an id").1.to_owned();
    let before = world.files();
    let (no_digest, no_upload) = (sha256(b"never pushed"), "0".repeat(32));
    let absent_tag = tenant_tag(&world.tenant());
    for access in [GateAccess::Pull, GateAccess::Push, GateAccess::Manage] {
        let client = world.client(&stranger, access).await;
        let removes = if access == GateAccess::Manage { 404 } else { 403 };
        let uploads = if access == GateAccess::Pull { 403 } else { 404 };
        let begins = if access == GateAccess::Pull { 403 } else { 202 };
        let blob = (image.layer.as_str(), no_digest.as_str());
        let manifest = (image.digest.as_str(), no_digest.as_str());
        let tag = (&*tenant_tag(&owner), absent_tag.as_str());
        let id = (upload.as_str(), no_upload.as_str());
        for (method, path, names, status) in [
            (Method::GET, "blobs/{}", blob, 404),
            (Method::HEAD, "blobs/{}", blob, 404),
            (Method::DELETE, "blobs/{}", blob, removes),
            (Method::GET, "blobs/{}", manifest, 404),
            (Method::GET, "manifests/{}", manifest, 404),
            (Method::HEAD, "manifests/{}", manifest, 404),
            (Method::DELETE, "manifests/{}", manifest, removes),
            (Method::GET, "manifests/{}", tag, 404),
            (Method::HEAD, "manifests/{}", tag, 404),
            (Method::DELETE, "manifests/{}", tag, removes),
            (Method::GET, "referrers/{}", manifest, 200),
            (Method::GET, "tags/list?last={}", tag, 200),
            (Method::GET, "blobs/uploads/{}", id, uploads),
            (Method::PATCH, "blobs/uploads/{}", id, uploads),
            (
                Method::PUT,
                &format!("blobs/uploads/{{}}?digest={no_digest}"),
                id,
                uploads,
            ),
            (Method::DELETE, "blobs/uploads/{}", id, uploads),
            (
                Method::POST,
                "blobs/uploads/?mount={}&from=systemprompt-images",
                blob,
                begins,
            ),
            (Method::POST, "blobs/uploads/?mount={}", blob, begins),
            (Method::POST, "blobs/uploads/?mount={}&from=other", blob, begins),
        ] {
            same(&client, (method, path), names, status).await;
        }
    }
    let left: Vec<String> = world
        .files()
        .into_iter()
        .filter(|path| path.starts_with(owner.as_str()))
        .collect();
    let before: Vec<String> = before
        .into_iter()
        .filter(|path| path.starts_with(owner.as_str()))
        .collect();
    assert_eq!(left, before, "nothing of the owner's was touched");
    assert_eq!(
        own.get(&format!("blobs/{}", image.layer)).await.text(),
        "the owner's layer"
    );
}

#[tokio::test]
async fn a_manifest_cannot_name_foreign_content() {
    let world = World::start().await;
    let (owner, stranger) = (world.tenant(), world.tenant());
    let image = world
        .client(&owner, GateAccess::Push)
        .await
        .push_image(&tenant_tag(&owner), "the owner's layer")
        .await;
    let client = world.client(&stranger, GateAccess::Push).await;
    let config = client.push_blob(b"{}").await;
    let tag = tenant_tag(&stranger);
    let index = "application/vnd.oci.image.index.v1+json";
    let of_manifest = |digest: &str| {
        let child = serde_json::json!({"mediaType": IMAGE, "digest": digest, "size": 1});
        serde_json::json!({"schemaVersion": 2, "mediaType": index, "manifests": [child]}).to_string()
    };
    let absent = sha256(b"never pushed");
    for (media_type, foreign, nowhere) in [
        (
            IMAGE,
            image_manifest(&config, &[("layer", &image.layer)]).to_string(),
            image_manifest(&config, &[("layer", &absent)]).to_string(),
        ),
        (
            IMAGE,
            image_manifest(&image.layer, &[]).to_string(),
            image_manifest(&absent, &[]).to_string(),
        ),
        (index, of_manifest(&image.digest), of_manifest(&absent)),
    ] {
        let there = client.put_manifest(&tag, media_type, foreign.as_bytes()).await;
        assert_eq!(there.problem(), (404, "MANIFEST_BLOB_UNKNOWN".to_owned()));
        let nowhere = client.put_manifest(&tag, media_type, nowhere.as_bytes()).await;
        let names = [
            (image.layer.as_str(), "NAME"),
            (image.digest.as_str(), "NAME"),
            (absent.as_str(), "NAME"),
        ];
        assert_eq!(seen(&there, &names), seen(&nowhere, &names));
    }
    assert_eq!(
        client.get("tags/list").await.json()["tags"],
        serde_json::json!([])
    );
}

#[tokio::test]
async fn the_same_content_is_each_tenants_own() {
    let world = World::start().await;
    let (one, two) = (world.tenant(), world.tenant());
    let first = world.client(&one, GateAccess::Manage).await;
    let second = world.client(&two, GateAccess::Manage).await;
    let digest = first.push_blob(b"shared").await;
    assert_eq!(second.push_blob(b"shared").await, digest);
    assert_eq!(first.delete(&format!("blobs/{digest}")).await.status, 202);
    assert_eq!(second.get(&format!("blobs/{digest}")).await.text(), "shared");
    second.push_image(&tenant_tag(&two), "two").await;
    assert_eq!(first.get("tags/list").await.json()["tags"], serde_json::json!([]));
}

#[tokio::test]
async fn paths_that_go_up_lead_nowhere() {
    let world = World::start().await;
    let (owner, stranger) = (world.tenant(), world.tenant());
    let image = world
        .client(&owner, GateAccess::Push)
        .await
        .push_image(&tenant_tag(&owner), "secret")
        .await;
    let client = world.client(&stranger, GateAccess::Manage).await;
    let hex = image.layer.trim_start_matches("sha256:");
    let up = format!("..%2F..%2F{owner}%2Fblobs%2Fsha256%2F{hex}");
    for path in [
        format!("blobs/{up}"),
        format!("blobs/sha256:{up}"),
        format!("manifests/{up}"),
        format!("manifests/sha256:{up}"),
        format!("blobs/uploads/{up}"),
        format!("referrers/{up}"),
        format!("manifests/..%2F..%2F{owner}%2Ftags%2F{}", tenant_tag(&owner)),
        "manifests/..".to_owned(),
        "manifests/%2e%2e".to_owned(),
        "manifests/a%00b".to_owned(),
    ] {
        for method in [Method::GET, Method::HEAD, Method::DELETE] {
            let answer = client.ask(method.clone(), &path).await;
            assert!(
                (400..500).contains(&answer.status),
                "{method} {path}: {}",
                answer.status
            );
        }
    }
    assert_eq!(
        world
            .files()
            .iter()
            .filter(|path| path.starts_with(owner.as_str()))
            .count(),
        4
    );
}
