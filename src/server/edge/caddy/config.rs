//! Caddy's configuration. It never changes while the edge runs, since every change would reset connections of all
//! tenants: who is there, and which release serves, is looked up at every request. Pure: no calls.

use serde_json::{Value, json};

use crate::server::edge::caddy::pages::{HELD, NOBODY, SILENT, SUSPENDED, UNKNOWN, answer};
use crate::server::edge::caddy::render::{ASKED_FILE, HELD_FILE, HTTP, HTTPS, SERVING, SUSPENDED_FILE};
use crate::server::edge::caddy::sessions::{
    ask_then, is_preflight, no_answer, nobody_says, own_paths, preflights, say_who, without_cookies,
};
use crate::server::edge::{EdgeSettings, HOLD_AT_MOST};

/// A path that the edge answers itself, under every name.
pub(super) const OWN_PATH: &str = "/.well-known/systemprompt/edge";
/// The name of the loggers that the access log and the waiting room write to.
pub(super) const ACCESS: &str = "http.log.access.tenants";
pub(super) const WAITED: &str = "http.log.access.waiting";
const ERRORS: &str = "http.log.error";
/// How long a request waited, in milliseconds, as the waiting room says it.
pub(super) const WAITED_HEADER: &str = "X-Waited-Ms";

const TENANT_PORT: u16 = 8080;
/// A machine that is gone is missed after three seconds. One that is there and busy, as with hundreds
/// of requests that were held and come together, shall have its time: what a request brings is lost with a failed dial.
const DIAL_TIMEOUT: &str = "6s";
/// Where held requests ask whether they may go on. A file of the container's own, gone with it.
const WAITING_ROOM: &str = "unix//tmp/waiting-room.sock";

/// What the configuration is made for.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) settings: &'a EdgeSettings,
    /// Where the edge finds the tenants' directories.
    pub(super) tenants: &'a str,
}

/// Caddy's configuration.
pub(super) fn config(plan: Plan<'_>) -> Value {
    let server = |port: u16| {
        json!({
            "listen": [format!(":{port}")],
            "automatic_https": { "disable": true },
            "protocols": ["h1", "h2"],
            "read_header_timeout": "10s",
            "idle_timeout": "2m",
            "logs": { "default_logger_name": last(ACCESS) },
            "routes": routes(plan),
            "errors": { "routes": [
                no_answer(),
                { "match": with_file(plan, HELD_FILE), "handle": [answer(&HELD)], "terminal": true },
                { "handle": [answer(&SILENT)] },
            ] },
        })
    };
    let mut https = server(HTTPS);
    https["tls_connection_policies"] = json!([{}]);
    json!({
        // Nobody can change anything: a change is a new container.
        "admin": { "disabled": true, "config": { "persist": false } },
        "logging": logging(),
        "apps": {
            "http": { "grace_period": "10s", "servers": {
                "http": server(HTTP), "https": https, "waiting-room": waiting_room(plan),
            } },
            "pki": { "certificate_authorities": { "local": { "install_trust": false } } },
            // A certificate per name when it is first asked for: clients refuse `*.localhost`.
            "tls": { "automation": { "policies": [{
                "subjects": [format!("*.{}", plan.settings.domain)],
                "issuers": [{ "module": "internal" }],
                "on_demand": true,
            }] } },
        },
    })
}

