//! The sandbox's pay page: one button that stands for a payment. Its address is the right to press it.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::api::checkout::{CheckoutStatus, Plan};
use crate::api::tenant::DatabaseKind;
use crate::server::billing::{BillingError, Buyer};
use crate::server::http::App;
use crate::server::store::checkouts::CheckoutRow;
use crate::server::store::{StoreError, accounts, acts};
use crate::server::web::page::{Message, Page, PageError, Shown};
use crate::server::web::session::check_origin;

#[derive(Template)]
#[template(path = "pages/pay.html")]
struct Pay {
    name: String,
    plan: String,
    description: String,
    region: String,
    memory_mb: u32,
    database: &'static str,
    interval: Option<String>,
    price: String,
}

/// What is bought, and the button.
pub(super) async fn show_pay(State(app): State<App>, Path(token): Path<String>) -> Shown {
    let mut tx = app.store.begin_read().await?;
    let checkout = app
        .billing
        .find_by_pay_token(&mut tx, &token)
        .await?
        .ok_or_else(unknown)?;
    match app.billing.status(&checkout) {
        CheckoutStatus::Open => {}
        CheckoutStatus::Complete => return Ok(paid(&checkout)),
        CheckoutStatus::Expired => return Err(unknown()),
    }
    let plan = app
        .billing
        .find_plan(&checkout.request.price_id)
        .ok_or_else(unknown)?;
    Ok(Page(Pay {
        name: checkout.request.name.to_string(),
        plan: plan.name.clone(),
        description: plan.description.clone(),
        region: checkout.request.region.clone(),
        memory_mb: app.billing.memory_of(plan, &checkout.request),
        database: match checkout.request.database {
            DatabaseKind::Postgres => "PostgreSQL",
            DatabaseKind::Sqlite => "SQLite",
        },
        interval: plan.interval.clone(),
        price: price(plan),
    })
    .into_response())
}

/// The button was pressed.
pub(super) async fn pay(State(app): State<App>, Path(token): Path<String>, headers: HeaderMap) -> Shown {
    check_origin(&app, &headers)?;
    let mut tx = app.store.begin().await?;
    let checkout = app
        .billing
        .find_by_pay_token(&mut tx, &token)
        .await?
        .ok_or_else(unknown)?;
    if app.billing.status(&checkout) == CheckoutStatus::Complete {
        return Ok(paid(&checkout));
    }
    let account = accounts::find(&mut tx, &checkout.account_id)
        .await?
        .ok_or_else(|| StoreError::Missing {
            what: "account",
            id: checkout.account_id.to_string(),
        })?;
    let buyer = Buyer {
        account_id: account.id,
        email: account.email,
    };
    let completed = match app.billing.complete(&mut tx, &checkout, &buyer).await {
        // A second click came while the first was under way.
        Err(BillingError::Closed) => return Err(unknown()),
        other => other?,
    };
    acts::by("browser", None, &checkout.account_id);
    acts::about(checkout.id.as_str());
    if let Some(made) = &completed.made {
        acts::on_tenant(&made.tenant_id, Some("owner"));
    }
    tx.commit().await?;
    app.provision.wake();
    Ok(paid(&completed))
}

fn paid(checkout: &CheckoutRow) -> Response {
    Page(Message {
        title: "Paid".to_owned(),
        text: format!(
            "The tenant {} is being made. Go back to your terminal to follow it; you can close this page.",
            checkout.request.name
        ),
        good: true,
        return_to: checkout.request.redirect_uri.clone(),
    })
    .into_response()
}

fn unknown() -> PageError {
    PageError::new(
        StatusCode::NOT_FOUND,
        "There is nothing to pay here",
        "The purchase has expired or never was. Begin another one with: systemprompt tenant create",
    )
}

/// `9.00 EUR`.
fn price(plan: &Plan) -> String {
    format!(
        "{}.{:02} {}",
        plan.amount_minor / 100,
        plan.amount_minor % 100,
        plan.currency
    )
}

#[cfg(test)]
mod tests {
    use super::price;
    use crate::server::billing::plans::load;

    #[test]
    fn prices_have_two_digits_after_the_point() {
        let plans = load().expect("plans");
        let prices: Vec<String> = plans.iter().map(price).collect();
        assert_eq!(prices, ["0.00 EUR", "9.00 EUR", "29.00 EUR"]);
    }
}
