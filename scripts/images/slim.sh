#!/bin/sh
# Makes a tree that debootstrap wrote as small as a slim image: sh slim.sh FOLDER
set -eu
tree=${1:?the folder}

rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/cache/apt/*.bin "$tree"/var/lib/apt/lists/* \
  "$tree"/var/log/*.log "$tree"/var/log/apt/* "$tree"/var/cache/debconf/*-old "$tree"/var/lib/dpkg/*-old
for part in groff info lintian linda locale man; do
  rm -rf "${tree:?}/usr/share/$part"
  printf 'path-exclude /usr/share/%s/*\n' "$part" >>"$tree/etc/dpkg/dpkg.cfg.d/slim"
done
# Licences stay; the rest of the documentation goes, now and in packages installed later.
find "$tree/usr/share/doc" ! -type d ! -name copyright -delete
find "$tree/usr/share/doc" -depth -type d -empty -delete
printf 'path-exclude /usr/share/doc/*\npath-include /usr/share/doc/*/copyright\nforce-unsafe-io\n' \
  >>"$tree/etc/dpkg/dpkg.cfg.d/slim"
# Packages must not start services while an image is built.
printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
chmod 755 "$tree/usr/sbin/policy-rc.d"
