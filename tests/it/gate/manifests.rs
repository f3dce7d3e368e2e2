//! Manifests: what is taken and what is refused; tags and their pages.

use serde_json::{Value, json};
use systemprompt::server::registry::GateAccess;

use crate::gate::harness::{Client, IMAGE, LAYER, World, image_manifest, sha256};

async fn manager() -> (World, Client) {
    let world = World::start().await;
    let client = world.client(&world.tenant(), GateAccess::Manage).await;
    (world, client)
}

#[tokio::test]
async fn a_manifest_has_four_mebibytes_at_most() {
    let (_world, client) = manager().await;
    let config = client.push_blob(b"{}").await;
    let bare = image_manifest(&config, &[]).to_string();
    for (length, status) in [(4 * 1024 * 1024, 201), (4 * 1024 * 1024 + 1, 413)] {
        let bytes = format!("{bare}{}", " ".repeat(length - bare.len()));
        assert_eq!(
            client.put_manifest("big", IMAGE, bytes.as_bytes()).await.status,
            status,
            "{length}"
        );
        let streamed = reqwest::Body::wrap_stream(tokio_stream::iter([Ok::<_, std::io::Error>(bytes)]));
        let request = client
            .call(reqwest::Method::PUT, "manifests/big")
            .header("content-type", IMAGE);
        assert_eq!(
            client.send(request.body(streamed)).await.status,
            status,
            "{length}"
        );
    }
    assert_eq!(client.get("manifests/big").await.body.len(), 4 * 1024 * 1024);
}

#[tokio::test]
async fn what_is_no_manifest_is_refused() {
    let (world, client) = manager().await;
    let config = client.push_blob(b"{}").await;
    let good = image_manifest(&config, &[]);
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut manifest = good.clone();
        edit(&mut manifest);
        manifest.to_string()
    };
    let docker_v1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let before = world.files();
    for (media_type, text) in [
        (IMAGE, String::new()),
        (IMAGE, "no JSON".to_owned()),
        (IMAGE, "[]".to_owned()),
        (IMAGE, edited(&|manifest| manifest["schemaVersion"] = json!(1))),
        (IMAGE, edited(&|manifest| manifest["layers"] = json!("x"))),
        ("application/vnd.oci.image.index.v1+json", good.to_string()),
        ("", edited(&|manifest| manifest["mediaType"] = Value::Null)),
        (
            docker_v1,
            edited(&|manifest| manifest["mediaType"] = json!(docker_v1)),
        ),
        (
            "text/x\u{e9}",
            edited(&|manifest| manifest["mediaType"] = Value::Null),
        ),
    ] {
        let answer = client.put_manifest("tag", media_type, text.as_bytes()).await;
        assert_eq!(
            answer.problem(),
            (400, "MANIFEST_INVALID".to_owned()),
            "{media_type} {text}"
        );
    }
    let malformed = edited(&|manifest| manifest["config"]["digest"] = json!("sha256:../../x"));
    let answer = client.put_manifest("tag", IMAGE, malformed.as_bytes()).await;
    assert_eq!(answer.problem(), (400, "DIGEST_INVALID".to_owned()));
    for tag in ["-x", ".x", "a%20b", &"a".repeat(129)] {
        let answer = client.put_manifest(tag, IMAGE, good.to_string().as_bytes()).await;
        assert_eq!(answer.problem(), (400, "MANIFEST_INVALID".to_owned()), "{tag}");
    }
    assert_eq!(world.files(), before);
}

#[tokio::test]
async fn the_media_type_is_what_was_pushed_without_parameters() {
    let (_world, client) = manager().await;
    let config = client.push_blob(b"{}").await;
    let bytes = image_manifest(&config, &[]).to_string();
    for sent in [
        IMAGE,
        "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
        "",
    ] {
        assert_eq!(
            client.put_manifest("tag", sent, bytes.as_bytes()).await.status,
            201,
            "{sent}"
        );
        assert_eq!(
            client.get("manifests/tag").await.header("content-type"),
            IMAGE,
            "{sent}"
        );
    }
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let bytes = json!({
        "schemaVersion": 2,
        "mediaType": docker,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": config, "size": 2},
        "layers": [],
    });
    assert_eq!(
        client
            .put_manifest("tag", docker, bytes.to_string().as_bytes())
            .await
            .status,
        201
    );
    let answer = client.get("manifests/tag").await;
    assert_eq!(
        (answer.header("content-type"), answer.text()),
        (docker.to_owned(), bytes.to_string())
    );
}

