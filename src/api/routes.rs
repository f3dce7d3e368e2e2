//! Every route of the management API and who may call it. Callers are checked against this table, tests enumerate it,
//! and OpenAPI must agree with it.

use crate::api::member::Role;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// A valid access token of any account.
    SignedIn,
    /// A member of the tenant with a token of this scope; everybody else is told 404. What a member must be follows from
    /// the scope, unless the table says otherwise ([`Route::needs`]).
    Tenant(&'static str),
    /// An operator account.
    Operator,
    /// Only from this machine.
    Loopback,
}

/// One route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Upper-case method.
    pub method: &'static str,
    /// Path with `{name}` parameters.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    role: Option<Role>,
}

impl Route {
    /// What a member of the tenant must be; of a route that is not below a tenant: owner.
    #[must_use]
    pub fn needs(&self) -> Role {
        let of_scope = match self.access {
            Access::Tenant("read") => Role::Viewer,
            Access::Tenant("deploy" | "secrets") => Role::Developer,
            _ => Role::Owner,
        };
        self.role.unwrap_or(of_scope)
    }

    const fn by(mut self, role: Role) -> Self {
        self.role = Some(role);
        self
    }
}

const fn route(method: &'static str, path: &'static str, access: Access) -> Route {
    Route {
        method,
        path,
        access,
        role: None,
    }
}

/// The route of the table that answers this method on this path (with `{name}` parameters).
#[must_use]
pub fn find(method: &str, path: &str) -> Option<&'static Route> {
    let method = if method == "HEAD" { "GET" } else { method };
    ALL.iter()
        .find(|route| route.method == method && route.path == path)
}

use Access::{Loopback, Open, Operator, SignedIn, Tenant};

