//! An installation in a folder: a store, a vault and a fake world in files, so that it can be copied and started again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use systemprompt::api::event::Event;
use systemprompt::api::id::{AccountId, OperationId, TenantId};
use systemprompt::api::operation::OperationStatus;
use systemprompt::api::release::ImageConfig;
use systemprompt::api::secret::SecretText;
use systemprompt::api::tenant::{DatabaseKind, Resource};
use systemprompt::server::clock::Clock;
use systemprompt::server::databases::fake::FakeDatabases;
use systemprompt::server::edge::EdgeSettings;
use systemprompt::server::edge::fake::FakeEdge;
use systemprompt::server::providers::PullCredential;
use systemprompt::server::providers::fake::FakeProvider;
use systemprompt::server::provision::{
    DecideError, Decision, DeployParams, EnqueueError, Hold, Images, NewOperation, Parts, Provision,
    ProvisionSettings, Work,
};
use systemprompt::server::registry::{Collected, GateError};
use systemprompt::server::store::accounts::{self, AccountRow};
use systemprompt::server::store::operation_steps::StepRow;
use systemprompt::server::store::operations::OperationRow;
use systemprompt::server::store::releases::ReleaseRow;
use systemprompt::server::store::secret_versions::SecretScope;
use systemprompt::server::store::tenants::{self, NewTenant, TenantRow};
use systemprompt::server::store::{
    Store, events, operation_steps, operations, releases, resources, secret_versions,
};
use systemprompt::server::vault::Vault;
use systemprompt::server::world::{Fault, World};
use tempfile::TempDir;

pub(crate) const DIGEST: &str = "sha256:aaaa";
pub(crate) const OTHER_DIGEST: &str = "sha256:bbbb";

/// The gate of these tests: has every image but `sha256:missing`, and plays the world's faults.
struct FakeImages(World);

