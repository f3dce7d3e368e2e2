-- How often a password was wrong: of an account from an address (or a browser), from an address, of an account. A mark is
-- an HMAC: neither addresses nor what was typed as one can be read from it.
CREATE TABLE password_tries (
    mark            TEXT PRIMARY KEY,
    failures        BIGINT NOT NULL,
    free_at         BIGINT NOT NULL,
    forget_at       BIGINT NOT NULL
);
CREATE INDEX password_tries_by_end ON password_tries (forget_at);

-- From where people have signed in to an account before (HMAC, too).
CREATE TABLE known_places (
    mark            TEXT PRIMARY KEY,
    forget_at       BIGINT NOT NULL
);
CREATE INDEX known_places_by_end ON known_places (forget_at);
