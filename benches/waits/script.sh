#!/bin/sh
# What a deploy was before there was a command for it: the steps of the first design, as people typed them.
#   script.sh DOCKER API TOKEN TENANT_ID REGISTRY
set -eu
docker=$1 api=$2 token=$3 tenant=$4 registry=$5
image=$registry/systemprompt-images:tenant-$tenant
"$docker" build --quiet --file Dockerfile --tag "$image" .
password=$(curl --silent --fail --header "Authorization: Bearer $token" "$api/api/v1/tenants/$tenant/registry-token" |
  sed -n 's/.*"token": *"\([^"]*\)".*/\1/p')
printf %s "$password" | "$docker" login "$registry" --username systemprompt --password-stdin
"$docker" push --quiet "$image"
curl --silent --fail --header "Authorization: Bearer $token" --header 'Content-Type: application/json' \
  --request POST --data "{\"image\": \"$image\", \"health_path\": \"/mark.txt\", \"release_command\": [\"caddy\", \"version\"]}" \
  "$api/api/v1/tenants/$tenant/deploy"
