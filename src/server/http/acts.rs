//! Has every act recorded: what changes something, what gives out a credential, and whatever an operator does by a door
//! that an owner has opened for them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::extract::{FromRequestParts as _, MatchedPath, RawPathParams, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::api::audit::AuditResult;
use crate::api::id::RequestId;
use crate::api::problem::Problem;
use crate::api::registry::Pushed;
use crate::server::auth::Principal;
use crate::server::http::App;
use crate::server::http::error::{ApiError, chain};
use crate::server::http::layers::address_of;
use crate::server::http::openapi;
use crate::server::store::acts::{self, Act, perform};

/// These only look, and give out a credential.
const GIVING_OUT: [&str; 4] = [
    "get_registry_token",
    "get_credentials",
    "sign_in_by_provider",
    "visit_tenant",
];

/// The name of every operation, by method and path.
static NAMES: LazyLock<BTreeMap<(String, String), String>> = LazyLock::new(openapi::operation_names);

/// The innermost layer of every route that somebody acts on: the act is recorded in the transaction that does it, or
/// by itself where it was refused. What cannot be recorded is not done.
pub async fn record(State(app): State<App>, request: Request, next: Next) -> Result<Response, ApiError> {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("", MatchedPath::as_str);
    let action = name_of(request.method(), route);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let only_looks = reads && !GIVING_OUT.contains(&action.as_str());
    let caller = request.extensions().get::<Principal>();
    if only_looks && !caller.is_some_and(|caller| caller.operator) {
        return Ok(next.run(request).await);
    }
    Box::pin(run_recorded(app, (action, only_looks), request, next)).await
}

async fn run_recorded(
    app: App,
    (action, only_looks): (String, bool),
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let target = target_of(&mut parts).await;
    let request_id = parts
        .extensions
        .get::<RequestId>()
        .map_or_else(String::new, ToString::to_string);
    let mut act = Act::new(action, request_id, app.clock.now());
    act.address = Some(address_of(&parts.extensions));
    act.target = target;
    if let Some(caller) = parts.extensions.get::<Principal>() {
        caller.credential.kind().clone_into(&mut act.actor);
        act.credential_id = Some(caller.credential.id().to_owned());
        act.account_id = Some(caller.account_id.clone());
    }
    let request = Request::from_parts(parts, body);
    let work = async {
        if only_looks {
            // Until the handler has found out by which door an operator comes in.
            acts::leave_out();
        }
        next.run(request).await
    };
    let (response, left) = perform(act, work).await;
    if let Some(mut act) = left {
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            return Ok(response);
        }
        ended(&mut act, &response);
        if let Err(error) = app.store.record(&act).await {
            tracing::error!(
                error = chain(&error),
                action = act.action,
                "failed to record an act"
            );
            return Err(error.into());
        }
    }
    Ok(response)
}

/// The layer around the registry: a manifest that was pushed is recorded. It lies there already; where its record cannot be
/// written the push fails all the same, and is sent again.
pub async fn record_push(State(app): State<App>, request: Request, next: Next) -> Result<Response, ApiError> {
    let address = address_of(request.extensions());
    let request_id = request.extensions().get::<RequestId>();
    let request_id = request_id.map_or_else(String::new, ToString::to_string);
    let response = next.run(request).await;
    if let Some(pushed) = response.extensions().get::<Pushed>() {
        let act = Act {
            actor: "push_token".to_owned(),
            tenant_id: Some(pushed.tenant.clone()),
            target: Some(
                format!("{} {}", pushed.digest, pushed.tags.join(" "))
                    .trim_end()
                    .to_owned(),
            ),
            address: Some(address),
            ..Act::new("push_manifest", request_id, app.clock.now())
        };
        app.store.record(&act).await?;
    }
    Ok(response)
}

/// The operation's name in the description of the API; of a page: what its form does.
fn name_of(method: &Method, route: &str) -> String {
    NAMES
        .get(&(method.to_string(), route.to_owned()))
        .cloned()
        .unwrap_or_else(|| {
            match route {
                "/sign-in" => "sign_in_by_password",
                "/sign-in/{token}" => "sign_in_by_link",
                "/sign-in/with/{provider}/back" => "sign_in_by_provider",
                "/sign-in/connect" => "connect_identity",
                "/sign-out" => "sign_out",
                "/device" => "decide_device_login",
                "/pay/{token}" => "pay",
                "/visit/{label}" => "visit_tenant",
                other => other,
            }
            .to_owned()
        })
}

/// What the path names besides the tenant. One-time tokens are secret.
async fn target_of(parts: &mut axum::http::request::Parts) -> Option<String> {
    let parameters = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    let named: Vec<&str> = parameters
        .iter()
        .filter(|(name, _)| *name != "token")
        .map(|(_, value)| value)
        .collect();
    (!named.is_empty()).then(|| named.join(" ").chars().take(200).collect())
}

fn ended(act: &mut Act, response: &Response) {
    let status = response.status();
    act.result = match status {
        _ if status.is_server_error() => AuditResult::Failed,
        _ if status.is_client_error() => AuditResult::Refused,
        _ => act.result,
    };
    if act.result != AuditResult::Done && act.code.is_none() {
        let problem = response.extensions().get::<Problem>();
        act.code = Some(problem.map_or_else(|| status.as_u16().to_string(), |problem| problem.code.clone()));
    }
}
