//! Plans and checkouts.

use reqwest::Method;

use crate::api::checkout::{Checkout, CheckoutRequest, Plan};
use crate::api::id::CheckoutId;
use crate::api::page::Page;
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

impl Client {
    /// Every plan.
    pub async fn list_plans(&self) -> Result<Vec<Plan>, ClientError> {
        let page: Page<Plan> = self.call(Call::get("/api/v1/plans")).await?;
        Ok(page.data)
    }

    /// Begins a purchase; a free plan completes at once.
    pub async fn create_checkout(&self, request: &CheckoutRequest) -> Result<Checkout, ClientError> {
        self.call(Call::change(Method::POST, "/api/v1/checkout").json(request)?)
            .await
    }

    /// One purchase.
    pub async fn get_checkout(&self, id: &CheckoutId) -> Result<Checkout, ClientError> {
        self.call(Call::get(&format!("/api/v1/checkout/{id}"))).await
    }
}
