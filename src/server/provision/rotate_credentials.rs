//! `rotate-credentials`: the other login role takes over, with no connection lost: new login, new release, lock and
//! drop the old one.

use async_trait::async_trait;

use crate::api::tenant::DatabaseKind;
use crate::server::providers::Made;
use crate::server::provision::context::{Case, Parts, StepContext, StepError};
use crate::server::provision::deploy;
use crate::server::provision::effects::{Change, Effects};
use crate::server::provision::restart::same_image;
use crate::server::provision::rollout;
use crate::server::provision::saga::{Ending, Saga, StepDefinition, step};
use crate::server::provision::secrets::{
    database_slot, new_grant, password_key, platform_value, random_text, require_tenant_key, sealed_row,
};
use crate::server::store::events::NewEvent;
use crate::server::store::resources;
use crate::server::store::secret_versions::{self, SecretScope};
use crate::server::store::tenants::LoginSlot;

/// The saga.
pub(super) struct RotateCredentials;

/// The ledger's kind of login roles.
const ROLE: &str = "database-role";

const STEPS: &[StepDefinition] = &[
    step("start"),
    step("generate-password"),
    step("create-login").undone(),
    step("create-release").undone(),
    step("pull"),
    step("start-machine").making(&["machine"]),
    step("wait-ready"),
    step("switch-traffic"),
    step("drain-old"),
    step("lock-old-login"),
    step("drop-old-login"),
    step("store-secrets"),
];

#[async_trait]
impl Saga for RotateCredentials {
    fn steps(&self) -> &'static [StepDefinition] {
        STEPS
    }

    fn pivot(&self) -> usize {
        deploy::pivot(STEPS)
    }

    async fn run(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        match step {
            "start" => Ok(start(cx.case)),
            "generate-password" => generate_password(cx).await,
            "create-login" => create_login(cx).await,
            "lock-old-login" | "drop-old-login" => end_old_login(cx, step).await,
            "store-secrets" => store_secrets(cx).await,
            _ => bring_release(cx, step).await,
        }
    }

    async fn undo(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        match step {
            "create-login" => drop_login(cx, new_slot(cx.case)?).await,
            _ => rollout::take_back(cx, step).await,
        }
    }

    fn conclude(&self, ending: Ending, parts: &Parts, case: &Case) -> Effects {
        if ending != Ending::Succeeded {
            return deploy::conclude(ending, parts, case);
        }
        let event = NewEvent::new(
            "credentials_rotated",
            "the database has a new login; fetch the new credentials, once",
        );
        let ready = match case.tenant.current_release {
            Some(_) => deploy::ready(parts, case),
            None => Effects::none(),
        };
        ready.status(case.resting_status()).event(event)
    }
}

/// The slot is written down: after the switch the tenant's row names the new one already.
fn start(case: &Case) -> Effects {
    let (old, new) = (case.tenant.login_slot, case.tenant.login_slot.other());
    let output = serde_json::json!({ "old": old, "new": new });
    match case.tenant.current_release {
        Some(_) => deploy::start(case).output(output),
        None => Effects::none().output(output),
    }
}

fn slot(case: &Case, field: &str) -> Result<LoginSlot, StepError> {
    case.output("start", field)
        .ok_or_else(|| StepError::fatal("login-missing", "failed to find which login is new"))
}

fn new_slot(case: &Case) -> Result<LoginSlot, StepError> {
    slot(case, "new")
}

async fn generate_password(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (parts, tenant) = (cx.parts, &cx.case.tenant.id);
    let name = password_key(new_slot(cx.case)?);
    let mut tx = parts.store.begin_read().await?;
    let key = require_tenant_key(&mut tx, tenant).await?;
    let last = secret_versions::find_latest(&mut tx, tenant, SecretScope::Platform, name).await?;
    let version = last.map_or(1, |row| row.version + 1);
    let password = random_text::<32>(&parts.clock);
    let what = (SecretScope::Platform, name, version);
    let by = &cx.case.operation.requested_by;
    let row = sealed_row(parts, (tenant, &key), what, &password, by)?;
    Ok(Effects::none().change(Change::Secret(SecretScope::Platform, Box::new(row))))
}

