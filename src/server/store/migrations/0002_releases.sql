-- What a release must keep so that it can be restored whole, and how long its image is kept.
ALTER TABLE releases ADD COLUMN environment TEXT;
ALTER TABLE releases ADD COLUMN image_config TEXT;
ALTER TABLE releases ADD COLUMN migrations TEXT;
ALTER TABLE releases ADD COLUMN restores BIGINT;
ALTER TABLE releases ADD COLUMN pinned BIGINT NOT NULL DEFAULT 0;
ALTER TABLE releases ADD COLUMN collected_at BIGINT;
