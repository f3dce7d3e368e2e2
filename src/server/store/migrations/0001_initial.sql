-- Ids and enums are TEXT, times BIGINT milliseconds UTC, documents JSON TEXT, bytes base64 TEXT: one schema for both engines.

CREATE TABLE settings (
    key             TEXT PRIMARY KEY,
    value           TEXT NOT NULL
);

CREATE TABLE accounts (
    id              TEXT PRIMARY KEY,
    email           TEXT NOT NULL UNIQUE,
    password_hash   TEXT,
    operator        BIGINT NOT NULL,
    created_at      BIGINT NOT NULL
);

-- Browser sessions of the sign-in pages; the cookie is stored as its SHA-256.
CREATE TABLE web_sessions (
    token_hash      TEXT PRIMARY KEY,
    account_id      TEXT NOT NULL REFERENCES accounts (id),
    csrf_token      TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL
);

-- One-time links that let somebody in without a password (first start, invitations).
CREATE TABLE sign_in_links (
    token_hash      TEXT PRIMARY KEY,
    account_id      TEXT NOT NULL REFERENCES accounts (id),
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    used_at         BIGINT
);

-- Device authorization grants (RFC 8628).
CREATE TABLE device_grants (
    device_code_hash TEXT PRIMARY KEY,
    user_code       TEXT NOT NULL UNIQUE,
    client_id       TEXT NOT NULL,
    scopes          TEXT NOT NULL,
    device_name     TEXT NOT NULL,
    status          TEXT NOT NULL,
    account_id      TEXT REFERENCES accounts (id),
    interval_seconds BIGINT NOT NULL,
    last_polled_at  BIGINT,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL
);

-- Signed-in programs: a refresh token that changes at every use; the one before it is kept to notice its reuse.
CREATE TABLE sessions (
    id              TEXT PRIMARY KEY,
    account_id      TEXT NOT NULL REFERENCES accounts (id),
    scopes          TEXT NOT NULL,
    device_name     TEXT NOT NULL,
    refresh_hash    TEXT NOT NULL UNIQUE,
    previous_hash   TEXT,
    rotated_at      BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    revoked_at      BIGINT
);
CREATE INDEX sessions_by_previous ON sessions (previous_hash);

CREATE TABLE api_tokens (
    id              TEXT PRIMARY KEY,
    account_id      TEXT NOT NULL REFERENCES accounts (id),
    name            TEXT NOT NULL,
    token_hash      TEXT NOT NULL UNIQUE,
    scopes          TEXT NOT NULL,
    tenant_id       TEXT,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    last_used_at    BIGINT,
    revoked_at      BIGINT
);

-- Answers to keyed requests, replayed for 24 hours.
CREATE TABLE idempotency_keys (
    principal       TEXT NOT NULL,
    route           TEXT NOT NULL,
    key             TEXT NOT NULL,
    fingerprint     TEXT NOT NULL,
    status          BIGINT,
    headers         TEXT,
    body            TEXT,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    PRIMARY KEY (principal, route, key)
);

CREATE TABLE checkouts (
    id              TEXT PRIMARY KEY,
    account_id      TEXT NOT NULL REFERENCES accounts (id),
    status          TEXT NOT NULL,
    request         TEXT NOT NULL,
    pay_token_hash  TEXT,
    tenant_id       TEXT,
    operation_id    TEXT,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL
);

CREATE TABLE tenants (
    id              TEXT PRIMARY KEY,
    name            TEXT NOT NULL,
    -- the name while the tenant lives, NULL afterwards: a deleted tenant gives its name back
    live_name       TEXT UNIQUE,
    -- the DNS label fixed at creation, unique while the tenant lives
    live_label      TEXT UNIQUE,
    label           TEXT NOT NULL,
    owner_id        TEXT NOT NULL REFERENCES accounts (id),
    status          TEXT NOT NULL,
    plan            TEXT NOT NULL,
    region          TEXT NOT NULL,
    provider        TEXT NOT NULL,
    memory_mb       BIGINT NOT NULL,
    database_kind   TEXT NOT NULL,
    -- number in the installation's address pool, reused after deletion
    network_slot    BIGINT UNIQUE,
    -- which of the two login roles is in use: a or b
    login_slot      TEXT NOT NULL,
    current_release BIGINT,
    last_event_seq  BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL
);
CREATE INDEX tenants_by_owner ON tenants (owner_id, id);