async fn create_login(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (parts, tenant) = (cx.parts, &cx.case.tenant);
    if tenant.database == DatabaseKind::Sqlite {
        return Ok(Effects::none());
    }
    let new = new_slot(cx.case)?;
    let mut tx = parts.store.begin_read().await?;
    let key = require_tenant_key(&mut tx, &tenant.id).await?;
    let password = platform_value(&mut tx, parts, (&tenant.id, &key), password_key(new)).await?;
    drop(tx);
    parts
        .databases
        .create_login(&tenant.id, database_slot(new), &password)
        .await?;
    let role = role_of(cx, new).await?.map(|external_id| Made {
        kind: ROLE,
        external_id,
    });
    Ok(Effects::none().made(role))
}

async fn end_old_login(cx: &StepContext<'_>, step: &str) -> Result<Effects, StepError> {
    let (databases, tenant) = (&cx.parts.databases, &cx.case.tenant);
    if tenant.database == DatabaseKind::Sqlite {
        return Ok(Effects::none());
    }
    let old = slot(cx.case, "old")?;
    if step == "lock-old-login" {
        databases.lock_login(&tenant.id, database_slot(old)).await?;
        return Ok(Effects::none());
    }
    drop_login(cx, old).await
}

async fn drop_login(cx: &StepContext<'_>, slot: LoginSlot) -> Result<Effects, StepError> {
    let tenant = &cx.case.tenant;
    if tenant.database == DatabaseKind::Sqlite {
        return Ok(Effects::none());
    }
    cx.parts
        .databases
        .drop_login(&tenant.id, database_slot(slot))
        .await?;
    Ok(match role_of(cx, slot).await? {
        Some(role) => Effects::none().gone(ROLE, role),
        None => Effects::none(),
    })
}

/// What the ledger calls a login role: both names differ in their last letter only, and one of them is known.
async fn role_of(cx: &StepContext<'_>, slot: LoginSlot) -> Result<Option<String>, StepError> {
    let mut tx = cx.parts.store.begin_read().await?;
    let lines = resources::list(&mut tx, &cx.case.tenant.id).await?;
    let stem = lines.iter().filter(|line| line.kind == ROLE).find_map(|line| {
        line.external_id
            .strip_suffix("_app_a")
            .or(line.external_id.strip_suffix("_app_b"))
    });
    Ok(stem.map(|stem| format!("{stem}_app_{}", database_slot(slot).as_str())))
}

/// The steps of a restart, with the new login. Without a release that serves only the switch is written down.
async fn bring_release(cx: &StepContext<'_>, step: &str) -> Result<Effects, StepError> {
    let new = new_slot(cx.case)?;
    if cx.case.tenant.current_release.is_none() {
        return Ok(match step {
            "switch-traffic" => Effects::none().change(Change::LoginSlot(new)),
            _ => Effects::none(),
        });
    }
    if step == "create-release" {
        let new = same_image(cx, "credentials rotated").await?;
        return rollout::create_release(cx, new).await;
    }
    let release = rollout::own_release(cx).await?.release;
    let effects = rollout::bring(cx, step, (&release, new)).await?;
    Ok(match step {
        "switch-traffic" => effects.change(Change::LoginSlot(new)),
        _ => effects,
    })
}

/// A one-time grant of the credentials as they are now.
pub(super) async fn store_secrets(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (parts, tenant) = (cx.parts, &cx.case.tenant.id);
    let mut tx = parts.store.begin_read().await?;
    let key = require_tenant_key(&mut tx, tenant).await?;
    let grant = new_grant(parts, tenant, &key)?;
    Ok(Effects::none().change(Change::Grant(grant)))
}
