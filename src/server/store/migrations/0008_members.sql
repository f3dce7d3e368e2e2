-- Who may do what to a tenant. Whoever a tenant is made for owns it: by a trigger, so that a tenant which an older server
-- makes on this schema has its owner too.
CREATE TABLE members (
    tenant_id       TEXT NOT NULL REFERENCES tenants (id),
    account_id      TEXT NOT NULL REFERENCES accounts (id),
    -- owner, developer or viewer
    role            TEXT NOT NULL,
    -- address of whoever did; NULL of the first owner
    added_by        TEXT,
    added_at        BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, account_id)
);
CREATE INDEX members_by_account ON members (account_id, tenant_id);

INSERT INTO members (tenant_id, account_id, role, added_by, added_at)
    SELECT id, owner_id, 'owner', NULL, created_at FROM tenants;

-- A door that an owner opens for the server's operators. It closes by itself at `expires_at`.
CREATE TABLE support_grants (
    id              TEXT PRIMARY KEY,
    tenant_id       TEXT NOT NULL REFERENCES tenants (id),
    -- read or full
    access          TEXT NOT NULL,
    opened_by       TEXT NOT NULL,
    opened_at       BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    closed_by       TEXT,
    closed_at       BIGINT
);
CREATE INDEX support_grants_by_tenant ON support_grants (tenant_id, expires_at);

-- only: sqlite
CREATE TRIGGER tenants_have_an_owner AFTER INSERT ON tenants
BEGIN
    INSERT INTO members (tenant_id, account_id, role, added_by, added_at)
        VALUES (NEW.id, NEW.owner_id, 'owner', NULL, NEW.created_at);
END;

-- only: postgres
CREATE FUNCTION tenant_gets_its_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO members (tenant_id, account_id, role, added_by, added_at)
        VALUES (NEW.id, NEW.owner_id, 'owner', NULL, NEW.created_at);
    RETURN NULL;
END $$;
CREATE TRIGGER tenants_have_an_owner AFTER INSERT ON tenants
    FOR EACH ROW EXECUTE FUNCTION tenant_gets_its_owner();
