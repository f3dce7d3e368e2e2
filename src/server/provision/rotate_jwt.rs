//! `rotate-jwt-secret`, `end-jwt-overlap`: the tenant signs its own tokens with a new secret, and knows the former one for
//! as long as was asked, so that nobody is signed out; then a release follows that does not know it any more.

use async_trait::async_trait;

use crate::api::time::Time;
use crate::server::provision::Provision;
use crate::server::provision::context::{Case, Parts, StepContext, StepError};
use crate::server::provision::deploy;
use crate::server::provision::effects::{Change, Effects};
use crate::server::provision::restart::same_image;
use crate::server::provision::rollout;
use crate::server::provision::rotate_credentials::store_secrets;
use crate::server::provision::saga::{Ending, Saga, StepDefinition, step};
use crate::server::provision::secrets::{JWT_SECRET, random_text, require_tenant_key, sealed_row};
use crate::server::provision::work::{EnqueueError, NewOperation, Work, enqueue};
use crate::server::store::StoreError;
use crate::server::store::events::NewEvent;
use crate::server::store::secret_versions::{self, SecretScope};
use crate::server::store::tenant_life::{self, FormerJwt, JwtSecrets, OverlapOver};

/// Both sagas.
pub(super) enum RotateJwt {
    /// A new secret, beside the former one.
    Begin,
    /// Without the former one.
    End,
}

/// After how many seconds a former secret that could not go is tried again, at first and at most.
const RETRY_SECONDS: i64 = 1200;
const RETRY_AT_MOST: i64 = 24 * 3600;

const BEGIN: &[StepDefinition] = &[
    step("start"),
    step("generate-secret"),
    step("create-release").undone(),
    step("pull"),
    step("start-machine").making(&["machine"]),
    step("wait-ready"),
    step("switch-traffic"),
    step("drain-old"),
    step("store-secrets"),
];
const END: &[StepDefinition] = &[
    step("start"),
    step("create-release").undone(),
    step("pull"),
    step("start-machine").making(&["machine"]),
    step("wait-ready"),
    step("switch-traffic"),
    step("drain-old"),
];

#[async_trait]
impl Saga for RotateJwt {
    fn steps(&self) -> &'static [StepDefinition] {
        match self {
            Self::Begin => BEGIN,
            Self::End => END,
        }
    }

    fn pivot(&self) -> usize {
        deploy::pivot(self.steps())
    }

    async fn run(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        match step {
            "start" => Ok(match cx.case.tenant.current_release {
                Some(_) => deploy::start(cx.case),
                None => Effects::none(),
            }),
            "generate-secret" => generate_secret(cx).await,
            "store-secrets" => store_secrets(cx).await,
            _ => self.bring_release(cx, step).await,
        }
    }

    async fn undo(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        rollout::take_back(cx, step).await
    }

    fn conclude(&self, ending: Ending, parts: &Parts, case: &Case) -> Effects {
        if ending != Ending::Succeeded {
            return deploy::conclude(ending, parts, case);
        }
        let event = match (self, case.tenant.jwt.former) {
            (Self::End, _) => NewEvent::new(
                "jwt_overlap_ended",
                "tokens of the former secret are good no more",
            ),
            (Self::Begin, None) => NewEvent::new(
                "jwt_secret_rotated",
                "tokens are signed with a new secret; those signed before are good no more",
            ),
            (Self::Begin, Some(former)) => NewEvent::new(
                "jwt_secret_rotated",
                format!(
                    "tokens are signed with a new secret; those signed before are good until {}",
                    former.until
                ),
            ),
        };
        let ready = match case.tenant.current_release {
            Some(_) => deploy::ready(parts, case),
            None => Effects::none(),
        };
        ready.status(case.resting_status()).event(event)
    }
}

impl RotateJwt {
    /// The steps of a restart, for a machine with other secrets. Without a release that serves only the switch is written.
    async fn bring_release(&self, cx: &StepContext<'_>, step: &str) -> Result<Effects, StepError> {
        let jwt = self.wanted(cx.case)?;
        if cx.case.tenant.current_release.is_none() {
            return Ok(match step {
                "switch-traffic" => Effects::none().change(Change::Jwt(jwt)),
                _ => Effects::none(),
            });
        }
        if step == "create-release" {
            let why = match self {
                Self::Begin => "signing secret rotated",
                Self::End => "former signing secret ended",
            };
            let new = same_image(cx, why).await?;
            return rollout::create_release(cx, new).await;
        }
        // The new machine knows what the tenant's row says only once it serves.
        let mut case = cx.case.clone();
        case.tenant.jwt = jwt;
        let with = StepContext {
            parts: cx.parts,
            case: &case,
            stop: cx.stop,
        };
        let effects = rollout::bring_own(&with, step).await?;
        Ok(match step {
            "switch-traffic" => effects.change(Change::Jwt(jwt)),
            _ => effects,
        })
    }

