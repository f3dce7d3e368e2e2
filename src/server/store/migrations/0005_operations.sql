-- Who follows an operation reads the tenant's history from here, not from its beginning.
ALTER TABLE operations ADD COLUMN events_after BIGINT NOT NULL DEFAULT 0;
-- Since when its worker holds it.
ALTER TABLE operations ADD COLUMN leased_at BIGINT;
