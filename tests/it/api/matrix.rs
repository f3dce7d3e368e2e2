//! Every route of the table, asked by everybody that there is: each cell has its answer written down here. A route that
//! has no row fails the test, and so does a row that has no route.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use systemprompt::api::routes::{ALL, Access, Route};

use crate::api::isolation::Victim;
use crate::api::rig::{Api, SCOPES, text};
use crate::gate::harness::{Answer, Client};

/// Who asks; each has a column.
const CALLERS: [&str; 12] = [
    "anonymous",
    "another user",
    "viewer",
    "developer",
    "owner",
    "operator",
    "operator, let in to read",
    "operator, let in fully",
    "expired",
    "revoked",
    "token of another tenant",
    "token of another scope",
];

// What each is answered: `.` let in, `1` 401, `3` 403, `4` there is no such thing (404).
const EVERYBODY: &str = "............";
const SIGNED_IN: &str = "1.......11..";
const LISTING: &str = "1.......11.3";
const ACCOUNT: &str = "1.......1133";
const OPERATOR: &str = "13333...1133";
const VIEWER: &str = "14...4..1143";
const DEVELOPER: &str = "143..43.1143";
const OWNER: &str = "1433.4331143";

/// Written by hand, and not reckoned from what the table says of its routes: it is the table that is tested.
const ROWS: &[(&str, &str, &str)] = &[
    ("GET", "/livez", EVERYBODY),
    ("GET", "/readyz", EVERYBODY),
    ("GET", "/health", EVERYBODY),
    // Everybody here is on this machine.
    ("GET", "/metrics", EVERYBODY),
    ("GET", "/openapi.json", EVERYBODY),
    ("GET", "/docs", EVERYBODY),
    ("GET", "/.well-known/oauth-authorization-server", EVERYBODY),
    ("GET", "/.well-known/jwks.json", EVERYBODY),
    ("POST", "/api/v1/oauth/device_authorization", EVERYBODY),
    ("POST", "/api/v1/oauth/token", EVERYBODY),
    ("POST", "/api/v1/oauth/revoke", EVERYBODY),
    ("GET", "/api/v1/jobs/health", OPERATOR),
    ("GET", "/api/v1/audit", OPERATOR),
    ("GET", "/api/v1/audit/verify", OPERATOR),
    ("POST", "/api/v1/reconcile", OPERATOR),
    ("GET", "/api/v1/operator/tenants", OPERATOR),
    ("GET", "/api/v1/me", SIGNED_IN),
    ("GET", "/api/v1/plans", SIGNED_IN),
    ("GET", "/api/v1/checkout/plans", SIGNED_IN),
    ("GET", "/api/v1/tenants", LISTING),
    ("GET", "/api/v1/tokens", ACCOUNT),
    ("POST", "/api/v1/tokens", ACCOUNT),
    ("DELETE", "/api/v1/tokens/{token_id}", ACCOUNT),
    ("GET", "/api/v1/sessions", ACCOUNT),
    ("DELETE", "/api/v1/sessions/{session_id}", ACCOUNT),
    ("GET", "/api/v1/identities", ACCOUNT),
    ("DELETE", "/api/v1/identities/{identity_id}", ACCOUNT),
    ("POST", "/api/v1/checkout", ACCOUNT),
    ("GET", "/api/v1/checkout/{checkout_id}", ACCOUNT),
    ("GET", "/api/v1/tenants/{tenant_id}", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/status", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/environment", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/events", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/logs", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/metrics", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/metrics/history", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/resources", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/operations", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/receipt", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/members", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/support-grants", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/releases", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/releases/{number}", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/rollback", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/secrets", VIEWER),
    ("GET", "/api/v1/tenants/{tenant_id}/secrets/{key}", VIEWER),
    (
        "GET",
        "/api/v1/tenants/{tenant_id}/secrets/{key}/versions",
        VIEWER,
    ),
    ("GET", "/api/v1/operations/{operation_id}", VIEWER),
    ("POST", "/api/v1/tenants/{tenant_id}/restart", DEVELOPER),
    ("POST", "/api/v1/tenants/{tenant_id}/retry-provision", DEVELOPER),
    ("GET", "/api/v1/tenants/{tenant_id}/registry-token", DEVELOPER),
    ("POST", "/api/v1/tenants/{tenant_id}/deploy", DEVELOPER),
    (
        "POST",
        "/api/v1/tenants/{tenant_id}/releases/{number}/pin",
        DEVELOPER,
    ),
    (
        "POST",
        "/api/v1/tenants/{tenant_id}/releases/{number}/unpin",
        DEVELOPER,
    ),
    ("POST", "/api/v1/tenants/{tenant_id}/rollback", DEVELOPER),
    ("POST", "/api/v1/tenants/{tenant_id}/secrets", DEVELOPER),
    ("PATCH", "/api/v1/tenants/{tenant_id}/secrets/{key}", DEVELOPER),
    (
        "POST",
        "/api/v1/tenants/{tenant_id}/secrets/{key}/restore",
        DEVELOPER,
    ),
    ("DELETE", "/api/v1/tenants/{tenant_id}/secrets/{key}", DEVELOPER),
    ("POST", "/api/v1/operations/{operation_id}/retry", DEVELOPER),
    ("POST", "/api/v1/operations/{operation_id}/cancel", DEVELOPER),
    ("POST", "/api/v1/operations/{operation_id}/abandon", DEVELOPER),
    ("PATCH", "/api/v1/tenants/{tenant_id}", OWNER),
    ("POST", "/api/v1/tenants/{tenant_id}/suspend", OWNER),
    ("POST", "/api/v1/tenants/{tenant_id}/activate", OWNER),
    ("GET", "/api/v1/tenants/{tenant_id}/audit", OWNER),
    ("POST", "/api/v1/tenants/{tenant_id}/members", OWNER),
    ("PATCH", "/api/v1/tenants/{tenant_id}/members/{account_id}", OWNER),
    (
        "DELETE",
        "/api/v1/tenants/{tenant_id}/members/{account_id}",
        OWNER,
    ),
    ("GET", "/api/v1/tenants/{tenant_id}/trust-rules", OWNER),
    ("POST", "/api/v1/tenants/{tenant_id}/trust-rules", OWNER),
    (
        "DELETE",
        "/api/v1/tenants/{tenant_id}/trust-rules/{rule_id}",
        OWNER,
    ),
    ("POST", "/api/v1/tenants/{tenant_id}/support-grants", OWNER),
    (
        "DELETE",
        "/api/v1/tenants/{tenant_id}/support-grants/{grant_id}",
        OWNER,
    ),
    ("GET", "/api/v1/tenants/{tenant_id}/credentials/{token}", OWNER),
    (
        "POST",
        "/api/v1/tenants/{tenant_id}/credentials/{token}/confirm",
        OWNER,
    ),
    ("POST", "/api/v1/tenants/{tenant_id}/rotate-credentials", OWNER),
    ("PATCH", "/api/v1/tenants/{tenant_id}/rotate-credentials", OWNER),
    ("POST", "/api/v1/tenants/{tenant_id}/rotate-jwt-secret", OWNER),
    // Last: nothing is left of it.
    ("DELETE", "/api/v1/tenants/{tenant_id}", OWNER),
];

#[test]
fn every_route_has_a_row_and_every_row_a_route() {
    let routes: BTreeSet<_> = ALL.iter().map(|route| (route.method, route.path)).collect();
    let rows: BTreeSet<_> = ROWS.iter().map(|(method, path, _)| (*method, *path)).collect();
    assert_eq!(rows.len(), ROWS.len(), "a route has two rows");
    let missing: Vec<_> = routes.difference(&rows).collect();
    assert!(missing.is_empty(), "routes without a row: {missing:?}");
    let stale: Vec<_> = rows.difference(&routes).collect();
    assert!(stale.is_empty(), "rows without a route: {stale:?}");
    for (method, path, cells) in ROWS {
        assert_eq!(cells.len(), CALLERS.len(), "{method} {path}");
    }
}

/// The tenants that are asked about: nobody is let in to the first, support is to the other two.
struct Place {
    api: Api,
    closed: Victim,
    read: Victim,
    full: Victim,
    callers: Vec<Client>,
    /// Tokens of the owner that lack one scope each, and one that has only `deploy`.
    lacking: Vec<(&'static str, Client)>,
}

const OWNER_EMAIL: &str = "carol@example.com";

impl Place {
    async fn new() -> Self {
        let api = Api::start();
        let carol = api.account(OWNER_EMAIL);
        let closed = Victim::new(&carol, "closed").await;
        let read = Victim::new(&carol, "read").await;
        let full = Victim::new(&carol, "full").await;
        for (victim, access) in [(&read, "read"), (&full, "full")] {
            let door = json!({"access": access, "expires_in_seconds": 3600});
            let answer = carol
                .post(&format!("{}/support-grants", victim.path), &door)
                .await;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        let mut members = Vec::new();
        for role in ["viewer", "developer"] {
            let email = format!("{role}@example.com");
            members.push(api.account(&email));
            let member = json!({"email": email, "role": role});
            let answer = carol.post(&format!("{}/members", closed.path), &member).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        let all = SCOPES.join(",");
        let expired = api.token_of(OWNER_EMAIL, &all, &["--expires-in", "1s"]);
        let revoked = json!({"name": "to be revoked", "scopes": SCOPES.to_vec(), "expires_in_seconds": 3600});
        let revoked = carol.post("/api/v1/tokens", &revoked).await.json();
        let path = format!("/api/v1/tokens/{}", text(&revoked["id"]));
        assert_eq!(carol.delete(&path).await.status, 204);
        let of_another = api.token_of(OWNER_EMAIL, &all, &["--tenant", &read.id]);
        let lacking = lacking(&api);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let developer = members.remove(1);
        let viewer = members.remove(0);
        let operator = || api.owner.clone();
        let callers = vec![
            api.anonymous(),
            api.account("bob@example.com"),
            viewer,
            developer,
            carol,
            operator(),
            operator(),
            operator(),
            api.with_token(&expired),
            api.with_token(&text(&revoked["token"])),
            api.with_token(&of_another),
        ];
        Self {
            closed,
            read,
            full,
            callers,
            lacking,
            api,
        }
    }

    /// Who asks this route in that column.
    fn caller(&self, column: usize, route: &Route) -> &Client {
        if let Some(caller) = self.callers.get(column) {
            return caller;
        }
        let needed = match route.access {
            Access::Tenant(scope) => scope,
            _ => "",
        };
        let found = self.lacking.iter().find(|(scope, _)| *scope == needed);
        &found.expect("a token").1
    }

    /// Which tenant they ask about.
    fn victim(&self, column: usize) -> &Victim {
        match CALLERS[column] {
            "operator, let in to read" => &self.read,
            "operator, let in fully" => &self.full,
            _ => &self.closed,
        }
    }
}

fn lacking(api: &Api) -> Vec<(&'static str, Client)> {
    let mut lacking: Vec<(&'static str, Client)> = Vec::new();
    for scope in SCOPES {
        let others: Vec<&str> = SCOPES.into_iter().filter(|other| *other != scope).collect();
        let token = api.token_of(OWNER_EMAIL, &others.join(","), &[]);
        lacking.push((scope, api.with_token(&token)));
    }
    let token = api.token_of(OWNER_EMAIL, "deploy", &[]);
    lacking.push(("", api.with_token(&token)));
    lacking
}

/// The answer in one letter.
fn letter(answer: &Answer) -> char {
    let hidden = ["no tenant of that id", "no operation of that id"];
    match answer.status {
        401 => '1',
        403 => '3',
        404 if hidden.contains(&answer.json()["detail"].as_str().unwrap_or_default()) => '4',
        status if status >= 500 || status == 429 => '!',
        // What is let in may find nothing, or not be possible now.
        _ => '.',
    }
}

#[tokio::test]
async fn everybody_asks_every_route() {
    let place = Place::new().await;
    let mut wrong = Vec::new();
    let mut asked = 0;
    for (method, path, cells) in ROWS {
        let route = ALL
            .iter()
            .find(|route| route.method == *method && route.path == *path)
            .expect("a route");
        for (column, expected) in cells.chars().enumerate() {
            let caller = place.caller(column, route);
            let asked_for = place.victim(column).route(route);
            let answer = caller.send(caller.to(route, &asked_for)).await;
            let found = letter(&answer);
            if found != expected {
                let who = CALLERS[column];
                let told = answer.text();
                wrong.push(format!(
                    "{method} {path} by {who}: {} instead of `{expected}`: {told}",
                    answer.status
                ));
            }
            asked += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(asked, ALL.len() * CALLERS.len());
    // Whatever was refused has changed nothing that those who were refused could have changed.
    let doors = place
        .api
        .owner
        .list(&format!("{}/members", place.full.path))
        .await;
    assert_eq!(doors.len(), 1);
    let listed = place.callers[1].list("/api/v1/tenants").await;
    let names: Vec<String> = listed.iter().map(|tenant| text(&tenant["name"])).collect();
    // The other user has bought one of their own when their turn came.
    assert!(names.iter().all(|name| name == "somebody"), "{names:?}");
}
