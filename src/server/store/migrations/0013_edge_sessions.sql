-- Who is let in to a tenant by the edge (JSON); where there is nothing, nobody is asked who they are.
ALTER TABLE tenants ADD COLUMN edge_sessions TEXT;

-- What carries a sign-in from this server's host to a tenant's: good once, for a minute.
CREATE TABLE edge_codes (
    code_hash        TEXT NOT NULL PRIMARY KEY,
    state_hash       TEXT NOT NULL,
    tenant_id        TEXT NOT NULL,
    web_session_hash TEXT NOT NULL,
    expires_at       BIGINT NOT NULL
);

-- Browsers that are known at a tenant's host. Each lasts no longer than the session of the browser behind it.
CREATE TABLE edge_sessions (
    token_hash       TEXT NOT NULL PRIMARY KEY,
    tenant_id        TEXT NOT NULL,
    web_session_hash TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    expires_at       BIGINT NOT NULL
);
CREATE INDEX edge_sessions_by_browser ON edge_sessions (web_session_hash);
