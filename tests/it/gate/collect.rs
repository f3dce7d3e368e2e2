//! The collector: what nothing names any more goes, and no push meets it.

use std::collections::BTreeSet;

use systemprompt::api::id::TenantId;
use systemprompt::api::registry::tenant_tag;
use systemprompt::server::registry::{Collected, GateAccess};

use crate::gate::harness::{Client, IMAGE, LAYER, World, image_manifest, sha256};

/// Longer than this test's pushes rest.
const REST: i64 = 60;

async fn collect(world: &World, tenant: &TenantId, keep: &[&str]) -> Collected {
    let keep: BTreeSet<String> = keep.iter().map(|digest| (*digest).to_owned()).collect();
    let collected = world.gate.collect(tenant, &keep, REST).await;
    collected.expect("it collects")
}

/// Pushes an image by its digest only, so that no tag names it.
async fn untagged(client: &Client, content: &str) -> String {
    let config = client
        .push_blob(format!("{{\"x\": \"{content}\"}}").as_bytes())
        .await;
    let layer = client.push_blob(content.as_bytes()).await;
    let manifest = image_manifest(&config, &[(LAYER, &layer)]).to_string();
    let digest = sha256(manifest.as_bytes());
    let answer = client.put_manifest(&digest, IMAGE, manifest.as_bytes()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    digest
}

#[tokio::test]
async fn what_is_kept_tagged_or_young_stays() {
    let world = World::start().await;
    let (tenant, other) = (world.tenant(), world.tenant());
    let client = world.client(&tenant, GateAccess::Push).await;
    let neighbour = world.client(&other, GateAccess::Push).await;
    let foreign = untagged(&neighbour, "dead").await;
    let kept = untagged(&client, "kept").await;
    let dead = untagged(&client, "dead").await;
    let tagged = client.push_image(&tenant_tag(&tenant), "tagged").await.digest;
    world.clock.advance_seconds(REST + 1);
    let young = untagged(&client, "young").await;
    let gone = collect(&world, &tenant, &[&kept]).await;
    assert_eq!((gone.manifests, gone.blobs), (1, 2));
    assert!(gone.bytes > 0);
    let reader = world.client(&tenant, GateAccess::Pull).await;
    for (digest, status) in [(&kept, 200), (&tagged, 200), (&young, 200), (&dead, 404)] {
        assert_eq!(
            reader.get(&format!("manifests/{digest}")).await.status,
            status,
            "{digest}"
        );
    }
    let layer = format!("blobs/{}", sha256(b"dead"));
    assert_eq!(reader.get(&layer).await.status, 404);
    let reader = world.client(&other, GateAccess::Pull).await;
    assert_eq!(reader.get(&format!("manifests/{foreign}")).await.status, 200);
    assert_eq!(reader.get(&layer).await.status, 200);
    assert_eq!(collect(&world, &tenant, &[&kept]).await, Collected::default());
}

#[tokio::test]
async fn what_two_images_share_goes_with_the_last_of_them() {
    let world = World::start().await;
    let tenant = world.tenant();
    let client = world.client(&tenant, GateAccess::Push).await;
    let shared = client.push_blob(b"shared").await;
    let mut digests = Vec::new();
    for name in ["one", "two"] {
        let config = client.push_blob(name.as_bytes()).await;
        let manifest = image_manifest(&config, &[(LAYER, &shared)]).to_string();
        digests.push(sha256(manifest.as_bytes()));
        let answer = client
            .put_manifest(&digests[digests.len() - 1], IMAGE, manifest.as_bytes())
            .await;
        assert_eq!(answer.status, 201);
    }
    world.clock.advance_seconds(REST + 1);
    let reader = world.client(&tenant, GateAccess::Pull).await;
    assert_eq!(collect(&world, &tenant, &[&digests[0]]).await.blobs, 1);
    assert_eq!(reader.head(&format!("blobs/{shared}")).await.status, 200);
    assert_eq!(collect(&world, &tenant, &[]).await.blobs, 2);
    assert_eq!(reader.head(&format!("blobs/{shared}")).await.status, 404);
}

#[tokio::test]
async fn an_index_keeps_its_images_and_an_image_keeps_what_speaks_of_it() {
    let world = World::start().await;
    let tenant = world.tenant();
    let client = world.client(&tenant, GateAccess::Push).await;
    let image = untagged(&client, "inside").await;
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": index_type,
        "manifests": [{"mediaType": IMAGE, "digest": image, "size": 1}],
    })
    .to_string();
    let top = sha256(index.as_bytes());
    assert_eq!(
        client
            .put_manifest(&top, index_type, index.as_bytes())
            .await
            .status,
        201
    );
    let config = client.push_blob(b"{}").await;
    let mut signature = image_manifest(&config, &[]);
    signature["subject"] = serde_json::json!({"mediaType": IMAGE, "digest": image, "size": 1});
    let signature = signature.to_string();
    let signed = sha256(signature.as_bytes());
    assert_eq!(
        client
            .put_manifest(&signed, IMAGE, signature.as_bytes())
            .await
            .status,
        201
    );
    world.clock.advance_seconds(REST + 1);
    assert_eq!(collect(&world, &tenant, &[&top]).await, Collected::default());
    let gone = collect(&world, &tenant, &[]).await;
    assert_eq!((gone.manifests, gone.blobs), (3, 3));
    let files = world.files();
    let left: Vec<_> = files
        .iter()
        .filter(|path| path.starts_with(tenant.as_str()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_push_under_way_keeps_what_it_has_sent_and_what_it_has_found() {
    let world = World::start().await;
    let tenant = world.tenant();
    let client = world.client(&tenant, GateAccess::Push).await;
    let layer = client.push_blob(b"of a push that was given up").await;
    world.clock.advance_seconds(REST + 1);
    // The client finds the layer, so it does not send it; it sends the configuration, and rests.
    assert_eq!(client.head(&format!("blobs/{layer}")).await.status, 200);
    let config = client.push_blob(b"{}").await;
    let upload = client.begin().await;
    client.patch(&upload, None, b"half a ").await;
    assert_eq!(collect(&world, &tenant, &[]).await, Collected::default());
    let rest = client.patch(&upload, Some(7), b"layer").await;
    assert_eq!(rest.status, 202, "{}", rest.text());
    let second = sha256(b"half a layer");
    assert_eq!(client.finish(&upload, &second, b"").await.status, 201);
    let manifest = image_manifest(&config, &[(LAYER, &layer), (LAYER, &second)]).to_string();
    let answer = client
        .put_manifest(&tenant_tag(&tenant), IMAGE, manifest.as_bytes())
        .await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    world.clock.advance_seconds(REST + 1);
    assert_eq!(collect(&world, &tenant, &[]).await, Collected::default());
    // Who only reads keeps nothing.
    let lone = client.push_blob(b"lone").await;
    world.clock.advance_seconds(REST + 1);
    let reader = world.client(&tenant, GateAccess::Pull).await;
    assert_eq!(reader.head(&format!("blobs/{lone}")).await.status, 200);
    assert_eq!(collect(&world, &tenant, &[]).await.blobs, 1);
}

/// Every round everything is old again, and a push of the same content and two collectors run at once. Whatever the
/// push finds it does not send; its manifest must always be taken, and its image must then be whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_and_collectors_may_run_at_once() {
    let world = World::start().await;
    let tenant = world.tenant();
    let (mut found, mut sent) = (0, 0);
    for round in 0..150 {
        let client = world.client(&tenant, GateAccess::Push).await;
        let push = async {
            let mut parts = Vec::new();
            for bytes in [&b"{}"[..], b"first layer", b"second layer"] {
                let digest = sha256(bytes);
                if client.head(&format!("blobs/{digest}")).await.status == 200 {
                    found += 1;
                } else {
                    sent += 1;
                    client.push_blob(bytes).await;
                }
                parts.push(digest);
            }
            let manifest = image_manifest(&parts[0], &[(LAYER, &parts[1]), (LAYER, &parts[2])]).to_string();
            let digest = sha256(manifest.as_bytes());
            let answer = client.put_manifest(&digest, IMAGE, manifest.as_bytes()).await;
            assert_eq!(answer.status, 201, "round {round}: {}", answer.text());
            (digest, parts)
        };
        let sweep = async || collect(&world, &tenant, &[]).await;
        let ((digest, parts), first, second) = tokio::join!(push, sweep(), sweep());
        let reader = world.client(&tenant, GateAccess::Pull).await;
        assert_eq!(
            reader.head(&format!("manifests/{digest}")).await.status,
            200,
            "round {round}"
        );
        for part in parts {
            let answer = reader.head(&format!("blobs/{part}")).await;
            assert_eq!(answer.status, 200, "round {round}: {part} {first:?} {second:?}");
        }
        world.clock.advance_seconds(REST + 1);
    }
    assert!(
        found > 0 && sent > 0,
        "both ways were taken: found {found}, sent {sent}"
    );
}
