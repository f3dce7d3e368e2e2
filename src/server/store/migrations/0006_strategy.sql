-- How a release takes over from the one before: `rolling`, or `recreate` where no two may use the volume at once.
ALTER TABLE releases ADD COLUMN strategy TEXT NOT NULL DEFAULT 'rolling';
