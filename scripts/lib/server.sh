# Sourced: the management API of the demo, and the command line that talks to it.
# shellcheck shell=bash
# shellcheck disable=SC2154 # set by the script that sources this: demo, binary, log_dir, tenant

# A command line of the demo's own: nothing of the person's configuration is read or written.
sp() {
  env -u SYSTEMPROMPT_TOKEN -u SYSTEMPROMPT_TENANT -u SYSTEMPROMPT_PROFILE \
    XDG_CONFIG_HOME="$demo/home/config" XDG_DATA_HOME="$demo/home/data" XDG_CACHE_HOME="$demo/home/cache" \
    SYSTEMPROMPT_API_URL="$api" SYSTEMPROMPT_DATA_DIR="$demo/data" "$binary" "$@"
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The ports of this demo: the usual ones where they are free, the next free ones else; the same at every run.
choose_ports() {
  if [ ! -s "$demo/ports" ]; then
    local wanted chosen=()
    for wanted in 8787 8080 8443; do
      while ! port_is_free "$wanted"; do wanted=$((wanted + 1)); done
      chosen+=("$wanted")
    done
    mkdir -p "$demo"
    printf '%s %s %s\n' "${chosen[@]}" >"$demo/ports"
  fi
  read -r api_port http_port https_port <"$demo/ports"
  api=http://127.0.0.1:$api_port
}

server_pid() {
  local pid
  pid=$(cat "$demo/server.pid" 2>/dev/null) || return 1
  # A number may have gone to another process since.
  [ -n "$pid" ] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q "systemprompt serve" && echo "$pid"
}

build_id() { stat --format '%Y-%s' "$binary"; }

start_server() {
  choose_ports
  local pid tries
  if pid=$(server_pid); then
    if [ "$(cat "$demo/server.build" 2>/dev/null)" = "$(build_id)" ]; then
      say "server runs at $api (process $pid)"
      return
    fi
    say 'the program was built anew: restarting the server'
    stop_server
  fi
  port_is_free "$api_port" || stop_with "something else listens on port $api_port" "end it, or remove $demo/ports to take another"
  say "starting the server at $api"
  # It outlives this script and holds none of its pipes.
  setsid "$PWD/$binary" serve --data-dir "$demo/data" --listen "127.0.0.1:$api_port" \
    --edge-http-port "$http_port" --edge-https-port "$https_port" </dev/null >>"$log_dir/server.log" 2>&1 &
  echo $! >"$demo/server.pid"
  build_id >"$demo/server.build"
  for tries in $(seq 300); do
    if curl --silent --fail --max-time 2 "$api/livez" >/dev/null 2>&1; then
      say "server runs (${SECONDS} s)"
      return
    fi
    server_pid >/dev/null || break
    sleep 0.2
  done
  tail -n 20 "$log_dir/server.log" >&2
  stop_with "the server did not come up after $tries tries" "see $log_dir/server.log"
}

stop_server() {
  local pid
  pid=$(server_pid) || return 0
  kill -TERM "$pid"
  for _ in $(seq 150); do
    server_pid >/dev/null || break
    sleep 0.1
  done
  if server_pid >/dev/null; then
    say "the server (process $pid) did not end in 15 s: killing it"
    kill -KILL "$pid"
  fi
  rm -f "$demo/server.pid" "$demo/server.build"
}

sign_in() {
  if sp whoami >/dev/null 2>&1; then return; fi
  say 'signing in with an API token of the operator account'
  # Through a pipe: neither an argument nor a file holds the token.
  sp server token create --account operator@localhost --scope read,deploy,secrets,admin --expires-in 90d --name demo |
    sp login --with-token --store file || stop_with 'signing in failed' "see $log_dir/server.log"
}

instance_label() {
  local instance
  instance=$(cat "$demo/data/instance" 2>/dev/null) || return 1
  [ -n "$instance" ] && printf 'label=io.systemprompt.instance=%s' "$instance"
}

stop_containers() {
  local filter
  filter=$(instance_label) && engine_answers || return 0
  docker ps --quiet --filter "$filter" | xargs --no-run-if-empty docker stop >/dev/null
}

# What was built for this demo's registry: by its names, then what has lost its name to a newer build.
remove_images() {
  local repository=127.0.0.1:$api_port/systemprompt-images format
  for format in '{{.Repository}}:{{.Tag}}' '{{.Repository}}@{{.Digest}}'; do
    docker image ls --digests --format "$format" "$repository" | grep -v '<none>' | sort --unique |
      xargs --no-run-if-empty docker image rm >/dev/null || true
  done
  docker image ls --quiet --filter dangling=true --filter label=io.systemprompt.reference |
    xargs --no-run-if-empty docker image inspect \
      --format '{{.Id}} {{index .Config.Labels "io.systemprompt.reference"}}' |
    awk -v own="$repository:" 'index($2, own) == 1 { print $1 }' |
    xargs --no-run-if-empty docker image rm >/dev/null || true
}

clean_up() {
  choose_ports
  # Through the product while it runs, so that this project's own files forget the tenant too.
  if server_pid >/dev/null && [ -x "$binary" ]; then
    sp tenant delete "$tenant" --yes >/dev/null 2>&1 || true
  fi
  stop_server
  local filter
  if filter=$(instance_label) && engine_answers; then
    docker ps --all --quiet --filter "$filter" | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
    docker network ls --quiet --filter "$filter" | xargs --no-run-if-empty docker network rm >/dev/null
    docker volume ls --quiet --filter "$filter" | xargs --no-run-if-empty docker volume rm --force >/dev/null
    remove_images
  fi
  rm -rf "$demo"
}
