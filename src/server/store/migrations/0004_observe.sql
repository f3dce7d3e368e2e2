-- What tenants print, in chunks of whole lines. Every source of a tenant has a numbering of its own, without gaps.
CREATE TABLE log_chunks (
    tenant_id       TEXT NOT NULL,
    source          TEXT NOT NULL,
    last_seq        BIGINT NOT NULL,
    first_seq       BIGINT NOT NULL,
    -- the latest time that a line of it was printed, and when it came here
    last_at         BIGINT NOT NULL,
    kept_at         BIGINT NOT NULL,
    bytes           BIGINT NOT NULL,
    -- whether `lines` is deflated and base64
    packed          BIGINT NOT NULL,
    lines           TEXT NOT NULL,
    PRIMARY KEY (tenant_id, source, last_seq)
);
CREATE INDEX log_chunks_by_age ON log_chunks (kept_at);

-- How much there is of each source; `loose` chunks wait to be packed into one.
CREATE TABLE log_streams (
    tenant_id       TEXT NOT NULL,
    source          TEXT NOT NULL,
    last_seq        BIGINT NOT NULL,
    bytes           BIGINT NOT NULL,
    loose           BIGINT NOT NULL,
    loose_bytes     BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, source)
);

-- Up to where the output of each machine is kept: written in one transaction with its lines, by whoever knows its revision.
CREATE TABLE log_positions (
    machine_id      TEXT PRIMARY KEY,
    -- empty for what belongs to no tenant
    tenant_id       TEXT NOT NULL,
    position        TEXT NOT NULL,
    revision        BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL
);
CREATE INDEX log_positions_by_tenant ON log_positions (tenant_id);

-- Work that one server of an installation does for all: who does it, and until when unless it is heard of again.
CREATE TABLE duties (
    name            TEXT PRIMARY KEY,
    holder          TEXT NOT NULL,
    held_until      BIGINT NOT NULL
);

-- What tenants use: points of 15 s in blocks of five minutes, kept for an hour, and points of 5 minutes in blocks of a
-- day, kept for 30 days. `points` only grows at its end while the block is young.
CREATE TABLE metric_blocks (
    tenant_id       TEXT NOT NULL,
    step_seconds    BIGINT NOT NULL,
    starts_at       BIGINT NOT NULL,
    -- whether its sum is in the block of the next step
    rolled          BIGINT NOT NULL,
    points          TEXT NOT NULL,
    PRIMARY KEY (tenant_id, step_seconds, starts_at)
);
CREATE INDEX metric_blocks_by_age ON metric_blocks (step_seconds, rolled, starts_at);