impl FakeImages {
    fn call(&self, method: &str) -> Result<(), GateError> {
        match self
            .0
            .change(|state| state.count_call(method))
            .expect("the world's file")
        {
            Some(Fault::Retry | Fault::LostReply) => Err(GateError::Read(std::io::Error::other("planned"))),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Images for FakeImages {
    fn registry_host(&self) -> &str {
        "registry.test"
    }
    async fn describe(&self, _tenant: &TenantId, digest: &str) -> Result<Option<ImageConfig>, GateError> {
        self.call("images.describe")?;
        Ok((digest != "sha256:missing").then(|| ImageConfig {
            command: vec![digest.to_owned()],
            ..ImageConfig::default()
        }))
    }
    fn pull_credential(&self, _tenant: &TenantId) -> PullCredential {
        PullCredential {
            registry: "registry.test".to_owned(),
            username: "systemprompt".to_owned(),
            password: SecretText::new("pull"),
        }
    }
    async fn collect(
        &self,
        _tenant: &TenantId,
        _keep: &BTreeSet<String>,
        _unused_for_seconds: i64,
    ) -> Result<Collected, GateError> {
        self.call("images.collect").map(|()| Collected::default())
    }

    async fn has_any(&self, _tenant: &TenantId) -> Result<bool, GateError> {
        self.call("images.has_any").map(|()| false)
    }
    async fn remove_tenant(&self, _tenant: &TenantId) -> Result<(), GateError> {
        self.call("images.remove_tenant")
    }
    async fn ping(&self) -> Result<(), GateError> {
        Ok(())
    }
}

/// The installation.
pub(crate) struct Rig {
    folder: TempDir,
    pub(crate) world: World,
    pub(crate) clock: Clock,
    pub(crate) tenant: TenantId,
    /// Where images come from; without it every image is there.
    pub(crate) images: Option<Arc<dyn Images>>,
}

/// What is in the store and in the world about the tenant.
pub(crate) struct Seen {
    pub(crate) tenant: TenantRow,
    pub(crate) events: Vec<Event>,
    pub(crate) resources: Vec<Resource>,
    pub(crate) releases: Vec<ReleaseRow>,
    pub(crate) world: Vec<String>,
    /// What becomes of requests at the edge, once it was said.
    pub(crate) traffic: Option<String>,
}

impl Seen {
    pub(crate) fn event_names(&self) -> Vec<&str> {
        self.events.iter().map(|event| event.event.as_str()).collect()
    }
}

fn settings() -> ProvisionSettings {
    ProvisionSettings {
        poll: Duration::from_millis(20),
        retry_first: Duration::from_millis(1),
        retry_most: Duration::from_millis(4),
        attempts: 4,
        ready_within: Duration::from_millis(400),
        probe_every: Duration::from_millis(5),
        grace: Duration::from_millis(1),
        ..ProvisionSettings::default()
    }
}

impl Rig {
    /// A fresh installation with one account and one pending tenant.
    pub(crate) async fn fresh() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let rig = Self::over(folder, None);
        let store = rig.open_store().await;
        store.migrate_up().await.expect("migrated");
        let owner = AccountId::new(rig.clock.uuid());
        let mut tx = store.begin().await.expect("begun");
        let account = AccountRow {
            id: owner.clone(),
            email: "ada@example.test".to_owned(),
            password_hash: None,
            operator: false,
            created_at: rig.clock.now(),
        };
        accounts::create(&mut tx, &account).await.expect("account");
        tenants::insert(&mut tx, &new_tenant(&rig.tenant, "acme", &owner), rig.clock.now())
            .await
            .expect("tenant");
        tx.commit().await.expect("committed");
        store.close().await;
        rig
    }

    /// The same installation once more, in a folder of its own.
    pub(crate) fn copy(&self) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        for entry in std::fs::read_dir(self.folder.path()).expect("listed") {
            let path = entry.expect("entry").path();
            let name = path.file_name().expect("name");
            std::fs::copy(&path, folder.path().join(name)).expect("copied");
        }
        Self::over(folder, Some(&self.tenant))
    }

    fn over(folder: TempDir, tenant: Option<&TenantId>) -> Self {
        let clock = Clock::system();
        let tenant = tenant.cloned().unwrap_or_else(|| TenantId::new(clock.uuid()));
        let world = World::open(&folder.path().join("world.json")).expect("world");
        Self {
            world,
            clock,
            tenant,
            folder,
            images: None,
        }
    }

    pub(crate) async fn open_store(&self) -> Store {
        let path = self.folder.path().join("systemprompt.db");
        Store::open_sqlite(&path).await.expect("store")
    }

    pub(crate) async fn parts(&self) -> Parts {
        Parts {
            store: self.open_store().await,
            clock: self.clock.clone(),
            vault: Vault::open(self.folder.path(), self.clock.clone()).expect("vault"),
            images: match &self.images {
                Some(images) => images.clone(),
                None => Arc::new(FakeImages(self.world.clone())),
            },
            databases: Arc::new(FakeDatabases::new(self.world.clone())),
            edge: Arc::new(FakeEdge::new(self.world.clone(), EdgeSettings::default())),
            provider: Arc::new(FakeProvider::new(self.world.clone())),
            settings: settings(),
        }
    }

    /// Starts the server's workers in a runtime of their own and waits until the operation goes no further, or until
    /// `hold` says that the process dies. Then everything of it is dropped, as it stands.
    pub(crate) fn run(
        &self,
        operation: &OperationId,
        hold: Option<(Hold, Arc<tokio::sync::Notify>)>,
    ) -> bool {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("runtime");
        let died = runtime.block_on(async {
            let parts = self.parts().await;
            let store = parts.store.clone();
            let is_held = hold.is_some();
            let (provision, dies) = match hold {
                Some((hold, dies)) => (Provision::held(parts, hold), dies),
                None => (Provision::new(parts), Arc::new(tokio::sync::Notify::new())),
            };
            // The end is written before the last checkpoints are passed.
            let last = match is_held {
                true => Duration::from_millis(100),
                false => Duration::ZERO,
            };
            provision.start().await.expect("started");
            let died = tokio::select! {
                biased;
                () = dies.notified() => true,
                () = rested(&store, operation) => tokio::time::timeout(last, dies.notified()).await.is_ok(),
            };
            if !died {
                provision.stop().await;
                store.close().await;
            }
            died
        });
        runtime.shutdown_background();
        died
    }

    /// Queues work for the tenant.
    pub(crate) async fn enqueue(&self, work: Work) -> Result<OperationId, EnqueueError> {
        let parts = self.parts().await;
        let store = parts.store.clone();
        let provision = Provision::new(parts);
        let mut tx = store.begin().await.expect("begun");
        let new = NewOperation {
            tenant_id: self.tenant.clone(),
            work,
            requested_by: "ada@example.test".to_owned(),
        };
        let id = provision.enqueue(&mut tx, new).await;
        tx.commit().await.expect("committed");
        store.close().await;
        id
    }

    /// Calls `decide` on a server whose workers do not run.
    pub(crate) async fn decide(
        &self,
        decision: Decision,
        id: &OperationId,
    ) -> Result<OperationStatus, DecideError> {
        let parts = self.parts().await;
        let store = parts.store.clone();
        let provision = Provision::new(parts);
        let answer = provision.decide_now(decision, id).await;
        store.close().await;
        answer
    }

    /// Sets a secret of the tenant, for its next release.
    pub(crate) async fn set_secret(&self, key: &str, value: &str) {
        let parts = self.parts().await;
        let store = parts.store.clone();
        let provision = Provision::new(parts);
        let mut tx = store.begin().await.expect("begun");
        let tenant = tenants::get(&mut tx, &self.tenant).await.expect("tenant");
        let (key, value) = (key.parse().expect("key"), SecretText::new(value));
        let secret = provision
            .set_secret(&mut tx, &tenant, (&key, &value), "ada")
            .await;
        assert!(secret.expect("set").staged);
        tx.commit().await.expect("committed");
        store.close().await;
    }

    /// Changes rows behind the server's back.
    pub(crate) async fn execute(&self, sql: &'static str) {
        let store = self.open_store().await;
        let mut tx = store.begin().await.expect("begun");
        assert!(tx.execute(sql, vec![]).await.expect("executed") > 0);
        tx.commit().await.expect("committed");
        store.close().await;
    }

    /// How many versions a platform secret has.
    pub(crate) async fn secret_versions(&self, key: &str) -> usize {
        let store = self.open_store().await;
        let mut tx = store.begin_read().await.expect("begun");
        let scope = SecretScope::Platform;
        let rows = secret_versions::list_versions(&mut tx, &self.tenant, scope, key).await;
        drop(tx);
        store.close().await;
        rows.expect("versions").len()
    }

    /// The names of the tenant's events.
    pub(crate) async fn events(&self) -> Vec<String> {
        let store = self.open_store().await;
        let mut tx = store.begin_read().await.expect("begun");
        let events = events::list_after(&mut tx, &self.tenant, 0, 1000)
            .await
            .expect("events");
        drop(tx);
        store.close().await;
        events.into_iter().map(|event| event.event).collect()
    }

    pub(crate) async fn operation(&self, id: &OperationId) -> (OperationRow, Vec<StepRow>) {
        let store = self.open_store().await;
        let mut tx = store.begin_read().await.expect("begun");
        let row = operations::get(&mut tx, id).await.expect("operation");
        let steps = operation_steps::list(&mut tx, id).await.expect("steps");
        drop(tx);
        store.close().await;
        (row, steps)
    }

    /// What the ledger says is about to be made: kind, name, step.
    pub(crate) async fn intended(&self) -> Vec<(String, String, String)> {
        let store = self.open_store().await;
        let mut tx = store.begin_read().await.expect("begun");
        let mut lines = resources::list(&mut tx, &self.tenant).await.expect("ledger");
        drop(tx);
        store.close().await;
        lines.retain(|line| line.state == "intended");
        lines
            .into_iter()
            .map(|line| (line.kind, line.external_id, line.step))
            .collect()
    }

    /// Everything there is to see, checked for what must hold at every rest.
    pub(crate) async fn look(&self) -> Seen {
        let store = self.open_store().await;
        let mut tx = store.begin_read().await.expect("begun");
        let seen = Seen {
            tenant: tenants::get(&mut tx, &self.tenant).await.expect("tenant"),
            events: events::list_after(&mut tx, &self.tenant, 0, 1000)
                .await
                .expect("events"),
            resources: resources::list(&mut tx, &self.tenant).await.expect("ledger"),
            releases: releases::list(&mut tx, &self.tenant, None, 100)
                .await
                .expect("releases"),
            world: self.world.resources().expect("world"),
            traffic: self
                .world
                .change(|state| state.traffic.get("acme").cloned())
                .expect("world"),
        };
        let open = operations::find_unfinished(&mut tx, &self.tenant)
            .await
            .expect("read");
        drop(tx);
        store.close().await;
        let numbers: Vec<u64> = seen.events.iter().map(|event| event.seq).collect();
        let expected: Vec<u64> = (1..=seen.tenant.last_event_seq).collect();
        assert_eq!(numbers, expected, "events without a gap");
        let intended = seen.resources.iter().filter(|line| line.state == "intended");
        assert_eq!(intended.count(), 0, "no intent is left: {:?}", seen.resources);
        if let Some(open) = open {
            assert_eq!(open.status, OperationStatus::Stuck, "only a stuck one stays open");
        }
        seen
    }
}

pub(crate) fn new_tenant(id: &TenantId, name: &str, owner: &AccountId) -> NewTenant {
    NewTenant {
        id: id.clone(),
        name: name.parse().expect("name"),
        owner_id: owner.clone(),
        plan: "free".to_owned(),
        region: "local".to_owned(),
        provider: "fake".to_owned(),
        memory_mb: 256,
        database: DatabaseKind::Postgres,
    }
}

pub(crate) fn deploy(digest: &str) -> Work {
    Work::Deploy(DeployParams {
        image: "registry.test/systemprompt-images:tenant".to_owned(),
        digest: Some(digest.to_owned()),
        ..DeployParams::default()
    })
}

/// Returns once the operation is finished or stuck.
async fn rested(store: &Store, operation: &OperationId) {
    for _ in 0..4000 {
        let mut tx = store.begin_read().await.expect("begun");
        let row = operations::get(&mut tx, operation).await.expect("operation");
        if row.finished_at.is_some() || row.status == OperationStatus::Stuck {
            return;
        }
        drop(tx);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("`{operation}` does not come to rest within 20 seconds");
}
