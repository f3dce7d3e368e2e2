//! How the edge asks who visits: the part of Caddy's configuration for tenants that have edge sessions, and what no
//! visitor of any tenant can say of themselves. Pure: no calls.

use serde_json::{Value, json};

use crate::api::edge_session::{ASSERTION_HEADER, TENANT_HEADER, USER_HEADER};
use crate::server::edge::DOOR;
use crate::server::edge::caddy::pages::{ASKING, answer};

/// Where the door's folder is in the container.
pub(super) const DOOR_AT: &str = "/run/systemprompt";
/// Of a tenant's host, what the server answers itself.
const OWN_PATHS: &str = "/.systemprompt/*";
const AUTHORIZE: &str = "/internal/edge/authorize?";
/// Says whether the answer that failed was the server's.
const ASKS: &str = "asks";
/// The server says by it that the visitor has shown one of its own tokens, which is not for the app.
const BY_HEADER: &str = "X-Session-By";
/// Our cookies at tenants' hosts, whatever the port.
const COOKIE: &str = "(__Host-)?sp_edge(_away)?_[0-9]+=[^;]*";

/// Takes away what only the edge itself may say: who is signed in. Some frameworks know no difference between a hyphen
/// and other signs in the name of a header.
pub(super) fn nobody_says() -> Value {
    let signs = ["-", "_", "."];
    let names = signs.map(|first| signs.map(|second| format!("X{first}Session{second}*")));
    json!({ "handle": [{ "handler": "headers", "request": { "delete": names.concat() } }] })
}

/// Takes our cookies away, which are nothing to the app.
pub(super) fn without_cookies() -> [Value; 2] {
    let cut = |pattern: String| json!({ "search_regexp": pattern, "replace": "" });
    // First those behind another one, so that none of ours is left in front.
    let cuts = [
        cut(format!(";[ \\t]*{COOKIE}")),
        cut(format!("^[ \\t]*{COOKIE}(;[ \\t]*|$)")),
    ];
    [
        json!({ "handle": [{ "handler": "headers", "request": { "replace": { "Cookie": cuts } } }] }),
        json!({
            "match": [{ "header": { "Cookie": [""] } }],
            "handle": [{ "handler": "headers", "request": { "delete": ["Cookie"] } }],
        }),
    ]
}

/// Questions of browsers whether a page of another site may ask (Fetch, section 4.8): they carry no credentials, so nobody
/// can be asked who it is. They go to the app without any, and say who visits of nobody.
pub(super) fn preflights(mut proxy: Value) -> Value {
    proxy["headers"]["request"]["delete"] = json!(["Authorization", "Cookie"]);
    proxy
}

/// Which requests those are.
pub(super) fn is_preflight(mut served: Value) -> Value {
    served[0]["method"] = json!(["OPTIONS"]);
    served[0]["header"] = json!({ "Origin": ["*"], "Access-Control-Request-Method": ["*"] });
    served
}

/// What a visitor who was let in is called, in the last moment: nothing that they have sent can take it away again.
pub(super) fn say_who(proxy: &mut Value, shown_token: bool) {
    let names = [USER_HEADER, TENANT_HEADER, ASSERTION_HEADER];
    let said = names.map(|name| {
        (
            name.to_owned(),
            json!([format!("{{http.reverse_proxy.header.{name}}}")]),
        )
    });
    proxy["headers"]["request"]["set"] = Value::Object(said.into_iter().collect());
    if shown_token {
        proxy["headers"]["request"]["delete"] = json!(["Authorization"]);
    }
}

/// Asks the server who visits: `routes` are for those whom it lets in, everybody else gets its own answer. The question
/// has no body, so that the visitor's stays where it is.
pub(super) fn ask_then(label: &str, routes: impl Fn(bool) -> Vec<Value>) -> Value {
    let mut question = to_server(label);
    question["rewrite"] = json!({ "method": "GET", "uri": AUTHORIZE });
    let let_in = |shown_token: bool| {
        let asked = json!({ "handle": [{ "handler": "vars", (ASKS): "no" }] });
        let mut all = vec![asked];
        all.extend(without_cookies());
        all.extend(routes(shown_token));
        all
    };
    question["handle_response"] = json!([
        { "match": { "status_code": [2], "headers": { BY_HEADER: ["token"] } }, "routes": let_in(true) },
        { "match": { "status_code": [2] }, "routes": let_in(false) },
    ]);
    json!({ "handle": [{ "handler": "vars", (ASKS): "yes" }, question], "terminal": true })
}

/// The server's own paths at a tenant's host: to sign in and out there.
pub(super) fn own_paths(label: &str) -> Value {
    json!({
        "match": [{ "path": [OWN_PATHS] }],
        "handle": [{ "handler": "vars", (ASKS): "yes" }, to_server(label)],
        "terminal": true,
    })
}

/// The answer where the server does not: nobody is let in.
pub(super) fn no_answer() -> Value {
    json!({ "match": [{ "vars": { (ASKS): ["yes"] } }], "handle": [answer(&ASKING)], "terminal": true })
}

fn to_server(label: &str) -> Value {
    json!({
        "handler": "reverse_proxy",
        "upstreams": [{ "dial": format!("unix/{DOOR_AT}/{DOOR}") }],
        "headers": { "request": { "set": {
            "X-Edge-Label": [label],
            "X-Forwarded-Method": ["{http.request.method}"],
            "X-Forwarded-Uri": ["{http.request.uri}"],
            "X-Forwarded-Proto": ["{http.request.scheme}"],
        } } },
        "transport": { "protocol": "http", "dial_timeout": "1s", "response_header_timeout": "10s" },
        // A server that starts again is missed by nobody.
        "load_balancing": { "try_duration": "2s", "try_interval": "50ms" },
    })
}
