#!/usr/bin/env bash
# Understands what callers of the official image use: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB (each also as
# …_FILE), POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD and /docker-entrypoint-initdb.d/*.{sh,sql}.
set -euo pipefail

# The value of a variable, or the content of the file that its …_FILE names, or a default.
setting() {
  local name=$1 file="${1}_FILE"
  if [ -n "${!file:-}" ]; then
    cat "${!file}"
  else
    printf '%s' "${!name:-${2:-}}"
  fi
}

initialise() {
  local user password database method
  user=$(setting POSTGRES_USER postgres)
  password=$(setting POSTGRES_PASSWORD)
  database=$(setting POSTGRES_DB "$user")
  method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
  if [ -z "$password" ] && [ "$method" != trust ]; then
    echo 'Error: Database is uninitialized and superuser password is not specified.' >&2
    exit 1
  fi
  # shellcheck disable=SC2086 # several arguments in one variable, as the official image has it
  initdb --username="$user" --pwfile=<(printf '%s\n' "$password") --auth-host=scram-sha-256 --auth-local=trust \
    --encoding=UTF8 ${POSTGRES_INITDB_ARGS:-}
  printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
  # Only its socket: nobody may connect before it is set up.
  pg_ctl --options="-c listen_addresses=''" --wait start
  if [ "$database" != postgres ]; then
    psql --username "$user" --dbname postgres --set ON_ERROR_STOP=1 --set database="$database" <<<'CREATE DATABASE :"database";'
  fi
  local file
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sh) bash "$file" ;;
      *.sql) psql --username "$user" --dbname "$database" --set ON_ERROR_STOP=1 --file "$file" ;;
    esac
  done
  pg_ctl --mode=fast --wait stop
}

if [ "${1:0:1}" = - ]; then set -- postgres "$@"; fi
if [ "$1" = postgres ]; then
  if [ "$(id -u)" = 0 ]; then
    install --directory --mode 3777 --owner postgres --group postgres /var/run/postgresql
    install --directory --mode 700 "$PGDATA"
    chown -R postgres:postgres "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups bash "$0" "$@"
  fi
  if [ ! -s "$PGDATA/PG_VERSION" ]; then initialise; fi
  set -- "$@" -c listen_addresses='*'
fi
unset POSTGRES_PASSWORD POSTGRES_PASSWORD_FILE
exec "$@"
