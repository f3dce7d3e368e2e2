//! Canary secrets in every place that takes or gives one; a whole journey of a tenant against a real server; then every
//! log line, event, answer, table and argument is searched for them.

mod sweep;

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use systemprompt::api::oauth::{CLIENT_ID, EXCHANGE_GRANT};
use systemprompt::server::auth::keys::Keys;

use crate::api::canaries::sweep::{Sweep, Watch, files};
use crate::api::github::{self, GitHub, primary};
use crate::api::identity::{self, Browser, Provider};
use crate::api::rig::{Api, PASSWORD, SCOPES, text};
use crate::api::sign_in;
use crate::cli::rig::Server;
use crate::gate::harness::Client;

/// Two providers of identities, with their secrets: one in a file, one in the environment. Answers the flag's value.
fn with_providers(server: &mut Server, sweep: &mut Sweep, (company, github): (&Provider, &GitHub)) -> String {
    sweep.plant("OIDC client secret", identity::SECRET);
    sweep.plant("GitHub client secret", github::SECRET);
    let house = &mut server.house;
    house.put("oidc-secret", identity::SECRET);
    let listed = format!("company={},{}", company.url(), identity::CLIENT);
    house.set("SYSTEMPROMPT_OIDC_PROVIDERS", &listed);
    let listed = format!("github={},{}", github.url(), github::CLIENT);
    house.set("SYSTEMPROMPT_GITHUB_PROVIDERS", &listed);
    house.set("SYSTEMPROMPT_OIDC_GITHUB_SECRET", github::SECRET);
    house.set(
        "SYSTEMPROMPT_OIDC_SIGN_UP",
        "company=company.example github=company.example",
    );
    format!("company={}", house.path("oidc-secret").display())
}

/// The installation's own keys, and that of billing, which is derived from one of them.
fn plant_keys(sweep: &mut Sweep, api: &Api) {
    let data = PathBuf::from(api.server.data_dir());
    let keys = Keys::open_file(&data.join("signing.key")).expect("the key");
    sweep.plant("key of billing", &hex::encode(keys.derive("pay-page")));
    for file in ["signing.key", "master.key"] {
        let text = std::fs::read_to_string(data.join(file)).expect("a key");
        let longest = text.split([':', '\n', ' ', '"']).max_by_key(|word| word.len());
        sweep.plant(file, longest.expect("a key"));
    }
}

/// The journey of one tenant, with canaries all along.
struct Journey {
    api: Api,
    sweep: Sweep,
    company: Provider,
    github: GitHub,
    carol: Client,
    tenant: String,
}

impl Journey {
    /// A server whose operator has a password, an owner with one, and a tenant.
    async fn begin() -> Self {
        let mut sweep = Sweep::default();
        let mut server = Server::down();
        let password = sweep.make("admin-password");
        server.house.put("admin-password", &format!("{password}\n"));
        let file = server.house.path("admin-password").display().to_string();
        let (company, github) = (Provider::start().await, GitHub::start().await);
        let secret = with_providers(&mut server, &mut sweep, (&company, &github));
        server.up_one(
            0,
            &["--admin-password-file", &file, "--oidc-secret-file", &secret],
        );
        let mut api = Api::over(server);
        plant_keys(&mut sweep, &api);
        sweep.plant("operator's API token", &api.token);
        api.server.house.set("SYSTEMPROMPT_TOKEN", &api.token.clone());
        sweep.plant("owner's password", PASSWORD);
        api.account("carol@example.com");
        let token = api.token_of("carol@example.com", &SCOPES.join(","), &[]);
        sweep.plant("owner's API token", &token);
        let carol = api.with_token(&token);
        api.server.house.set("SYSTEMPROMPT_TOKEN", &token);
        let created = api.server.tenant("acme");
        sweep.hear_command("tenant create", &created);
        let listed = carol.list("/api/v1/tenants").await;
        let tenant = format!("/api/v1/tenants/{}", text(&listed[0]["id"]));
        Self {
            api,
            sweep,
            company,
            github,
            carol,
            tenant,
        }
    }

    /// Signs in by a provider; answers what is shown at the end, and keeps in mind what the browser was given.
    async fn sign_in_by(&mut self, name: &str) -> u16 {
        let mut browser = Browser::new(self.api.anonymous());
        let page = browser.sign_in_by(name, "/").await;
        self.sweep.hear(&format!("signing in by {name}"), page.text());
        for (cookie, value) in browser.cookies {
            self.sweep.plant(&format!("{cookie} of {name}"), &value);
        }
        page.status
    }

