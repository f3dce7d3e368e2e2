# Sourced: the three images that the platform runs on, pulled where they can be, made from Debian packages where not.
# Stand-ins have names of their own ("systemprompt-standin/…"); nothing here ever writes an official name.
# shellcheck shell=bash

images=(debian:bookworm-slim postgres:16-alpine caddy:2)

standin_of() {
  case $1 in
    debian:*) echo "$standin/debian:bookworm-slim" ;;
    postgres:*) echo "$standin/postgres:15" ;;
    caddy:*) echo "$standin/caddy:2" ;;
  esac
}

ensure_images() {
  local image missing=()
  for image in "${images[@]}"; do
    if has_image "$image"; then
      say "image $image is here"
    elif has_image "$(standin_of "$image")"; then
      say "image $image: its stand-in $(standin_of "$image") is here"
    else
      missing+=("$image")
    fi
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  # One probe tells for all: either the registry answers or it does not.
  if pull_image "${missing[0]}"; then
    say "pulled ${missing[0]}"
    for image in "${missing[@]:1}"; do
      say "pulling $image"
      pull_image "$image" || build_standin "$image"
    done
    return
  fi
  say "image ${missing[0]} cannot be pulled here: building stand-ins from Debian packages"
  for image in "${missing[@]}"; do
    build_standin "$image"
  done
}

build_standin() {
  local image=$1 name begin=$SECONDS
  name=$(standin_of "$image")
  has_image "$standin/debian:bookworm-slim" || build_base
  case $image in
    debian:*) ;;
    *)
      # The host's network: a container's own may not resolve names where the resolver is on loopback.
      docker build --network host --build-arg BASE="$standin/debian:bookworm-slim" --tag "$name" \
        "scripts/images/${image%%:*}" >"$log_dir/image-${image%%:*}.log" 2>&1 </dev/null ||
        stop_with "building $name failed: $(tail -n 1 "$log_dir/image-${image%%:*}.log")" "see $log_dir/image-${image%%:*}.log"
      ;;
  esac
  say "built $name in place of $image ($((SECONDS - begin)) s)"
}

# Debian bookworm, as small as the image of that name: no documentation, no translations, no package lists.
build_base() {
  local mirror tree log="$log_dir/image-debian.log"
  install_packages debootstrap
  mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(CREATED_BY)' 2>/dev/null |
    awk '$2 == "bookworm" && $3 == "Packages" { print $1; exit }')
  [ -n "$mirror" ] || stop_with 'no mirror of Debian bookworm is among the sources of apt' 'pull debian:bookworm-slim on a machine that can, and docker load it here'
  tree=$(as_root mktemp -d)
  # shellcheck disable=SC2064 # the folder of now
  trap "as_root rm -rf '$tree'" EXIT
  as_root debootstrap --variant=minbase bookworm "$tree" "$mirror" >"$log" 2>&1 ||
    stop_with "debootstrap failed: $(tail -n 1 "$log")" "see $log"
  as_root sh scripts/images/slim.sh "$tree"
  as_root tar --create --directory "$tree" . |
    docker import --change 'CMD ["bash"]' - "$standin/debian:bookworm-slim" >>"$log" 2>&1 ||
    stop_with "docker import failed: $(tail -n 1 "$log")" "see $log"
  as_root rm -rf "$tree"
  trap - EXIT
}
