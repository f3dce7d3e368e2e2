//! What a plan allows: tenants of an account, memory of a tenant, releases of a day. A refusal says the limit, what of it is
//! used, and the way out.

use crate::api::checkout::Plan;
use crate::api::id::AccountId;
use crate::api::tenant::MEMORY_SIZES_MB;
use crate::server::billing::{Billing, BillingError};
use crate::server::store::tenants::TenantRow;
use crate::server::store::{Tx, releases, tenants};

const DAY_SECONDS: i64 = 24 * 3600;

impl Billing {
    /// Whether a plan allows this much memory.
    ///
    /// # Errors
    /// It is no size that a tenant may have, or more than the plan allows.
    pub fn check_memory(&self, plan: &str, memory_mb: u32) -> Result<(), BillingError> {
        if !MEMORY_SIZES_MB.contains(&memory_mb) {
            return Err(BillingError::Invalid {
                field: "memory_mb",
                detail: format!("a tenant has 256, 512, 1024 or 2048 MB, not {memory_mb}"),
            });
        }
        let most = self.find_plan(plan).map_or(u32::MAX, |plan| plan.max_memory_mb);
        if memory_mb > most {
            return Err(BillingError::PlanLimit {
                what: format!("the plan `{plan}` allows {most} MB of memory, not {memory_mb}"),
                hint: match self.larger(|plan| plan.max_memory_mb >= memory_mb) {
                    Some(larger) => format!("ask for {most} MB or less; the plan `{larger}` allows more"),
                    None => format!("ask for {most} MB or less"),
                },
            });
        }
        Ok(())
    }

    /// Whether a tenant may have one release more now.
    ///
    /// # Errors
    /// It has had as many in 24 hours as its plan allows, or the store fails.
    pub async fn check_releases(&self, tx: &mut Tx, tenant: &TenantRow) -> Result<(), BillingError> {
        let Some(plan) = self.find_plan(&tenant.plan) else {
            return Ok(());
        };
        let most = plan.max_releases_per_day;
        let Some(oldest) = releases::nth_newest_at(tx, &tenant.id, most).await? else {
            return Ok(());
        };
        let again_at = oldest.plus_seconds(DAY_SECONDS);
        if again_at <= self.clock.now() {
            return Ok(());
        }
        let larger = match self.larger(|other| other.max_releases_per_day > most) {
            Some(larger) => format!("; the plan `{larger}` allows more"),
            None => String::new(),
        };
        Err(BillingError::PlanLimit {
            what: format!(
                "the plan `{}` allows {most} releases of a tenant in 24 hours, and `{}` has had {most}",
                plan.name, tenant.name
            ),
            hint: format!(
                "wait until {again_at}; secrets that are set with `--stage` make no release{larger}"
            ),
        })
    }

    /// The cheapest plan that allows this.
    fn larger(&self, allows: impl Fn(&Plan) -> bool) -> Option<&str> {
        let found = self.plans.iter().find(|plan| allows(plan));
        found.map(|plan| plan.name.as_str())
    }

    /// Whether an account may have one tenant more on a plan.
    ///
    /// # Errors
    /// It may not, or the store fails.
    pub async fn check_room(&self, tx: &mut Tx, account: &AccountId, plan: &str) -> Result<(), BillingError> {
        let Some(plan) = self.find_plan(plan) else {
            return Ok(());
        };
        let used = tenants::count_by_plan(tx, account, &plan.name).await?;
        if used >= u64::from(plan.max_tenants) {
            let larger = match self.larger(|other| other.max_tenants > plan.max_tenants) {
                Some(larger) => format!(", or choose a larger plan: `--plan {larger}`"),
                None => String::new(),
            };
            return Err(BillingError::PlanLimit {
                what: format!(
                    "the plan `{}` allows {} tenants, and there are {used}",
                    plan.name, plan.max_tenants
                ),
                hint: format!(
                    "delete one that is not needed (`systemprompt tenant list` shows them){larger}"
                ),
            });
        }
        Ok(())
    }
}
