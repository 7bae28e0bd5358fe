#!/bin/sh
# Fetches the crates for builds without a network: vendor.sh FOLDER, in the top folder.
# Cargo wants to see every crate of Cargo.lock, those of other systems too. Of these only the manifests are kept: Cargo reads
# them, but compiles nothing of them.
set -eu
umask 022
folder=$1
rm -rf "$folder"
mkdir -p "$folder"
cargo vendor --quiet --locked --versioned-dirs "$folder/crates" > /dev/null
printf '%s\n' '[source.crates-io]' 'replace-with = "vendored-sources"' '[source.vendored-sources]' \
    'directory = "vendor/crates"' > "$folder/config.toml"
exec conf/package/hollow.py "$folder/crates"
