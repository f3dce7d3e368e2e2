-- How often callers may ask, where several servers share one database: when the caller's bucket is full again.
CREATE TABLE rate_limits (
    caller          TEXT PRIMARY KEY,
    full_at         BIGINT NOT NULL
);