    /// People of providers: let in, refused, and while the provider refuses this server.
    async fn providers(&mut self) {
        let back = |name: &str| format!("{}/sign-in/with/{name}/back", self.api.anonymous().url);
        self.company.registers(&back("company"));
        self.github.registers(&back("github"));
        self.sweep.plant("GitHub's access token", github::TOKEN);
        let known = json!({ "sub": "1", "email": "dave@company.example", "email_verified": true });
        self.company.says(known);
        self.github.is(1, primary("erin@company.example", true));
        for name in ["company", "github"] {
            assert_eq!(self.sign_in_by(name).await, 200, "{name}");
        }
        self.company.says(json!({ "nonce": "another" }));
        self.github.refuses(Some("bad_verification_code"));
        for name in ["company", "github"] {
            assert_eq!(self.sign_in_by(name).await, 403, "{name}");
        }
        self.github.refuses(Some("incorrect_client_credentials"));
        assert_eq!(self.sign_in_by("github").await, 502);
    }

    /// A purchase that is paid at a page whose address is the right to pay it.
    async fn buy(&mut self) {
        let wanted = json!({ "price_id": "pri_pro", "name": "bought", "region": "local" });
        let bought = self.carol.post("/api/v1/checkout", &wanted).await;
        assert_eq!(bought.status, 201, "{}", bought.text());
        let bought = bought.json();
        let page = text(&bought["checkout_url"]);
        let path = page
            .strip_prefix(&self.carol.url)
            .expect("our own page")
            .to_owned();
        let token = path.rsplit('/').next().expect("a token");
        self.sweep.plant("right to pay", token);
        assert_eq!(self.api.anonymous().get(&path).await.status, 200);
        let paid = self.api.anonymous().post_empty(&path).await;
        self.sweep.hear("paid", paid.text());
    }

    fn command(&mut self, arguments: &[&str]) {
        let said = self.api.server.run(arguments);
        self.sweep.hear_command(&arguments.join(" "), &said);
    }

    /// What the tenant was given, as the project keeps it.
    fn plant_credentials(&mut self, when: &str) {
        let id = self.tenant.rsplit('/').next().expect("an id");
        let path = format!(".systemprompt/profiles/{id}/secrets.json");
        let kept: Value = serde_json::from_str(&self.api.server.house.read(&path)).expect("JSON");
        let url = url::Url::parse(&text(&kept["database_url"])).expect("a URL");
        let password = url.password().expect("a password");
        self.sweep.plant(&format!("database password {when}"), password);
        self.sweep
            .plant(&format!("JWT secret {when}"), &text(&kept["jwt_secret"]));
    }

    /// Guesses and mistakes: what is refused is not repeated either.
    async fn mistakes(&mut self) {
        let anybody = self.api.anonymous();
        let wrong = self.sweep.make("wrong-password");
        let fields = [("email", sign_in::EMAIL), ("password", &wrong), ("next", "/")];
        let answer = anybody.form("/sign-in", &fields).await;
        assert_eq!(answer.status, 401);
        self.sweep.hear_answer("/sign-in", &answer);
        let token = format!("spt_{}", self.sweep.make("wrong-token"));
        let answer = self.api.with_token(&token).get(&self.tenant).await;
        self.sweep.hear_answer("wrong token", &answer);
        let registry = self.sweep.make("wrong-registry-password");
        let request = anybody.call(
            Method::GET,
            "/v2/token?scope=repository:systemprompt-images:pull,push",
        );
        let answer = anybody
            .send(request.basic_auth("systemprompt", Some(registry)))
            .await;
        self.sweep.hear_answer("/v2/token", &answer);
        for (what, path) in [("link", "/link/"), ("pay page", "/pay/")] {
            let secret = self.sweep.make("wrong-path");
            let answer = anybody.get(&format!("{path}{secret}?again={secret}")).await;
            // A page may say what was asked of it; the log and the tables may not.
            assert!(answer.status >= 400, "{what}");
        }
        let job = self.sweep.make("identity-of-a-job");
        let fields = [
            ("grant_type", EXCHANGE_GRANT),
            ("client_id", CLIENT_ID),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"),
            ("subject_token", &job),
            ("audience", self.tenant.rsplit('/').next().expect("an id")),
        ];
        let answer = anybody.form("/api/v1/oauth/token", &fields).await;
        assert_eq!(answer.status, 400);
        self.sweep.hear_answer("exchange", &answer);
        let value = self.sweep.make("value-of-a-bad-request");
        for body in [
            json!({"key": "A_KEY", "value": [value]}),
            json!({"key": "A_KEY", "value": value, "more": value}),
            json!({"key": "A_KEY", "value": format!("{value}\0")}),
            json!({"key": "A_KEY", "value": value.repeat(2000)}),
            json!({"key": "DATABASE_URL", "value": value}),
            json!([value]),
            json!(value),
        ] {
            let answer = self.carol.post(&format!("{}/secrets", self.tenant), &body).await;
            assert_eq!(answer.status, 400, "{}", answer.text());
            self.sweep.hear_answer("a bad secret", &answer);
        }
    }

