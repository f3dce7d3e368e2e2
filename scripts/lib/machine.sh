# Sourced by the scripts beside it: what this machine has, and how it gets what it lacks.
# shellcheck shell=bash

standin=systemprompt-standin

say() { printf '%s: %s\n' "${me:-setup}" "$1"; }

# What failed, then the way out.
stop_with() {
  printf '%s: error: %s\n' "${me:-setup}" "$1" >&2
  [ -z "${2:-}" ] || printf '%s: hint: %s\n' "${me:-setup}" "$2" >&2
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif has sudo && sudo -n true 2>/dev/null; then
    sudo -n "$@"
  else
    stop_with "\`$*\` needs root" 'run scripts/setup as root, or let sudo work without a password for it'
  fi
}

# A full disk shows itself as failures of everything else.
look_at_room() {
  local room
  room=$(df --output=avail --block-size=1G . | tail -n 1 | tr -d ' ')
  [ "$room" -ge 2 ] || stop_with "only $room GB are free for $PWD" 'make room: a first build and its tests take 6 GB'
  [ "$room" -ge 6 ] || say "only $room GB are free here: a first build and its tests take 6 GB"
}

# Debian packages that are missing from a list, all in one go.
install_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  has apt-get || stop_with "this machine lacks ${missing[*]}, and is no Debian" "install ${missing[*]} with its own package manager"
  say "installing ${missing[*]}"
  # A machine may be doing its own updates just now.
  local apt=(as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q -y)
  "${apt[@]}" update >"$log_dir/apt.log" 2>&1 || stop_with "apt-get update failed: $(tail -n 1 "$log_dir/apt.log")"
  "${apt[@]}" install --no-install-recommends "${missing[@]}" >>"$log_dir/apt.log" 2>&1 ||
    stop_with "apt-get install failed: $(tail -n 1 "$log_dir/apt.log")" "see $log_dir/apt.log"
}

has_postgresql() { has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

# The programs only: Debian's package would make and start a server of its own.
install_postgresql() {
  install_packages postgresql-common
  as_root sh -c 'grep -qs "^create_main_cluster = false" /etc/postgresql-common/createcluster.conf ||
    echo "create_main_cluster = false" >>/etc/postgresql-common/createcluster.conf'
  install_packages postgresql-15
}

engine_answers() { has docker && docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

start_engine() {
  if engine_answers; then
    say "Docker Engine $(docker version --format '{{.Server.Version}}') runs"
    return
  fi
  [ -z "${DOCKER_HOST:-}" ] || stop_with "no Docker Engine answers at $DOCKER_HOST" 'start it, or unset DOCKER_HOST to use one on this machine'
  if ! has dockerd; then
    install_packages docker.io iptables
  fi
  has docker || install_packages docker.io
  if engine_answers; then return; fi
  say 'starting the Docker Engine'
  if [ -d /run/systemd/system ]; then
    as_root systemctl start docker || true
  else
    # It must outlive this script and hold none of its pipes. Its proxies of ports end when they have no files left.
    as_root sh -c 'rm -f /var/run/docker.pid; (ulimit -n 1048576) 2>/dev/null && ulimit -n 1048576; setsid dockerd </dev/null >/var/log/dockerd.log 2>&1 9>&- &'
  fi
  for _ in $(seq 150); do
    if engine_answers; then
      say "Docker Engine $(docker version --format '{{.Server.Version}}') runs"
      return
    fi
    sleep 0.2
  done
  if [ -S /var/run/docker.sock ] && [ ! -w /var/run/docker.sock ]; then
    stop_with 'the Docker Engine runs, but you may not use it' "add yourself to its group: sudo usermod -aG docker $(id -un), then sign in again"
  fi
  stop_with 'the Docker Engine did not start' 'see /var/log/dockerd.log or journalctl -u docker'
}

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

# Pulls an image where that is possible. A registry that cannot be reached is given up on within seconds; one that
# answers may take as long as the download needs.
pull_image() {
  local image=$1 output pid
  output=$(mktemp)
  docker pull "$image" >"$output" 2>&1 &
  pid=$!
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || break
    grep -q 'Pulling from' "$output" && break
    sleep 0.1
  done
  if kill -0 "$pid" 2>/dev/null && ! grep -q 'Pulling from' "$output"; then
    kill "$pid" 2>/dev/null
  fi
  local outcome=0
  wait "$pid" || outcome=1
  rm -f "$output"
  return "$outcome"
}
