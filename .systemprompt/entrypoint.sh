#!/bin/sh
# Brings the database up to this release, then becomes the command (so that signals reach it).
set -e

# Done already by the release command in most cases: then it is one query. A database that does not answer does not keep
# the service from starting: it reports "not ready" until it does.
systemprompt services db migrate --at-start

exec "$@"