/// The table.
pub const ALL: &[Route] = &[
    // the server itself
    route("GET", "/livez", Open),
    route("GET", "/readyz", Open),
    route("GET", "/health", Open),
    route("GET", "/metrics", Loopback),
    route("GET", "/openapi.json", Open),
    route("GET", "/docs", Open),
    route("GET", "/api/v1/jobs/health", Operator),
    route("GET", "/api/v1/audit", Operator),
    route("GET", "/api/v1/audit/verify", Operator),
    route("POST", "/api/v1/reconcile", Operator),
    // of every tenant what it is, nothing of what is in it
    route("GET", "/api/v1/operator/tenants", Operator),
    // signing in
    route("GET", "/.well-known/oauth-authorization-server", Open),
    route("GET", "/.well-known/jwks.json", Open),
    route("POST", "/api/v1/oauth/device_authorization", Open),
    route("POST", "/api/v1/oauth/token", Open),
    route("POST", "/api/v1/oauth/revoke", Open),
    route("GET", "/api/v1/me", SignedIn),
    route("GET", "/api/v1/tokens", SignedIn),
    route("POST", "/api/v1/tokens", SignedIn),
    route("DELETE", "/api/v1/tokens/{token_id}", SignedIn),
    route("GET", "/api/v1/sessions", SignedIn),
    route("DELETE", "/api/v1/sessions/{session_id}", SignedIn),
    route("GET", "/api/v1/identities", SignedIn),
    route("DELETE", "/api/v1/identities/{identity_id}", SignedIn),
    // plans and money
    route("GET", "/api/v1/plans", SignedIn),
    route("GET", "/api/v1/checkout/plans", SignedIn),
    route("POST", "/api/v1/checkout", SignedIn),
    route("GET", "/api/v1/checkout/{checkout_id}", SignedIn),
    // tenants
    route("GET", "/api/v1/tenants", SignedIn),
    route("GET", "/api/v1/tenants/{tenant_id}", Tenant("read")),
    route("PATCH", "/api/v1/tenants/{tenant_id}", Tenant("admin")),
    route("DELETE", "/api/v1/tenants/{tenant_id}", Tenant("admin")),
    route("POST", "/api/v1/tenants/{tenant_id}/suspend", Tenant("admin")),
    route("POST", "/api/v1/tenants/{tenant_id}/activate", Tenant("admin")),
    route("POST", "/api/v1/tenants/{tenant_id}/restart", Tenant("deploy")),
    route(
        "POST",
        "/api/v1/tenants/{tenant_id}/retry-provision",
        Tenant("admin"),
    )
    .by(Role::Developer),
    route("GET", "/api/v1/tenants/{tenant_id}/status", Tenant("read")),
    route("GET", "/api/v1/tenants/{tenant_id}/environment", Tenant("read")),
    route("GET", "/api/v1/tenants/{tenant_id}/events", Tenant("read")),
    route("GET", "/api/v1/tenants/{tenant_id}/logs", Tenant("read")),
    route("GET", "/api/v1/tenants/{tenant_id}/metrics", Tenant("read")),
    route(
        "GET",
        "/api/v1/tenants/{tenant_id}/metrics/history",
        Tenant("read"),
    ),
    route("GET", "/api/v1/tenants/{tenant_id}/resources", Tenant("read")),
    route("GET", "/api/v1/tenants/{tenant_id}/operations", Tenant("read")),
    route("GET", "/api/v1/tenants/{tenant_id}/receipt", Tenant("read")),
    route("GET", "/api/v1/tenants/{tenant_id}/audit", Tenant("admin")),
    // who may do what to it
    route("GET", "/api/v1/tenants/{tenant_id}/members", Tenant("read")),
    route("POST", "/api/v1/tenants/{tenant_id}/members", Tenant("admin")),
    route(
        "PATCH",
        "/api/v1/tenants/{tenant_id}/members/{account_id}",
        Tenant("admin"),
    ),
    route(
        "DELETE",
        "/api/v1/tenants/{tenant_id}/members/{account_id}",
        Tenant("admin"),
    ),
    route(
        "GET",
        "/api/v1/tenants/{tenant_id}/support-grants",
        Tenant("read"),
    ),
    route(
        "POST",
        "/api/v1/tenants/{tenant_id}/support-grants",
        Tenant("admin"),
    ),
    route(
        "DELETE",
        "/api/v1/tenants/{tenant_id}/support-grants/{grant_id}",
        Tenant("admin"),
    ),
    // deploying
    route(
        "GET",
        "/api/v1/tenants/{tenant_id}/registry-token",
        Tenant("deploy"),
    ),
    route("POST", "/api/v1/tenants/{tenant_id}/deploy", Tenant("deploy")),
    route("GET", "/api/v1/tenants/{tenant_id}/releases", Tenant("read")),
    route(
        "GET",
        "/api/v1/tenants/{tenant_id}/releases/{number}",
        Tenant("read"),
    ),
    route(
        "POST",
        "/api/v1/tenants/{tenant_id}/releases/{number}/pin",
        Tenant("deploy"),
    ),
    route(
        "POST",
        "/api/v1/tenants/{tenant_id}/releases/{number}/unpin",
        Tenant("deploy"),
    ),
    route("GET", "/api/v1/tenants/{tenant_id}/rollback", Tenant("read")),
    route("POST", "/api/v1/tenants/{tenant_id}/rollback", Tenant("deploy")),
    route("GET", "/api/v1/tenants/{tenant_id}/trust-rules", Tenant("admin")),
    route("POST", "/api/v1/tenants/{tenant_id}/trust-rules", Tenant("admin")),
    route(
        "DELETE",
        "/api/v1/tenants/{tenant_id}/trust-rules/{rule_id}",
        Tenant("admin"),
    ),
    // secrets
    route(
        "GET",
        "/api/v1/tenants/{tenant_id}/credentials/{token}",
        Tenant("secrets"),
    )
    .by(Role::Owner),
    route(
        "POST",
        "/api/v1/tenants/{tenant_id}/credentials/{token}/confirm",
        Tenant("secrets"),
    )
    .by(Role::Owner),
    route(
        "POST",
        "/api/v1/tenants/{tenant_id}/rotate-credentials",
        Tenant("secrets"),
    )
    .by(Role::Owner),
    route(
        "PATCH",
        "/api/v1/tenants/{tenant_id}/rotate-credentials",
        Tenant("secrets"),
    )
    .by(Role::Owner),
    route(
        "POST",
        "/api/v1/tenants/{tenant_id}/rotate-jwt-secret",
        Tenant("secrets"),
    )
    .by(Role::Owner),
    route("GET", "/api/v1/tenants/{tenant_id}/secrets", Tenant("read")),
    route("POST", "/api/v1/tenants/{tenant_id}/secrets", Tenant("secrets")),
    route("GET", "/api/v1/tenants/{tenant_id}/secrets/{key}", Tenant("read")),
    route(
        "PATCH",
        "/api/v1/tenants/{tenant_id}/secrets/{key}",
        Tenant("secrets"),
    ),
    route(
        "DELETE",
        "/api/v1/tenants/{tenant_id}/secrets/{key}",
        Tenant("secrets"),
    ),
    route(
        "GET",
        "/api/v1/tenants/{tenant_id}/secrets/{key}/versions",
        Tenant("read"),
    ),
    route(
        "POST",
        "/api/v1/tenants/{tenant_id}/secrets/{key}/restore",
        Tenant("secrets"),
    ),
    // operations: found only by who may see their tenant
    route("GET", "/api/v1/operations/{operation_id}", Tenant("read")),
    route("POST", "/api/v1/operations/{operation_id}/retry", Tenant("admin")).by(Role::Developer),
    route(
        "POST",
        "/api/v1/operations/{operation_id}/cancel",
        Tenant("admin"),
    )
    .by(Role::Developer),
    route(
        "POST",
        "/api/v1/operations/{operation_id}/abandon",
        Tenant("admin"),
    )
    .by(Role::Developer),
];
