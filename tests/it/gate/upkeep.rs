//! What the server does with the gate: look up, remove a tenant, sweep.

use systemprompt::api::registry::tenant_tag;
use systemprompt::server::registry::{GateAccess, ManifestInfo};

use crate::gate::harness::{IMAGE, World, sha256};

#[tokio::test]
async fn tags_and_digests_are_looked_up() {
    let world = World::start().await;
    let (tenant, other) = (world.tenant(), world.tenant());
    assert_eq!(world.gate.resolve_tag(&tenant).await.expect("it reads"), None);
    let image = world
        .client(&tenant, GateAccess::Push)
        .await
        .push_image(&tenant_tag(&tenant), "content")
        .await;
    let info = Some(ManifestInfo {
        digest: image.digest.clone(),
        // The manifest, and a config and a layer that it says have one byte each.
        size_bytes: image.manifest.len() as u64 + 2,
        media_type: IMAGE.to_owned(),
    });
    assert_eq!(world.gate.resolve_tag(&tenant).await.expect("it reads"), info);
    assert_eq!(
        world
            .gate
            .manifest(&tenant, &image.digest)
            .await
            .expect("it reads"),
        info
    );
    assert_eq!(world.gate.resolve_tag(&other).await.expect("it reads"), None);
    for (tenant, digest) in [
        (&other, image.digest.as_str()),
        (&tenant, &image.layer),
        (&tenant, &sha256(b"never pushed")),
        (&tenant, "../x"),
    ] {
        assert_eq!(
            world.gate.manifest(tenant, digest).await.expect("it reads"),
            None,
            "{digest}"
        );
    }
    world.gate.ping().await.expect("it can be written");
}

#[tokio::test]
async fn a_removed_tenant_leaves_nothing_and_its_credentials_are_dead() {
    let world = World::start().await;
    let (tenant, other) = (world.tenant(), world.tenant());
    let client = world.client(&tenant, GateAccess::Push).await;
    client.push_image(&tenant_tag(&tenant), "content").await;
    let upload = client.begin().await;
    let neighbour = world.client(&other, GateAccess::Push).await;
    let kept = neighbour.push_image(&tenant_tag(&other), "kept").await;
    world.clock.advance_seconds(1);
    for _ in 0..2 {
        world.gate.remove_tenant(&tenant).await.expect("it removes");
    }
    let left = |world: &World| world.files().iter().any(|path| path.starts_with(tenant.as_str()));
    assert!(!left(&world), "{:?}", world.files());
    assert_eq!(world.gate.resolve_tag(&tenant).await.expect("it reads"), None);
    let world = world.restart().await;
    let mut late = world.anonymous();
    late.authorization = client.authorization.clone();
    assert_eq!(late.patch(&upload, None, b"late").await.status, 401);
    assert_eq!(
        late.ask(reqwest::Method::POST, "blobs/uploads/").await.status,
        401
    );
    assert!(!left(&world), "{:?}", world.files());
    let again = world
        .gate
        .resolve_tag(&other)
        .await
        .expect("it reads")
        .expect("it is there");
    assert_eq!(again.digest, kept.digest);
    world.clock.advance_seconds(1);
    world
        .client(&tenant, GateAccess::Push)
        .await
        .push_image(&tenant_tag(&tenant), "anew")
        .await;
    assert!(left(&world));
}

#[tokio::test]
async fn the_sweep_takes_old_uploads_and_old_memories_only() {
    let world = World::start().await;
    let (tenant, gone) = (world.tenant(), world.tenant());
    let client = world.client(&tenant, GateAccess::Push).await;
    client.push_image(&tenant_tag(&tenant), "content").await;
    let kept = world.files();
    let upload = client.begin().await;
    client.patch(&upload, None, b"bytes").await;
    world.gate.remove_tenant(&gone).await.expect("it removes");
    assert_eq!(world.files().len(), kept.len() + 2);
    // Files have the machine's own time, long before the clock of this test: everything is old.
    world.gate.sweep().await.expect("it sweeps");
    assert_eq!(world.files(), kept);
    assert_eq!(
        client.get(&upload).await.problem(),
        (404, "BLOB_UPLOAD_UNKNOWN".to_owned())
    );
}

#[tokio::test]
async fn the_sweep_leaves_what_is_young() {
    let mut world = World::start().await;
    let tenant = world.tenant();
    let upload = world.client(&tenant, GateAccess::Push).await.begin().await;
    let early = systemprompt::api::time::Time::from_millis(0);
    world.clock = systemprompt::server::clock::Clock::manual(early);
    let world = world.restart().await;
    world.gate.sweep().await.expect("it sweeps");
    assert_eq!(
        world
            .client(&tenant, GateAccess::Push)
            .await
            .get(&upload)
            .await
            .status,
        204
    );
}
