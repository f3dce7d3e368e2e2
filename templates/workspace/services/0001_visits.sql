-- One row a day keeps the table small however often the page is shown.
CREATE TABLE visits (
    day date PRIMARY KEY,
    count bigint NOT NULL CHECK (count > 0)
);