/// The access log goes to standard output, everything else to standard error. What may be secret is in neither:
/// no query, no header, no address.
fn logging() -> Value {
    let without = |fields: &[&str]| {
        let mut filters = json!({ "request>uri": { "filter": "regexp", "regexp": "\\?.*$", "value": "" } });
        for field in fields {
            filters[field] = json!({ "filter": "delete" });
        }
        let wrap = json!({ "format": "json", "time_format": "unix_milli_float" });
        json!({ "format": "filter", "wrap": wrap, "fields": filters })
    };
    let personal = [
        "request>headers",
        "request>tls",
        "request>remote_ip",
        "request>remote_port",
        "request>client_ip",
        "user_id",
    ];
    let log = |include: &str, fields: &[&str]| json!({ "include": [include], "writer": { "output": "stdout" }, "encoder": without(fields) });
    let access: Vec<&str> = personal.into_iter().chain(["resp_headers"]).collect();
    json!({ "logs": {
        "default": {
            "level": "WARN",
            "writer": { "output": "stderr" },
            "encoder": without(&personal),
            "exclude": ["http.log"],
        },
        // Why a request got a page of the edge is said at this level only.
        "errors": {
            "level": "DEBUG",
            "include": [ERRORS],
            "writer": { "output": "stderr" },
            "encoder": without(&personal),
        },
        "access": log(ACCESS, &access),
        "waiting": log(WAITED, &personal),
    } })
}

fn last(logger: &str) -> &str {
    logger.rsplit('.').next().unwrap_or(logger)
}

/// Of `acme.localhost`, the first part. Labels are counted from the right: 0 is `localhost`.
fn label(plan: Plan<'_>) -> String {
    let place = plan.settings.domain.split('.').count();
    format!("{{http.request.host.labels.{place}}}")
}

/// Requests of tenants that have this file.
fn with_file(plan: Plan<'_>, file: &str) -> Value {
    matching(
        plan,
        format!("{}/{}", plan.tenants, label(plan)),
        format!("/{file}"),
    )
}

/// Requests of tenants that have a release that serves. The file that is found is its address.
fn served(plan: Plan<'_>) -> Value {
    let root = format!("{}/{}/{SERVING}", plan.tenants, label(plan));
    matching(plan, root, "/*".to_owned())
}

/// Requests of tenants that are known.
fn known(plan: Plan<'_>) -> Value {
    matching(plan, plan.tenants.to_owned(), format!("/{}/", label(plan)))
}

fn matching(plan: Plan<'_>, root: String, file: String) -> Value {
    // A name that is no label must not reach the file matcher, which knows `*`.
    let shape = format!(
        "^[a-z0-9-]+\\.{}(:[0-9]+)?$",
        plan.settings.domain.replace('.', "\\.")
    );
    json!([{
        "host": [format!("*.{}", plan.settings.domain)],
        "header_regexp": { "Host": { "pattern": shape } },
        "file": { "root": root, "try_files": [file] },
    }])
}

fn routes(plan: Plan<'_>) -> Value {
    let serving_by = |proxy: Value| json!({ "match": served(plan), "handle": [proxy], "terminal": true });
    let serving = serving_by(proxy());
    let suspended = json!({
        "match": with_file(plan, SUSPENDED_FILE), "handle": [answer(&SUSPENDED)], "terminal": true,
    });
    let known = json!({ "match": known(plan), "handle": [answer(&NOBODY)], "terminal": true });
    let asked = asked(plan, &[suspended.clone(), known.clone()], |shown_token| {
        let mut proxy = proxy();
        say_who(&mut proxy, shown_token);
        serving_by(proxy)
    });
    let [cut, rest] = without_cookies();
    let held = json!([asked, cut, rest, serving, suspended, known]);
    // The newer name of the variable, and the older.
    let unlogged = json!({ "handler": "vars", "log_skip": true, "skip_log": true });
    json!([
        nobody_says(),
        {
            "match": [{ "path": [OWN_PATH] }],
            "handle": [unlogged, { "handler": "static_response", "status_code": "200", "body": "edge\n" }],
            "terminal": true,
        },
        {
            "match": with_file(plan, HELD_FILE),
            "handle": [wait_then(&held)],
            "terminal": true,
        },
        asked,
        cut,
        rest,
        serving,
        suspended,
        known,
        { "handle": [unlogged, answer(&UNKNOWN)] },
    ])
}

