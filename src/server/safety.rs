//! What a server must not be careless about once others can reach it: one list, for the refusal to start and for
//! `systemprompt server check`.

use std::net::SocketAddr;

use serde::Serialize;

use crate::server::config::exposure::BillingMode;
use crate::server::config::{ProviderKind, Settings};

/// The fewest characters of an operator's password (the C(AI)DENCE deployment guide).
const MIN_PASSWORD: usize = 12;
/// Passwords that everybody tries first.
pub const WELL_KNOWN: [&str; 16] = [
    "admin123",
    "admin",
    "password",
    "changeme",
    "change-me",
    "secret",
    "letmein",
    "12345678",
    "123456789",
    "1234567890",
    "password1",
    "password123",
    "administrator",
    "systemprompt",
    "operator",
    "qwertyuiop",
];

/// How a check has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Good.
    Pass,
    /// Careless.
    Fail,
    /// For the operator to judge: the server cannot know.
    Judge,
    /// Does not apply here.
    Skip,
}

/// What one check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable, kebab-case.
    pub name: &'static str,
    /// How it ended.
    pub standing: Standing,
    /// What is so.
    pub what: String,
    /// What mends it, where it failed.
    pub mend: Option<String>,
}

impl Finding {
    /// A check that is good.
    pub fn pass(name: &'static str, what: impl Into<String>) -> Self {
        Self::new(name, Standing::Pass, what, None)
    }

    /// A check that does not apply.
    pub fn skip(name: &'static str, what: impl Into<String>) -> Self {
        Self::new(name, Standing::Skip, what, None)
    }

    /// A check that failed.
    pub fn fail(name: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(name, Standing::Fail, what, Some(mend.into()))
    }

    /// A check that the operator must judge.
    pub fn judge(name: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(name, Standing::Judge, what, Some(mend.into()))
    }

    fn new(name: &'static str, standing: Standing, what: impl Into<String>, mend: Option<String>) -> Self {
        Self {
            name,
            standing,
            what: what.into(),
            mend,
        }
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        match &self.mend {
            Some(mend) => format!("{}: {}; {mend}", self.name, self.what),
            None => format!("{}: {}", self.name, self.what),
        }
    }
}

/// Whether others can reach the server: it says so itself, or listens where they are.
#[must_use]
pub fn is_exposed(settings: &Settings, listening: SocketAddr) -> bool {
    settings.exposure.production || !listening.ip().to_canonical().is_loopback()
}

/// What the settings say; `weak_master`: the master key is none that chance has made.
#[must_use]
pub fn of_settings(settings: &Settings, public_url: &str, weak_master: bool) -> Vec<Finding> {
    vec![
        master_key(weak_master),
        admin_password(settings),
        transport(settings),
        public_address(public_url),
        proxies(settings),
        origins(settings),
        billing(settings),
        provider(settings),
    ]
}

fn master_key(weak: bool) -> Finding {
    if weak {
        return Finding::fail(
            "master-key",
            "the master key is not random",
            "make a new one: `systemprompt server keys rotate`",
        );
    }
    Finding::pass("master-key", "32 random bytes")
}

fn admin_password(settings: &Settings) -> Finding {
    const NAME: &str = "admin-password";
    let Some(password) = &settings.admin.password else {
        return Finding::pass(
            NAME,
            "none is given; the first account is let in by a one-time link",
        );
    };
    let password = password.expose();
    if is_well_known(password) {
        let mend = "write another one into the file of `--admin-password-file`";
        return Finding::fail(NAME, "the operator's password is one that everybody tries", mend);
    }
    if password.chars().count() < MIN_PASSWORD {
        return Finding::fail(
            NAME,
            format!("the operator's password has fewer than {MIN_PASSWORD} characters"),
            "write a longer one into the file of `--admin-password-file`",
        );
    }
    Finding::pass(
        NAME,
        format!("at least {MIN_PASSWORD} characters, and not a common one"),
    )
}

/// Whether it is a password that everybody tries first.
#[must_use]
pub fn is_well_known(password: &str) -> bool {
    WELL_KNOWN.contains(&password.to_lowercase().as_str())
}

fn transport(settings: &Settings) -> Finding {
    const NAME: &str = "tls";
    let exposure = &settings.exposure;
    if exposure.tls.is_some() {
        return Finding::pass(NAME, "the server speaks TLS itself");
    }
    if !exposure.trusted_proxies.is_empty() {
        return Finding::pass(NAME, "a trusted proxy stands in front");
    }
    Finding::fail(
        NAME,
        "passwords and tokens would cross the network in clear text",
        "give `--tls-cert FILE --tls-key FILE`, or name the proxy in front with `--trusted-proxy ADDRESS`",
    )
}

fn public_address(public_url: &str) -> Finding {
    const NAME: &str = "public-url";
    if public_url.starts_with("https://") {
        return Finding::pass(NAME, format!("`{public_url}`; cookies are sent over HTTPS only"));
    }
    Finding::fail(
        NAME,
        format!("`{public_url}` is not HTTPS, so cookies are sent over HTTP too"),
        "say how browsers reach the server: `--public-url https://NAME`",
    )
}

fn proxies(settings: &Settings) -> Finding {
    const NAME: &str = "proxy-headers";
    let proxies = &settings.exposure.trusted_proxies;
    if proxies
        .iter()
        .any(crate::server::front::proxies::Network::is_everybody)
    {
        return Finding::fail(
            NAME,
            "everybody may say from which address they come",
            "name the addresses of the proxies only: `--trusted-proxy ADDRESS`",
        );
    }
    Finding::pass(
        NAME,
        match proxies.len() {
            0 => "nobody is believed about callers' addresses".to_owned(),
            count => format!("believed from {count} named addresses or networks only"),
        },
    )
}

fn origins(settings: &Settings) -> Finding {
    const NAME: &str = "cors";
    let origins = &settings.exposure.allowed_origins;
    if origins.iter().any(|origin| origin == "*") {
        return Finding::fail(
            NAME,
            "pages of every site may call the API",
            "name the sites: `--allowed-origin https://app.example.com`",
        );
    }
    if origins.is_empty() {
        return Finding::pass(NAME, "no page of another site may call the API");
    }
    Finding::pass(
        NAME,
        format!("only pages of {} may call the API", origins.join(", ")),
    )
}

fn billing(settings: &Settings) -> Finding {
    match settings.exposure.billing {
        BillingMode::Off => Finding::pass("billing", "only free plans can be had"),
        BillingMode::Sandbox => Finding::fail(
            "billing",
            "in the sandbox a button stands for a payment",
            "give only free plans: `--billing off`",
        ),
    }
}

fn provider(settings: &Settings) -> Finding {
    match settings.provider {
        ProviderKind::Fake => Finding::fail(
            "provider",
            "tenants are pretended",
            "run real ones: `--provider docker`",
        ),
        ProviderKind::Docker => Finding::pass("provider", "tenants are real"),
    }
}
