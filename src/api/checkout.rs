//! Plans and checkouts: the only way by which a tenant comes into being.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::id::{CheckoutId, OperationId, TenantId};
use crate::api::name::TenantName;
use crate::api::tenant::DatabaseKind;

/// What can be bought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Names the price in a checkout (`pri_…`).
    pub price_id: String,
    /// `free`, `basic`, `pro`.
    pub name: String,
    /// For people.
    pub description: String,
    /// Price in the currency's minor unit (cents); 0 is free.
    pub amount_minor: u64,
    /// ISO 4217.
    pub currency: String,
    /// `month` or `year`; absent when it is free.
    pub interval: Option<String>,
    /// The most memory a tenant of this plan may have, in MB.
    pub max_memory_mb: u32,
    /// How many tenants one account may have on this plan.
    pub max_tenants: u32,
    /// How many releases one tenant may have in 24 hours: deploys, restarts and secrets that are applied at once. Going
    /// back, another size and new credentials are never refused.
    pub max_releases_per_day: u32,
    /// Where its tenants may run.
    pub regions: Vec<String>,
}

/// `POST /checkout`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckoutRequest {
    /// The plan's price.
    pub price_id: String,
    /// The tenant's name.
    pub name: TenantName,
    /// Where it shall run.
    pub region: String,
    /// 256, 512, 1024 or 2048; the plan's smallest unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Its database.
    #[serde(default)]
    pub database: DatabaseKind,
    /// Where the pay page sends the browser afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_uri: Option<String>,
}

/// How a checkout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckoutStatus {
    /// Waits for the payment.
    Open,
    /// Paid; the tenant exists.
    Complete,
    /// Not paid in time, or called off.
    Expired,
}

/// One purchase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checkout {
    /// Names the checkout.
    pub checkout_id: CheckoutId,
    /// How it stands.
    pub status: CheckoutStatus,
    /// The page on which it is paid, while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkout_url: Option<String>,
    /// The tenant it made, once complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<TenantId>,
    /// The operation that creates the tenant, once complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}