/// Requests of tenants whose visitors are asked who they are: nobody comes past it to the app. Which release serves is
/// looked up once more afterwards.
fn asked(plan: Plan<'_>, otherwise: &[Value], serving: impl Fn(bool) -> Value) -> Value {
    let label = label(plan);
    let with = |first: Value| [vec![first], otherwise.to_vec()].concat();
    let mut asks = ask_then(&label, |shown_token| with(serving(shown_token)));
    asks["match"] = served(plan);
    let preflight = json!({
        "match": is_preflight(served(plan)), "handle": [preflights(proxy())], "terminal": true,
    });
    let routes = [vec![own_paths(&label), preflight], with(asks)].concat();
    json!({
        "match": with_file(plan, ASKED_FILE),
        "handle": [{ "handler": "subroute", "routes": routes }],
        "terminal": true,
    })
}

/// A connection per request, to the release that serves now. While its container starts again, the dial is repeated.
fn proxy() -> Value {
    json!({
        "handler": "reverse_proxy",
        "upstreams": [{ "dial": format!("{{http.matchers.file.relative}}:{TENANT_PORT}") }],
        "transport": {
            "protocol": "http",
            "dial_timeout": DIAL_TIMEOUT,
            "keep_alive": { "enabled": false },
        },
        "load_balancing": { "try_duration": "3s", "try_interval": "50ms" },
    })
}

/// A held request asks in the waiting room whether it may go on, again and again, and then goes where it belongs.
/// Only the question is repeated: Caddy up to 2.11.1 closes a request's body when a dial fails (its issue 7546).
fn wait_then(routes: &Value) -> Value {
    json!({
        "handler": "reverse_proxy",
        "upstreams": [{ "dial": WAITING_ROOM }],
        "rewrite": { "method": "GET", "uri": "/" },
        "headers": { "request": { "set": { WAITED_HEADER: ["{http.request.duration_ms}"] } } },
        "transport": { "protocol": "http", "keep_alive": { "enabled": false } },
        "load_balancing": {
            "try_duration": format!("{}s", HOLD_AT_MOST.as_secs()),
            "try_interval": "25ms",
            "retry_match": [{ "method": ["GET"] }],
        },
        "handle_response": [{ "routes": routes }],
    })
}

/// Answers as soon as a tenant's requests are not held any more; until then it hangs up.
fn waiting_room(plan: Plan<'_>) -> Value {
    let asked = format!("{{http.request.header.{WAITED_HEADER}}}");
    json!({
        "listen": [WAITING_ROOM],
        "automatic_https": { "disable": true },
        "protocols": ["h1"],
        "logs": { "default_logger_name": last(WAITED) },
        "routes": [
            {
                "match": with_file(plan, HELD_FILE),
                "handle": [
                    { "handler": "vars", "log_skip": true, "skip_log": true },
                    { "handler": "static_response", "abort": true },
                ],
                "terminal": true,
            },
            { "handle": [{
                "handler": "static_response",
                "status_code": "204",
                "headers": { WAITED_HEADER: [asked] },
            }] },
        ],
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Plan, config};
    use crate::server::edge::EdgeSettings;

    fn plan(settings: &EdgeSettings) -> Plan<'_> {
        Plan {
            settings,
            tenants: "/data/systemprompt/tenants",
        }
    }

    #[test]
    fn the_configuration_names_no_tenant() {
        let mut config = config(plan(&EdgeSettings::default()));
        let servers = config["apps"]["http"]["servers"]
            .as_object_mut()
            .expect("servers");
        let mut https = servers.shift_remove("https").expect("https");
        // The two servers do the same.
        assert_eq!(
            https
                .as_object_mut()
                .and_then(|it| it.shift_remove("tls_connection_policies")),
            Some(json!([{}]))
        );
        https["listen"] = json!([":8080"]);
        assert_eq!(https, servers["http"]);
        insta::assert_json_snapshot!(config);
    }

    #[test]
    fn labels_are_counted_from_the_right() {
        let settings = EdgeSettings {
            domain: "apps.example.com".to_owned(),
            ..EdgeSettings::default()
        };
        let text = config(plan(&settings)).to_string();
        assert!(
            text.contains("/data/systemprompt/tenants/{http.request.host.labels.3}/to"),
            "{text}"
        );
    }
}