    /// Secrets in, by every way there is.
    async fn secrets(&mut self) {
        let tenant = self.tenant.clone();
        let value = self.sweep.make("secret-by-api");
        self.carol.stage(&tenant, "FIRST_KEY", &value).await;
        let value = self.sweep.make("secret-by-api-anew");
        let path = format!("{tenant}/secrets/FIRST_KEY?stage=true");
        let answer = self
            .carol
            .say(Method::PATCH, &path, &json!({"value": value}))
            .await;
        self.sweep.hear_answer("a new value", &answer);
        let value = self.sweep.make("secret-by-stdin");
        let said = self.api.server.house.feed(
            &["secrets", "set", "SECOND_KEY", "--stage"],
            &format!("{value}\n"),
        );
        self.sweep.hear_command("secrets set", &said);
        let value = self.sweep.make("secret-by-file");
        let house = &self.api.server.house;
        house.put("value", &value);
        house.put(
            "canary.env",
            &format!("THIRD_KEY='{value}'\nDATABASE_URL={value}\n"),
        );
        self.command(&["secrets", "set", "VALUE", "--from-file", "value", "--stage"]);
        self.command(&["secrets", "import", "canary.env", "--stage"]);
        self.api
            .server
            .house
            .put("canary.env", &format!("A=1\nB C={value}\n"));
        self.command(&["secrets", "import", "canary.env"]);
        for words in [
            "secrets list",
            "secrets history FIRST_KEY",
            "secrets rollback FIRST_KEY --stage",
            "secrets unset VALUE --stage",
        ] {
            self.command(&words.split(' ').collect::<Vec<_>>());
        }
    }

    /// A push and a deploy; answers how it ended.
    async fn deploy(&mut self, content: &str) -> Value {
        let token = self.carol.read(&format!("{}/registry-token", self.tenant)).await;
        self.sweep.plant("registry credential", &text(&token["token"]));
        let answer = self.carol.deploy(&self.tenant, content).await;
        self.sweep.hear_answer("deploy", &answer);
        let ended = self.carol.finished(&answer).await;
        self.sweep.hear("a deploy's operation", ended.to_string());
        ended
    }

    /// Released, failed, rotated, gone back, looked at by support.
    async fn life(&mut self) {
        let tenant = self.tenant.clone();
        assert_eq!(self.deploy("one").await["status"], "succeeded");
        self.carol.stage(&tenant, "FAKE_BEHAVIOUR", "exit-1").await;
        assert_ne!(self.deploy("two").await["status"], "succeeded");
        self.command(&["secrets", "unset", "FAKE_BEHAVIOUR", "--stage"]);
        self.command(&["secrets", "diff"]);
        assert_eq!(self.deploy("three").await["status"], "succeeded");
        self.plant_credentials("at first");
        self.command(&["tenant", "edit", "--rotate-credentials"]);
        self.plant_credentials("rotated");
        for words in [
            "rollback v1 --yes",
            "releases",
            "releases show v1",
            "tenant restart",
            "tenant logs --tail 100",
            "tenant logs --source release --tail 100",
            "tenant status",
            "tenant environment",
            "tenant resources",
            "tenant metrics",
            "tenant show",
            "tenant members list",
            "tenant support open --access read --for 1h",
            "tenant trust add --repository acme/shop",
            "doctor",
        ] {
            self.command(&words.split(' ').collect::<Vec<_>>());
        }
        for path in [
            "",
            "/logs",
            "/environment",
            "/secrets",
            "/events",
            "/releases",
            "/status",
            "/resources",
        ] {
            let owner = self.api.owner.clone();
            self.sweep.get(&owner, &format!("{tenant}{path}")).await;
        }
    }

    /// A login by device: session, refresh token, cookie.
    async fn sign_in(&mut self) {
        self.api.account(sign_in::EMAIL);
        let tokens = sign_in::signed_in(&self.api.anonymous()).await;
        self.sweep.plant("access token", &text(&tokens["access_token"]));
        self.sweep.plant("refresh token", &text(&tokens["refresh_token"]));
        let ada = self.api.with_token(&text(&tokens["access_token"]));
        self.sweep.get(&ada, "/api/v1/me").await;
    }