#[tokio::test]
async fn everything_that_a_manifest_names_must_be_there_but_foreign_layers() {
    let (_world, client) = manager().await;
    let config = client.push_blob(b"{}").await;
    let absent = sha256(b"absent");
    let refused = [
        image_manifest(&absent, &[]),
        image_manifest(&config, &[(LAYER, &absent)]),
    ];
    for manifest in refused {
        let answer = client
            .put_manifest("tag", IMAGE, manifest.to_string().as_bytes())
            .await;
        assert_eq!(answer.problem(), (404, "MANIFEST_BLOB_UNKNOWN".to_owned()));
        assert!(answer.text().contains(&absent), "it names what is missing");
    }
    for layer in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        let manifest = image_manifest(&config, &[(layer, &absent)]).to_string();
        assert_eq!(
            client
                .put_manifest("tag", IMAGE, manifest.as_bytes())
                .await
                .status,
            201,
            "{layer}"
        );
    }
}

#[tokio::test]
async fn tags_come_in_pages_in_lexical_order() {
    let (_world, client) = manager().await;
    let config = client.push_blob(b"{}").await;
    let manifest = image_manifest(&config, &[]).to_string();
    for tag in ["b", "a10", "C", "a2", "_x"] {
        assert_eq!(
            client.put_manifest(tag, IMAGE, manifest.as_bytes()).await.status,
            201
        );
    }
    let next =
        |n: &str, last: &str| format!("</v2/systemprompt-images/tags/list?n={n}&last={last}>; rel=\"next\"");
    for (query, tags, link) in [
        ("", json!(["C", "_x", "a10", "a2", "b"]), String::new()),
        ("?n=2", json!(["C", "_x"]), next("2", "_x")),
        ("?n=2&last=_x", json!(["a10", "a2"]), next("2", "a2")),
        ("?n=2&last=a2", json!(["b"]), String::new()),
        ("?n=5", json!(["C", "_x", "a10", "a2", "b"]), String::new()),
        ("?n=99", json!(["C", "_x", "a10", "a2", "b"]), String::new()),
        ("?n=0", json!([]), String::new()),
        ("?last=a1", json!(["a10", "a2", "b"]), String::new()),
        ("?last=b", json!([]), String::new()),
    ] {
        let answer = client.get(&format!("tags/list{query}")).await;
        assert_eq!(
            answer.json(),
            json!({"name": "systemprompt-images", "tags": tags}),
            "{query}"
        );
        assert_eq!(answer.header("link"), link, "{query}");
    }
    assert_eq!(client.get("tags/list?n=x").await.status, 400);
    assert_eq!(client.get("tags/list?n=-1").await.status, 400);
}

#[tokio::test]
async fn a_tag_moves_and_the_old_manifest_stays() {
    let (_world, client) = manager().await;
    let (old, new) = (
        client.push_image("tag", "old").await,
        client.push_image("tag", "new").await,
    );
    assert_eq!(client.get("manifests/tag").await.text(), new.manifest);
    assert_eq!(
        client.get(&format!("manifests/{}", old.digest)).await.text(),
        old.manifest
    );
    assert_eq!(client.delete("manifests/tag").await.status, 202);
    assert_eq!(client.get(&format!("manifests/{}", new.digest)).await.status, 200);
    client.push_image("tag", "new").await;
    assert_eq!(
        client.delete(&format!("manifests/{}", old.digest)).await.status,
        202
    );
    assert_eq!(client.get("manifests/tag").await.text(), new.manifest);
    assert_eq!(
        client.delete(&format!("manifests/{}", new.digest)).await.status,
        202
    );
    assert_eq!(
        client.get("manifests/tag").await.problem(),
        (404, "MANIFEST_UNKNOWN".to_owned())
    );
    assert_eq!(client.get("tags/list").await.json()["tags"], json!([]));
    assert_eq!(
        client.delete("manifests/tag").await.problem(),
        (404, "MANIFEST_UNKNOWN".to_owned())
    );
}
