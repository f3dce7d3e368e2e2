-- Which version of its signing secret a tenant's release has (the first, where nothing is said), and which former one it
-- knows beside it, until when.
ALTER TABLE tenants ADD COLUMN jwt_version BIGINT;
ALTER TABLE tenants ADD COLUMN jwt_former BIGINT;
ALTER TABLE tenants ADD COLUMN jwt_former_until BIGINT;
