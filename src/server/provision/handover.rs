//! A release that may not run beside the old one takes its place: requests wait at the edge while the old one ends, the
//! release command runs, and the new one starts. What fails gives the place back.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::release::{Release, Strategy};
use crate::api::time::Time;
use crate::server::edge::{HOLD_AT_MOST, Traffic, Waited};
use crate::server::providers::MachineSpec;
use crate::server::provision::context::{StepContext, StepError};
use crate::server::provision::deploy;
use crate::server::provision::effects::Effects;
use crate::server::provision::readiness::{self, Patience};
use crate::server::provision::rollout::{self, UNSERVED_GRACE, stop_all_but};
use crate::server::store::releases::ReleaseRow;

/// A new release that does not answer for this long gives its place back; what is left is for the way back.
const TRY_FOR: Duration = Duration::from_secs(HOLD_AT_MOST.as_secs() * 2 / 3);
/// Somebody waits: a release is asked often whether it is ready.
const EVERY: Duration = Duration::from_millis(20);

/// What visitors noticed of a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// For how long the edge held requests, and what for.
    #[serde(flatten)]
    pub(super) spent: Spent,
    /// How many waited.
    pub(super) requests: u64,
    /// How long the longest of them did.
    pub(super) longest_ms: u64,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = Duration::from_millis(self.spent.held_ms).as_secs_f64();
        let longest = Duration::from_millis(self.longest_ms).as_secs_f64();
        match self.requests {
            0 => write!(f, "requests were held for {held:.2} s, and none came"),
            1 => write!(f, "requests were held for {held:.2} s: one waited {longest:.2} s"),
            many => write!(
                f,
                "requests were held for {held:.2} s: {many} waited, the longest {longest:.2} s"
            ),
        }
    }
}

/// The parts of a hand-over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spent {
    /// From the first request that waited to the moment in which all were let go.
    pub(super) held_ms: u64,
    /// Until the old machine had ended.
    pub(super) stop_ms: u64,
    /// Until the new one was started.
    pub(super) start_ms: u64,
    /// Until it answered.
    pub(super) ready_ms: u64,
}

/// What the step that hands over leaves for the one that tells of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Hold {
    since: Time,
    spent: Spent,
}

/// The release that must end before this one may start, when there is one.
pub(super) async fn predecessor(
    cx: &StepContext<'_>,
    release: &Release,
) -> Result<Option<ReleaseRow>, StepError> {
    let serving = rollout::current_release(cx).await?;
    Ok(serving.filter(|old| {
        old.machine_id.is_some()
            && old.release.number != release.number
            && [old.release.strategy, release.strategy].contains(&Strategy::Recreate)
    }))
}

/// The new machine, which is made, takes the place of the old one. Each part may be repeated.
pub(super) async fn take_over(
    cx: &StepContext<'_>,
    (release, spec): (&Release, &MachineSpec),
    old: &ReleaseRow,
) -> Result<Effects, StepError> {
    let (parts, label, machine) = (cx.parts, &spec.tenant.label, rollout::machine_of(cx)?);
    let (since, begun) = (parts.clock.now(), Instant::now());
    let mut spent = Spent::default();
    rollout::ask_first(cx).await?;
    parts.edge.switch(label, Traffic::Held).await?;
    if let Some(machine) = &old.machine_id {
        let path = old.release.health_path.as_str();
        readiness::takes_in(parts, &spec.tenant, (machine, path)).await;
        let begun = Instant::now();
        parts.provider.end_machine(machine, parts.settings.grace).await?;
        spent.stop_ms = millis(begun.elapsed());
    }
    let effects = match cx.case.operation.kind.as_str() {
        // It may write to the volume as well.
        "deploy" => deploy::release_command(cx, release).await?,
        _ => Effects::none(),
    };
    let started = Instant::now();
    parts.provider.continue_machine(&machine).await?;
    spent.start_ms = millis(started.elapsed());
    let most = parts.settings.ready_within.min(TRY_FOR);
    let never = CancellationToken::new();
    let patience = Patience {
        within: most.saturating_sub(begun.elapsed()),
        every: EVERY.min(parts.settings.probe_every),
        // Half way is no place to stop at.
        stop: &never,
    };
    let asked = (machine.as_str(), release.health_path.as_str());
    match readiness::answers(parts, spec, asked, &patience).await? {
        Err(why) => Err(readiness::health_failed(cx, release, &machine, &why).await),
        Ok(took) => {
            parts.edge.let_go(label, release.number).await?;
            spent.ready_ms = millis(took);
            spent.held_ms = millis(begun.elapsed());
            Ok(effects
                .output(serde_json::json!({ "hold": Hold { since, spent } }))
                .event(readiness::health_passed(release, took)))
        }
    }
}

/// What visitors noticed, where this operation handed over.
pub(super) async fn held(cx: &StepContext<'_>, label: &str) -> Result<Option<Held>, StepError> {
    let Some(hold) = cx.case.output::<Hold>("wait-ready", "hold") else {
        return Ok(None);
    };
    // What is only told is no reason to fail.
    let waited = cx.parts.edge.waited(label, hold.since).await;
    let Waited { requests, longest_ms } = waited.unwrap_or_default();
    Ok(Some(Held {
        spent: hold.spent,
        requests,
        longest_ms,
    }))
}

/// The old machine serves again, and the new one is gone.
pub(super) async fn give_back(cx: &StepContext<'_>, old: &ReleaseRow) -> Result<Effects, StepError> {
    let Some(machine) = old.machine_id.as_deref() else {
        return Ok(Effects::none());
    };
    let (edge, label) = (&cx.parts.edge, cx.case.spec()?.label);
    edge.switch(&label, Traffic::Held).await?;
    let given = start_again(cx, old, machine).await;
    // Whether it answers or not, it is the one that serves, and nobody waits for it any longer.
    let let_go = edge.let_go(&label, old.release.number).await;
    let effects = given?;
    let_go?;
    Ok(effects)
}

async fn start_again(cx: &StepContext<'_>, old: &ReleaseRow, machine: &str) -> Result<Effects, StepError> {
    let (parts, number) = (cx.parts, old.release.number);
    let spec = rollout::machine_spec(cx, &old.release, cx.case.tenant.login_slot).await?;
    let effects = stop_all_but(cx, Some(machine), UNSERVED_GRACE).await?;
    rollout::clear_commands(cx).await?;
    parts.provider.continue_machine(machine).await?;
    let never = CancellationToken::new();
    let patience = Patience {
        within: parts.settings.ready_within,
        every: EVERY.min(parts.settings.probe_every),
        stop: &never,
    };
    let asked = (machine, old.release.health_path.as_str());
    match readiness::answers(parts, &spec, asked, &patience).await? {
        Ok(_) => Ok(effects),
        Err(why) => Err(StepError::fatal(
            "old-release-silent",
            format!("v{number} does not serve again: {why}"),
        )),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Held, Spent};

    #[test]
    fn it_says_who_waited() {
        let told = |requests| {
            Held {
                spent: Spent {
                    held_ms: 1310,
                    ..Spent::default()
                },
                requests,
                longest_ms: 1290,
            }
            .to_string()
        };
        assert_eq!(told(0), "requests were held for 1.31 s, and none came");
        assert_eq!(told(1), "requests were held for 1.31 s: one waited 1.29 s");
        assert_eq!(
            told(37),
            "requests were held for 1.31 s: 37 waited, the longest 1.29 s"
        );
    }
}
