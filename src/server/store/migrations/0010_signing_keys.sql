-- Keys that access tokens are signed with (EdDSA): one that signs, one that is published and signs next, and former ones
-- that verify until the last token that they have signed has expired.
CREATE TABLE signing_keys (
    kid             TEXT PRIMARY KEY,
    public_key      TEXT NOT NULL,
    sealed_key      TEXT NOT NULL,
    state           TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    signs_from      BIGINT,
    verifies_until  BIGINT
);
CREATE UNIQUE INDEX signing_keys_one_of_each ON signing_keys (state) WHERE state <> 'former';
