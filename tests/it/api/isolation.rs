//! Whoever may not see a tenant learns nothing of it, on any route; who lacks a scope is told which.

use serde_json::{Value, json};
use systemprompt::api::routes::Route;

use crate::api::rig::{Api, SCOPES, filled, problem, tenant_routes, text, without_request_id};
use crate::gate::harness::Client;

/// A tenant that runs, with a secret, and what names its parts.
pub(super) struct Victim {
    pub(super) path: String,
    pub(super) id: String,
    credentials: String,
    operation: String,
}

impl Victim {
    pub(super) async fn new(owner: &Client, name: &str) -> Self {
        let path = owner.tenant(name).await;
        owner.stage(&path, "ANTHROPIC_API_KEY", "its own").await;
        let deployed = owner.deploy(&path, name).await;
        let operation = owner.succeeded(&deployed).await;
        let tenant = owner.read(&path).await;
        Self {
            id: text(&tenant["id"]),
            credentials: text(&tenant["credentials_token"]),
            operation: text(&operation["id"]),
            path,
        }
    }

    pub(super) fn route(&self, route: &Route) -> String {
        let parameters = [
            ("tenant_id", self.id.as_str()),
            ("operation_id", &self.operation),
            ("token", &self.credentials),
        ];
        filled(route, &parameters)
    }

    /// Everything that an intruder could have changed.
    async fn whole(&self, owner: &Client) -> Vec<Value> {
        let mut all = vec![owner.read(&self.path).await];
        for part in ["events", "secrets", "releases", "operations", "resources"] {
            all.push(owner.read(&format!("{}/{part}", self.path)).await);
        }
        all
    }
}

/// On every route of the tenant the caller is told exactly what they would be told of a tenant that never was.
async fn sees_nothing(caller: &Client, victim: &Victim) {
    let mut seen = 0;
    for (route, _) in tenant_routes() {
        let name = format!("{} {}", route.method, route.path);
        let there = caller.send(caller.to(route, &victim.route(route))).await;
        let nowhere = caller.send(caller.to(route, &filled(route, &[]))).await;
        assert_eq!(problem(&there), (404, "not-found".to_owned()), "{name}");
        assert_eq!(without_request_id(&there), without_request_id(&nowhere), "{name}");
        assert_eq!(there.header("location"), "", "{name}");
        seen += 1;
    }
    assert!(seen >= 25, "only {seen} routes are under a tenant");
}

#[tokio::test]
async fn another_account_sees_nothing_of_a_tenant() {
    let api = Api::start();
    let victim = Victim::new(&api.owner, "acme").await;
    let before = victim.whole(&api.owner).await;
    let intruder = api.account("bob@example.com");
    sees_nothing(&intruder, &victim).await;
    assert_eq!(victim.whole(&api.owner).await, before);
    assert!(intruder.list("/api/v1/tenants").await.is_empty());
}

#[tokio::test]
async fn an_operator_sees_nothing_of_anothers_tenant() {
    let api = Api::start();
    let customer = api.account("bob@example.com");
    let victim = Victim::new(&customer, "acme").await;
    sees_nothing(&api.owner, &victim).await;
}

#[tokio::test]
async fn a_token_of_one_tenant_sees_nothing_of_its_owners_others() {
    let api = Api::start();
    let victim = Victim::new(&api.owner, "acme").await;
    let own = api.owner.tenant("other").await;
    let own_id = own.rsplit('/').next().expect("an id");
    let caller = api.limited(&SCOPES.join(","), &["--tenant", own_id]);
    sees_nothing(&caller, &victim).await;
    let listed = caller.list("/api/v1/tenants").await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["id"], own_id);
    assert_eq!(caller.get(&own).await.status, 200);
}

