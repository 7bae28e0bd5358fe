#!/bin/sh
# Builds everything again from the source archive in target/dist, as somebody else would: another folder, home, cache of
# crates, umask, time zone, language, settings of Cargo and of packers, and no network. Fails unless all sums are the same. again.sh, in
# the top folder.
set -eu
dist=$(realpath target/dist)
(cd "$dist" && sha256sum --check --quiet SHA256SUMS)
place=$(mktemp -d "${TMPDIR:-/tmp}/hsdo-again.XXXXXX")
trap 'rm -rf "$place"' EXIT
mkdir -p "$place/home/cargo"
printf '[profile.release]\noverflow-checks = true\n' > "$place/home/cargo/config.toml"
umask 077
tar -C "$place" -xf "$dist"/hsdo-*-source.tar.xz
cd "$place"/hsdo-*
# Rust itself stays where rustup put it.
unshare='unshare -n'
[ "$(id -u)" = 0 ] || unshare='unshare -rn'
# shellcheck disable=SC2086 # two words
env -i PATH="$PATH" HOME="$place/home" CARGO_HOME="$place/home/cargo" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" TZ=Pacific/Auckland \
    LANG=tr_TR.UTF-8 USER=nobody RUSTFLAGS=-Cdebuginfo=2 CFLAGS=-O1 GZIP=--rsyncable XZ_OPT=-9e TAR_OPTIONS=--exclude-vcs \
    CARGO_TARGET_DIR="$place/elsewhere" CARGO_PROFILE_RELEASE_OPT_LEVEL=z CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS=-Copt-level=1 \
    $unshare make dist
diff "$dist/SHA256SUMS" target/dist/SHA256SUMS
echo "the same bytes: $(wc -l < "$dist/SHA256SUMS") files"
