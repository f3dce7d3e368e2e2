-- Whom a provider (OpenID Connect) vouches for, and whose account that is.
CREATE TABLE identities (
    issuer          TEXT NOT NULL,
    subject         TEXT NOT NULL,
    provider        TEXT NOT NULL,
    account_id      TEXT NOT NULL,
    email           TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    last_used_at    BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_by_account ON identities (account_id);

-- By which people know their browsers again in the list of sessions.
ALTER TABLE web_sessions ADD COLUMN user_agent TEXT NOT NULL DEFAULT '';
ALTER TABLE web_sessions ADD COLUMN signed_in_by TEXT NOT NULL DEFAULT '';
CREATE INDEX web_sessions_by_account ON web_sessions (account_id);
CREATE INDEX sessions_by_account ON sessions (account_id);
