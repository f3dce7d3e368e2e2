-- CI jobs that may deploy to a tenant with the identity that their CI gives them.
CREATE TABLE trust_rules (
    id              TEXT PRIMARY KEY,
    tenant_id       TEXT NOT NULL,
    account_id      TEXT NOT NULL,
    issuer          TEXT NOT NULL,
    repository      TEXT NOT NULL,
    git_ref         TEXT NOT NULL,
    created_at      BIGINT NOT NULL
);
CREATE UNIQUE INDEX trust_rules_are_distinct ON trust_rules (tenant_id, issuer, repository, git_ref);

-- Identities that were exchanged: each works once. SHA-256 of who signed it and its number there.
CREATE TABLE used_identities (
    identity_hash   TEXT PRIMARY KEY,
    expires_at      BIGINT NOT NULL
);
CREATE INDEX used_identities_by_end ON used_identities (expires_at);
