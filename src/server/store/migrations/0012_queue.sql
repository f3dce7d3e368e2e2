-- Who claims walks the queue in order and stops at the first that may run; what is finished is not in it.
CREATE INDEX operations_in_line ON operations (run_at, id) WHERE finished_at IS NULL;