    fn wanted(&self, case: &Case) -> Result<JwtSecrets, StepError> {
        match self {
            Self::Begin => case
                .output("generate-secret", "jwt")
                .ok_or_else(|| StepError::fatal("secret-missing", "failed to find which secret is new")),
            Self::End => Ok(JwtSecrets {
                former: None,
                ..case.tenant.jwt
            }),
        }
    }
}

async fn generate_secret(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (parts, tenant) = (cx.parts, &cx.case.tenant);
    let mut tx = parts.store.begin_read().await?;
    let key = require_tenant_key(&mut tx, &tenant.id).await?;
    let last = secret_versions::find_latest(&mut tx, &tenant.id, SecretScope::Platform, JWT_SECRET).await?;
    drop(tx);
    let version = last.map_or(1, |row| row.version + 1);
    let overlap_seconds: i64 = cx.case.param("overlap_seconds").unwrap_or(0);
    let kept = overlap_seconds > 0 && tenant.current_release.is_some();
    let jwt = JwtSecrets {
        version,
        former: kept.then(|| FormerJwt {
            version: tenant.jwt.version,
            until: parts.clock.now().plus_seconds(overlap_seconds),
        }),
    };
    let value = random_text::<48>(&parts.clock);
    let what = (SecretScope::Platform, JWT_SECRET, version);
    let by = &cx.case.operation.requested_by;
    let row = sealed_row(parts, (&tenant.id, &key), what, &value, by)?;
    Ok(Effects::none()
        .output(serde_json::json!({ "jwt": jwt }))
        .change(Change::Secret(SecretScope::Platform, Box::new(row))))
}

/// Whether it is to be tried (again).
fn is_due(over: &OverlapOver, now: Time) -> bool {
    let Some(tried_at) = over.tried_at else {
        return true;
    };
    let doublings = u32::try_from(over.tries - 1).unwrap_or(0).min(16);
    let wait = (RETRY_SECONDS << doublings).min(RETRY_AT_MOST);
    now.seconds_since(tried_at) >= wait
}

impl Provision {
    /// Has the former secrets go whose time is over. A tenant that is busy, or suspended, has its turn later; one where it
    /// has failed, after a wait that doubles.
    ///
    /// # Errors
    /// The store fails.
    pub async fn end_jwt_overlaps(&self) -> Result<(), StoreError> {
        let parts = &self.0.parts;
        let mut tx = parts.store.begin_read().await?;
        let now = parts.clock.now();
        let over = tenant_life::list_jwt_overlaps_over(&mut tx, now).await?;
        drop(tx);
        for OverlapOver { tenant_id, .. } in over.into_iter().filter(|over| is_due(over, now)) {
            let mut tx = parts.store.begin().await?;
            let new = NewOperation {
                tenant_id,
                work: Work::EndJwtOverlap,
                requested_by: "the server".to_owned(),
            };
            match enqueue(&mut tx, &parts.clock, new).await {
                Ok(_) => tx.commit().await?,
                Err(EnqueueError::Store(error)) => return Err(error),
                Err(EnqueueError::Busy(_) | EnqueueError::NotNow { .. }) => continue,
            }
            self.wake();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{RETRY_AT_MOST, is_due};
    use crate::api::id::TenantId;
    use crate::api::time::Time;
    use crate::server::store::tenant_life::OverlapOver;

    #[test]
    fn what_keeps_failing_is_tried_more_and_more_seldom() {
        let over = |tries: i64| OverlapOver {
            tenant_id: TenantId::new(uuid::Uuid::from_u128(1)),
            tries,
            tried_at: (tries > 0).then_some(Time::from_millis(0)),
        };
        let first_due = |tries: i64| {
            let seconds = (0..=RETRY_AT_MOST).step_by(600);
            let mut due = seconds.filter(|seconds| is_due(&over(tries), Time::from_millis(seconds * 1000)));
            due.next()
        };
        let waits: Vec<_> = [0, 1, 2, 3, 7, 8, 1000].map(first_due).into();
        let wanted = [0, 1200, 2400, 4800, 76_800, 86_400, 86_400];
        assert_eq!(waits, wanted.map(Some));
    }
}