#[tokio::test]
async fn a_token_of_one_tenant_does_no_work_on_the_account() {
    let api = Api::start();
    let own = api.owner.tenant("acme").await;
    let own_id = own.rsplit('/').next().expect("an id");
    let caller = api.limited(&SCOPES.join(","), &["--tenant", own_id]);
    let token = json!({"name": "wider", "scopes": ["read"], "expires_in_seconds": 60});
    for answer in [
        caller.checkout("more").await,
        caller.post("/api/v1/tokens", &token).await,
        caller.get("/api/v1/tokens").await,
        caller.get("/api/v1/jobs/health").await,
        caller
            .delete("/api/v1/tokens/tok_00000000000000000000000000")
            .await,
        caller
            .get("/api/v1/checkout/chk_00000000000000000000000000")
            .await,
    ] {
        assert_eq!(
            problem(&answer),
            (403, "forbidden".to_owned()),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn who_lacks_a_scope_is_told_which() {
    let api = Api::start();
    let victim = Victim::new(&api.owner, "acme").await;
    let before = victim.whole(&api.owner).await;
    for lacking in SCOPES {
        let others: Vec<&str> = SCOPES.into_iter().filter(|scope| *scope != lacking).collect();
        let caller = api.limited(&others.join(","), &[]);
        for (route, _) in tenant_routes().filter(|(_, scope)| *scope == lacking) {
            let answer = caller.send(caller.to(route, &victim.route(route))).await;
            let name = format!("{} {}", route.method, route.path);
            assert_eq!(problem(&answer), (403, "forbidden".to_owned()), "{name}");
            let told = text(&answer.json()["detail"]);
            assert!(told.contains(&format!("`{lacking}`")), "{name}: {told}");
            let challenge = answer.header("www-authenticate");
            assert!(
                challenge.contains(&format!("scope=\"{lacking}\"")),
                "{name}: {challenge}"
            );
        }
    }
    assert_eq!(victim.whole(&api.owner).await, before);
}

#[tokio::test]
async fn the_scope_of_the_table_is_enough() {
    let api = Api::start();
    let victim = Victim::new(&api.owner, "acme").await;
    for scope in SCOPES {
        let caller = api.limited(scope, &[]);
        for (route, _) in tenant_routes().filter(|(_, wanted)| *wanted == scope) {
            let answer = caller.send(caller.to(route, &victim.route(route))).await;
            // What the tenant is ready for is another question.
            assert!(
                !matches!(answer.status, 401 | 403),
                "{} {}: {}",
                route.method,
                route.path,
                answer.text()
            );
        }
    }
}

#[tokio::test]
async fn the_parts_of_one_tenant_are_not_found_in_another() {
    let api = Api::start();
    let victim = Victim::new(&api.owner, "acme").await;
    let intruder = api.account("bob@example.com");
    let own = intruder.tenant("own").await;
    for part in [
        format!("credentials/{}", victim.credentials),
        "releases/1".to_owned(),
        "secrets/ANTHROPIC_API_KEY".to_owned(),
    ] {
        let answer = intruder.get(&format!("{own}/{part}")).await;
        assert_eq!(problem(&answer), (404, "not-found".to_owned()), "{part}");
    }
    let confirm = format!("{own}/credentials/{}/confirm", victim.credentials);
    assert_eq!(intruder.post_empty(&confirm).await.status, 404);
    let theirs = format!("{}/credentials/{}", victim.path, victim.credentials);
    assert_eq!(api.owner.get(&theirs).await.status, 200);
}

#[tokio::test]
async fn purchases_and_tokens_are_their_accounts_own() {
    let api = Api::start();
    let intruder = api.account("bob@example.com");
    let bought = api.owner.checkout("acme").await;
    let token = json!({"name": "x", "scopes": ["read"], "expires_in_seconds": 600});
    let made = api.owner.post("/api/v1/tokens", &token).await.json();
    let token_path = format!("/api/v1/tokens/{}", text(&made["id"]));
    for answer in [
        intruder.get(&bought.header("location")).await,
        intruder.delete(&token_path).await,
    ] {
        assert_eq!(problem(&answer), (404, "not-found".to_owned()));
    }
    let listed = intruder.get("/api/v1/tokens").await.text();
    assert!(!listed.contains(&text(&made["id"])));
    assert_eq!(
        api.with_token(&text(&made["token"]))
            .get("/api/v1/me")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_token_for_anothers_tenant_is_not_made() {
    let api = Api::start();
    let victim = api.owner.tenant("acme").await;
    let intruder = api.account("bob@example.com");
    let ask = async |tenant: &str| {
        let body = json!({"name": "x", "scopes": ["read"], "expires_in_seconds": 60, "tenant_id": tenant});
        intruder.post("/api/v1/tokens", &body).await
    };
    let there = ask(victim.rsplit('/').next().expect("an id")).await;
    let nowhere = ask("ten_00000000000000000000000000").await;
    assert_eq!(problem(&there), (400, "invalid-request".to_owned()));
    assert_eq!(without_request_id(&there), without_request_id(&nowhere));
}