CREATE TABLE operations (
    id              TEXT PRIMARY KEY,
    tenant_id       TEXT NOT NULL REFERENCES tenants (id),
    kind            TEXT NOT NULL,
    status          TEXT NOT NULL,
    params          TEXT NOT NULL,
    result          TEXT NOT NULL,
    error           TEXT,
    requested_by    TEXT NOT NULL,
    -- fencing: raised at every claim, checked at every write
    fence           BIGINT NOT NULL,
    lease_owner     TEXT,
    lease_until     BIGINT,
    run_at          BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    finished_at     BIGINT
);
CREATE INDEX operations_by_tenant ON operations (tenant_id, id);
CREATE INDEX operations_by_status ON operations (status, run_at);
-- One tenant has one operation at a time: the row that is not finished holds the tenant.
CREATE UNIQUE INDEX operations_one_at_a_time ON operations (tenant_id) WHERE finished_at IS NULL;

CREATE TABLE operation_steps (
    operation_id    TEXT NOT NULL REFERENCES operations (id),
    position        BIGINT NOT NULL,
    name            TEXT NOT NULL,
    status          TEXT NOT NULL,
    attempts        BIGINT NOT NULL,
    output          TEXT,
    error           TEXT,
    updated_at      BIGINT NOT NULL,
    PRIMARY KEY (operation_id, position)
);

CREATE TABLE events (
    tenant_id       TEXT NOT NULL REFERENCES tenants (id),
    seq             BIGINT NOT NULL,
    operation_id    TEXT,
    event           TEXT NOT NULL,
    status          TEXT NOT NULL,
    message         TEXT NOT NULL,
    detail          TEXT NOT NULL,
    at              BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, seq)
);

CREATE TABLE resources (
    id              TEXT PRIMARY KEY,
    tenant_id       TEXT NOT NULL REFERENCES tenants (id),
    kind            TEXT NOT NULL,
    external_id     TEXT NOT NULL,
    state           TEXT NOT NULL,
    operation_id    TEXT NOT NULL,
    step            TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    UNIQUE (tenant_id, kind, external_id)
);

CREATE TABLE releases (
    tenant_id       TEXT NOT NULL REFERENCES tenants (id),
    number          BIGINT NOT NULL,
    status          TEXT NOT NULL,
    digest          TEXT NOT NULL,
    image           TEXT NOT NULL,
    fingerprint     TEXT,
    memory_mb       BIGINT NOT NULL,
    secret_versions TEXT NOT NULL,
    health_path     TEXT NOT NULL,
    release_command TEXT NOT NULL,
    message         TEXT,
    created_by      TEXT NOT NULL,
    operation_id    TEXT NOT NULL UNIQUE,
    machine_id      TEXT,
    created_at      BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, number)
);

-- Data keys, sealed under a version of the master key.
CREATE TABLE tenant_keys (
    tenant_id       TEXT PRIMARY KEY REFERENCES tenants (id),
    master_version  BIGINT NOT NULL,
    sealed_key      TEXT NOT NULL,
    created_at      BIGINT NOT NULL
);

-- Every version of every value, sealed under the tenant's data key. scope: user or platform.
CREATE TABLE secret_versions (
    tenant_id       TEXT NOT NULL REFERENCES tenants (id),
    scope           TEXT NOT NULL,
    key             TEXT NOT NULL,
    version         BIGINT NOT NULL,
    sealed_value    TEXT,
    digest          TEXT NOT NULL,
    set_by          TEXT NOT NULL,
    set_at          BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, scope, key, version)
);

-- One-time retrieval of a tenant's credentials: stays until it is confirmed or ends. The token is sealed, its hash is looked up.
CREATE TABLE credential_grants (
    token_hash      TEXT PRIMARY KEY,
    tenant_id       TEXT NOT NULL REFERENCES tenants (id),
    sealed_token    TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    confirmed_at    BIGINT
);
CREATE INDEX credential_grants_by_tenant ON credential_grants (tenant_id);

CREATE TABLE receipts (
    tenant_id       TEXT PRIMARY KEY,
    owner_id        TEXT NOT NULL,
    body            TEXT NOT NULL,
    created_at      BIGINT NOT NULL
);
