//! For how long a step that fails is waited for, and when it is given up.

use std::time::Duration;

use crate::server::provision::context::{Parts, StepError};
use crate::server::provision::saga::StepDefinition;

/// A step that was begun too often.
pub(super) fn gave_up(definition: &StepDefinition, last: Option<&str>) -> StepError {
    StepError::fatal(
        "gave-up",
        match last {
            Some(last) => format!("{last}, too often"),
            None => format!(
                "`{}` was begun too often without coming to an end",
                definition.name
            ),
        },
    )
}

/// Doubles with every try, and lies between half of that and all of it.
pub(super) fn backoff(parts: &Parts, attempts: u32) -> Duration {
    let settings = &parts.settings;
    let doubled = settings
        .retry_first
        .saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1).min(16)));
    let whole = doubled.min(settings.retry_most);
    let [chance] = parts.clock.random::<1>();
    whole.mul_f64(0.5 + f64::from(chance) / 512.0)
}
