//! Plans and purchases. A tenant comes into being when a purchase completes: its row and the operation that makes it
//! are written in one transaction.

pub mod plans;
mod quotas;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::api::checkout::{Checkout, CheckoutRequest, CheckoutStatus, Plan};
use crate::api::id::{AccountId, CheckoutId, TenantId};
use crate::api::name::TenantName;
use crate::api::tenant::{DatabaseKind, MEMORY_SIZES_MB};
use crate::server::billing::plans::{CatalogueError, load};
use crate::server::clock::Clock;
use crate::server::provision::{EnqueueError, NewOperation, Provision, Work};
use crate::server::store::checkouts::{CheckoutRow, Made};
use crate::server::store::tenants::NewTenant;
use crate::server::store::{StoreError, Tx, checkouts, tenants};

/// How long an open purchase can be paid, in seconds.
pub const LIFE_SECONDS: u32 = 24 * 3600;

/// Why nothing was bought.
#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    /// A field of the request.
    #[error("{detail}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The plan does not allow it: the limit, and what of it is used.
    #[error("{what}")]
    PlanLimit {
        /// In words.
        what: String,
        /// The way out.
        hint: String,
    },
    /// A living tenant has the name.
    #[error("a tenant named `{0}` exists already")]
    NameTaken(TenantName),
    /// The purchase was paid or has expired.
    #[error("the purchase is not open (any more)")]
    Closed,
    /// The operation was refused.
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    /// The store failed.
    #[error("failed to read or write purchases")]
    Store(#[from] StoreError),
}

/// Buys tenants.
#[derive(Clone)]
pub struct Billing {
    plans: Vec<Plan>,
    clock: Clock,
    provision: Provision,
    pay_key: [u8; 32],
    sandbox: bool,
}

/// Who buys: the account, and how operations call them.
#[derive(Clone, Debug)]
pub struct Buyer {
    /// Who pays.
    pub account_id: AccountId,
    /// Their e-mail address.
    pub email: String,
}

impl Billing {
    /// With the embedded plans; `pay_key` makes the addresses of pay pages.
    ///
    /// # Errors
    /// The embedded plans are damaged.
    pub fn new(clock: Clock, provision: Provision, pay_key: [u8; 32]) -> Result<Self, CatalogueError> {
        Ok(Self {
            plans: load()?,
            clock,
            provision,
            pay_key,
            sandbox: true,
        })
    }

    /// Whether a button may stand for a payment. Without it only free plans can be had.
    #[must_use]
    pub fn with_sandbox(mut self, sandbox: bool) -> Self {
        self.sandbox = sandbox;
        self
    }

    /// What can be bought.
    #[must_use]
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    /// The plan of that name or price.
    #[must_use]
    pub fn find_plan(&self, name_or_price: &str) -> Option<&Plan> {
        self.plans
            .iter()
            .find(|plan| plan.price_id == name_or_price || plan.name == name_or_price)
    }

    /// Begins a purchase in the caller's transaction; a free one completes at once. Wake the engine after the commit.
    ///
    /// # Errors
    /// The request is refused, the name is taken, the plan is used up, or the store fails.
    pub async fn begin(
        &self,
        tx: &mut Tx,
        buyer: &Buyer,
        request: &CheckoutRequest,
    ) -> Result<CheckoutRow, BillingError> {
        let plan = self.check(request)?;
        self.check_free(tx, &buyer.account_id, plan, &request.name)
            .await?;
        let now = self.clock.now();
        let id = CheckoutId::new(self.clock.uuid());
        let is_free = plan.amount_minor == 0;
        if !is_free && !self.sandbox {
            return Err(BillingError::PlanLimit {
                what: format!(
                    "nothing is sold here: only free plans can be had, not `{}`",
                    plan.name
                ),
                hint: "see the plans: `systemprompt tenant create` without `--plan`, on a terminal"
                    .to_owned(),
            });
        }
        let row = CheckoutRow {
            pay_token_hash: (!is_free).then(|| hash(&self.pay_token(&id))),
            id,
            account_id: buyer.account_id.clone(),
            status: CheckoutStatus::Open,
            request: request.clone(),
            made: None,
            created_at: now,
            expires_at: now.plus_seconds(i64::from(LIFE_SECONDS)),
        };
        checkouts::create(tx, &row).await?;
        if is_free {
            return self.complete(tx, &row, buyer).await;
        }
        Ok(row)
    }

    /// Completes a purchase that was paid: the tenant and the operation that creates it. Wake the engine after the
    /// commit.
    ///
    /// # Errors
    /// The purchase is not open, the name was taken meanwhile, the plan was used up, or the store fails.
    pub async fn complete(
        &self,
        tx: &mut Tx,
        checkout: &CheckoutRow,
        buyer: &Buyer,
    ) -> Result<CheckoutRow, BillingError> {
        // Holds the row, so that a second click waits and then finds it complete.
        let checkout = checkouts::find_locked(tx, &checkout.id)
            .await?
            .filter(|row| self.status(row) == CheckoutStatus::Open)
            .ok_or(BillingError::Closed)?;
        let request = &checkout.request;
        let plan = self.check(request)?;
        self.check_free(tx, &checkout.account_id, plan, &request.name)
            .await?;
        let new = NewTenant {
            id: TenantId::new(self.clock.uuid()),
            name: request.name.clone(),
            owner_id: checkout.account_id.clone(),
            plan: plan.name.clone(),
            region: request.region.clone(),
            provider: self.provision.provider_name().to_owned(),
            memory_mb: self.memory_of(plan, request),
            database: request.database,
        };
        let tenant = match tenants::insert(tx, &new, self.clock.now()).await {
            Ok(tenant) => tenant,
            Err(StoreError::Duplicate(_)) => return Err(BillingError::NameTaken(new.name)),
            Err(error) => return Err(error.into()),
        };
        let operation = NewOperation {
            tenant_id: tenant.id.clone(),
            work: Work::CreateTenant,
            requested_by: buyer.email.clone(),
        };
        let made = Made {
            operation_id: self.provision.enqueue(tx, operation).await?,
            tenant_id: tenant.id,
        };
        checkouts::complete(tx, &checkout.id, &made).await?;
        Ok(CheckoutRow {
            status: CheckoutStatus::Complete,
            made: Some(made),
            ..checkout
        })
    }