    /// What the operator does on the machine, and what a wrong setting says.
    fn operate(&mut self) {
        let data = self.api.server.data_dir();
        let url = format!(
            "postgres://sp:{}@127.0.0.1:1/none",
            self.sweep.make("database-url")
        );
        self.api.server.house.put("database-url", &url);
        let file = self.api.server.house.path("database-url").display().to_string();
        for words in [
            "server check",
            "server check --json",
            "server keys rotate",
            "server migrate status",
            "audit --verify",
            "audit --json",
        ] {
            let mut arguments: Vec<&str> = words.split(' ').collect();
            if arguments[0] == "server" {
                arguments.extend_from_slice(&["--data-dir", &data]);
            }
            self.command(&arguments);
        }
        for command in ["serve", "server check"] {
            let mut arguments: Vec<&str> = command.split(' ').collect();
            arguments.extend_from_slice(&["--data-dir", &data, "--database-url-file", &file]);
            self.command(&arguments);
        }
        let broken = url.replace("@127.0.0.1:1", "@[::");
        self.api.server.house.put("database-url", &broken);
        self.command(&[
            "server",
            "check",
            "--data-dir",
            &data,
            "--database-url-file",
            &file,
        ]);
    }

    /// Hears what is kept, and what the server has said.
    fn hear_everything(&mut self) {
        let server = &self.api.server;
        let log = server.log();
        let mut kept = Vec::new();
        for folder in [
            PathBuf::from(server.data_dir()),
            server.house.project(),
            server.house.project().join("../home"),
        ] {
            files(&folder, &mut kept);
        }
        assert!(
            kept.iter().any(|path| path.ends_with("systemprompt.db")),
            "{kept:?}"
        );
        for path in kept {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            self.sweep
                .hear(&format!("the file {name}"), String::from_utf8_lossy(&bytes));
        }
        assert!(log.contains("answered"), "{log}");
        self.sweep.hear("the log", log);
    }
}

#[tokio::test]
async fn no_secret_is_found_where_it_does_not_belong() {
    let watch = Watch::start();
    let mut journey = Journey::begin().await;
    journey.mistakes().await;
    journey.secrets().await;
    journey.life().await;
    journey.sign_in().await;
    journey.providers().await;
    journey.buy().await;
    journey.operate();
    for path in [
        "/openapi.json",
        "/docs",
        "/metrics",
        "/health",
        "/sign-in",
        "/api/v1/plans",
    ] {
        let owner = journey.api.owner.clone();
        journey.sweep.get(&owner, path).await;
    }
    for words in ["tenant suspend", "tenant activate", "tenant events"] {
        journey.command(&words.split(' ').collect::<Vec<_>>());
    }
    journey.hear_everything();
    journey.command(&["tenant", "delete", "--yes"]);
    let carol = journey.carol.clone();
    let receipt = format!("{}/receipt", journey.tenant);
    assert_eq!(journey.sweep.get(&carol, &receipt).await.status, 200);
    let path = format!("{}/audit?limit=200", journey.tenant);
    journey.sweep.get(&carol, &path).await;
    journey.hear_everything();
    journey.sweep.hear("the arguments of a process", watch.end());
    let found = journey.sweep.found();
    assert!(found.is_empty(), "{found:#?}");
    assert!(
        journey.sweep.canaries.len() >= 20,
        "{:?}",
        journey.sweep.canaries.len()
    );
    assert!(journey.sweep.heard.len() >= 80, "{:?}", journey.sweep.heard.len());
}

/// The search is worth something only if it finds: a canary that somebody puts where it does not belong is found in
/// each of these places, also when it is written otherwise.
#[tokio::test]
async fn a_leak_would_be_found() {
    let watch = Watch::start();
    let mut journey = Journey::begin().await;
    let leaked = journey.sweep.make("leaked");
    // As an argument, in an event's message, in a table, in an answer.
    let message = format!("with {leaked}");
    journey
        .carol
        .succeeded(&journey.carol.deploy(&journey.tenant, "one").await)
        .await;
    journey.command(&["deploy", "--message", &message]);
    let body = json!({"image": "current", "message": STANDARD_NO_PAD.encode(&message)});
    let answer = journey
        .carol
        .post(&format!("{}/deploy", journey.tenant), &body)
        .await;
    journey.carol.succeeded(&answer).await;
    let carol = journey.carol.clone();
    let path = format!("{}/releases/2", journey.tenant);
    journey.sweep.get(&carol, &path).await;
    let mut child = journey
        .api
        .server
        .house
        .start(&["tenant", "events", "--follow", "--tenant", &leaked]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _ = child.kill();
    let _ = child.wait();
    journey.hear_everything();
    journey.sweep.hear("the arguments of a process", watch.end());
    let found = journey.sweep.found();
    for place in [
        "/releases/2".to_owned(),
        "the file systemprompt.db".to_owned(),
        "the arguments of a process".to_owned(),
    ] {
        assert!(
            found
                .iter()
                .any(|it| it.starts_with("leaked in ") && it.contains(&place)),
            "{place}: {found:#?}"
        );
    }
}
