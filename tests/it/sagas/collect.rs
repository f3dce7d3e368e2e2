//! Which images are kept: 25 deploys through a real registry, and then the collector.

use std::sync::Arc;

use reqwest::StatusCode;
use systemprompt::api::registry::tenant_tag;
use systemprompt::server::provision::{Provision, Work};
use systemprompt::server::registry::GateAccess;
use systemprompt::server::store::{releases, tenants};
use tokio::runtime::Runtime;

use crate::gate::harness::{Image, World};
use crate::sagas::proofs::{block_on, look};
use crate::sagas::rig::{Rig, deploy};

/// An installation with a real registry.
struct Place {
    runtime: Runtime,
    gate: World,
    rig: Rig,
    pushed: Vec<Image>,
}

impl Place {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let gate = runtime.block_on(World::start());
        let mut rig = block_on(Rig::fresh());
        rig.images = Some(Arc::new(gate.gate.clone()));
        let place = Self {
            runtime,
            gate,
            rig,
            pushed: Vec::new(),
        };
        place.run(Work::CreateTenant);
        place
    }

    fn run(&self, work: Work) {
        let id = block_on(self.rig.enqueue(work)).expect("queued");
        self.rig.run(&id, None);
        let (row, _) = block_on(self.rig.operation(&id));
        assert_eq!(row.error, None);
    }

    /// Pushes what nobody has released.
    fn push(&self, content: &str) -> Image {
        self.runtime.block_on(async {
            let client = self.gate.client(&self.rig.tenant, GateAccess::Push).await;
            client.push_image(&tenant_tag(&self.rig.tenant), content).await
        })
    }

    fn deploy(&mut self, content: &str) {
        let image = self.push(content);
        self.run(deploy(&image.digest));
        self.pushed.push(image);
    }

    fn collect(&self) {
        self.runtime.block_on(async {
            let parts = self.rig.parts().await;
            let store = parts.store.clone();
            Provision::new(parts).collect_images().await.expect("it collects");
            store.close().await;
        });
    }

    /// Whether the image of a release can be pulled whole: all of it, or nothing.
    fn pulls(&self, number: usize) -> bool {
        let image = &self.pushed[number - 1];
        self.runtime.block_on(async {
            let client = self.gate.client(&self.rig.tenant, GateAccess::Pull).await;
            let manifest = client.get(&format!("manifests/{}", image.digest)).await.status;
            let layer = client.get(&format!("blobs/{}", image.layer)).await.status;
            assert_eq!(manifest, layer, "v{number}: a whole image or nothing");
            manifest == StatusCode::OK.as_u16()
        })
    }
}

#[test]
fn after_25_deploys_the_last_20_and_the_pinned_pull() {
    let mut place = Place::new();
    for number in 1..=25 {
        place.deploy(&format!("content {number}"));
    }
    let tenant = place.rig.tenant.clone();
    block_on(async {
        let store = place.rig.open_store().await;
        let mut tx = store.begin().await.expect("begun");
        releases::set_pinned(&mut tx, &tenant, 2, true)
            .await
            .expect("pinned");
        tx.commit().await.expect("committed");
        store.close().await;
    });
    // Young content may be part of a push.
    place.collect();
    assert!(place.pulls(1));
    place.gate.clock.advance_seconds(4 * 3600);
    place.collect();
    let left: Vec<usize> = (1..=25).filter(|number| place.pulls(*number)).collect();
    let wanted: Vec<usize> = std::iter::once(2).chain(6..=25).collect();
    assert_eq!(left, wanted);
    let told: Vec<u32> = look(&place.rig)
        .releases
        .iter()
        .filter(|row| row.release.collected_at.is_some())
        .map(|row| row.release.number)
        .collect();
    assert_eq!(told, [5, 4, 3, 1]);
    // 21 images of a config, a layer and a manifest, and the tag; no file of the others is left.
    let files = place.gate.files();
    let own = files.iter().filter(|path| path.starts_with(tenant.as_str()));
    assert_eq!(own.count(), 21 * 3 + 1, "{files:#?}");
    // Where they ran, the three are left to which somebody goes back in a hurry.
    let pulled = place.rig.world.change(|state| state.images.len()).expect("world");
    assert_eq!(pulled, 3);
}

#[test]
fn a_collected_release_is_refused_and_comes_back_with_its_content() {
    let mut place = Place::new();
    for number in 1..=22 {
        place.deploy(&format!("content {number}"));
    }
    place.gate.clock.advance_seconds(4 * 3600);
    place.collect();
    assert!(!place.pulls(1));
    let refusals = |place: &Place| {
        block_on(async {
            let parts = place.rig.parts().await;
            let store = parts.store.clone();
            let mut tx = store.begin_read().await.expect("begun");
            let row = tenants::get(&mut tx, &place.rig.tenant)
                .await
                .expect("the tenant");
            let plan = Provision::new(parts).rollback_plan(&mut tx, &row, Some(1)).await;
            drop(tx);
            store.close().await;
            plan.expect("a plan").refusals
        })
    };
    let told = refusals(&place);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].code, "release-collected");
    place.deploy("content 1");
    assert_eq!(refusals(&place), [], "the same content is there again");
}

#[test]
fn a_tenant_that_is_worked_on_waits_for_the_next_time() {
    let mut place = Place::new();
    for number in 1..=22 {
        place.deploy(&format!("content {number}"));
    }
    place.gate.clock.advance_seconds(4 * 3600);
    let id = block_on(place.rig.enqueue(Work::Restart)).expect("queued");
    place.collect();
    assert!(place.pulls(1));
    place.rig.run(&id, None);
    place.collect();
    assert!(!place.pulls(1));
}