    /// The purchase whose pay page has this token in its address.
    ///
    /// # Errors
    /// The store fails.
    pub async fn find_by_pay_token(
        &self,
        tx: &mut Tx,
        token: &str,
    ) -> Result<Option<CheckoutRow>, StoreError> {
        if !self.sandbox {
            return Ok(None);
        }
        checkouts::find_by_pay_token(tx, &hash(token)).await
    }

    /// The memory that a purchase is for.
    #[must_use]
    pub fn memory_of(&self, plan: &Plan, request: &CheckoutRequest) -> u32 {
        request.memory_mb.unwrap_or(smallest(plan))
    }

    /// How a purchase stands now.
    #[must_use]
    pub fn status(&self, row: &CheckoutRow) -> CheckoutStatus {
        if row.status == CheckoutStatus::Open && row.expires_at <= self.clock.now() {
            return CheckoutStatus::Expired;
        }
        row.status
    }

    /// The purchase as it is shown; the pay page lives below `public_url`.
    #[must_use]
    pub fn shown(&self, row: &CheckoutRow, public_url: &str) -> Checkout {
        let status = self.status(row);
        let open = status == CheckoutStatus::Open;
        Checkout {
            checkout_id: row.id.clone(),
            status,
            checkout_url: open.then(|| format!("{public_url}/pay/{}", self.pay_token(&row.id))),
            tenant_id: row.made.as_ref().map(|made| made.tenant_id.clone()),
            operation_id: row.made.as_ref().map(|made| made.operation_id.clone()),
        }
    }

    fn check(&self, request: &CheckoutRequest) -> Result<&Plan, BillingError> {
        let refuse = |field, detail: String| Err(BillingError::Invalid { field, detail });
        let Some(plan) = self.plans.iter().find(|plan| plan.price_id == request.price_id) else {
            let known: Vec<&str> = self.plans.iter().map(|plan| plan.price_id.as_str()).collect();
            return refuse("price_id", format!("the prices are {}", known.join(", ")));
        };
        if !plan.regions.contains(&request.region) {
            return refuse(
                "region",
                format!(
                    "the plan `{}` has the regions {}",
                    plan.name,
                    plan.regions.join(", ")
                ),
            );
        }
        if request.database == DatabaseKind::Sqlite {
            return refuse(
                "database",
                "this server has no encrypted SQLite databases yet; choose `postgres`".to_owned(),
            );
        }
        if let Some(memory_mb) = request.memory_mb {
            self.check_memory(&plan.name, memory_mb)?;
        }
        if request
            .redirect_uri
            .as_deref()
            .is_some_and(|uri| !may_return_to(uri))
        {
            return refuse(
                "redirect_uri",
                "only https addresses and addresses of your own machine can be returned to".to_owned(),
            );
        }
        Ok(plan)
    }

    async fn check_free(
        &self,
        tx: &mut Tx,
        account: &AccountId,
        plan: &Plan,
        name: &TenantName,
    ) -> Result<(), BillingError> {
        if tenants::find_by_live_name(tx, name).await?.is_some() {
            return Err(BillingError::NameTaken(name.clone()));
        }
        self.check_room(tx, account, &plan.name).await
    }

    /// The secret part of a pay page's address: derived, so that it can be shown again and is stored nowhere.
    #[expect(
        clippy::expect_used,
        reason = "HMAC takes keys of any length: there is no error to pass on"
    )]
    fn pay_token(&self, id: &CheckoutId) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.pay_key).expect("HMAC takes keys of any length");
        mac.update(id.as_str().as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
}

fn smallest(plan: &Plan) -> u32 {
    MEMORY_SIZES_MB
        .into_iter()
        .find(|size| *size <= plan.max_memory_mb)
        .unwrap_or(plan.max_memory_mb)
}

fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

fn may_return_to(uri: &str) -> bool {
    url::Url::parse(uri).is_ok_and(|url| match url.scheme() {
        "https" => url.has_host(),
        "http" => matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost")),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::may_return_to;

    #[test]
    fn browsers_are_sent_to_safe_places_only() {
        assert!(may_return_to("http://127.0.0.1:41234/done"));
        assert!(may_return_to("https://example.com/done"));
        for bad in [
            "http://example.com/",
            "javascript:alert(1)",
            "//evil",
            "ftp://127.0.0.1/",
        ] {
            assert!(!may_return_to(bad), "{bad}");
        }
    }
}
