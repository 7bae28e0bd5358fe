#!/bin/sh
# Builds a release from its own source archive, in a folder and an environment of its own: release.sh TARGET..., in the top folder, into
# target/dist. So nothing else that lies here, and no setting of the user, of Cargo, Git or a packer, gets into it.
set -eu
umask 022
rm -rf target/dist
conf/package/source.sh
dist=$PWD/target/dist
place=$(mktemp -d "${TMPDIR:-/tmp}/hsdo-release.XXXXXX")
trap 'rm -rf "$place"' EXIT
mkdir "$place/home"
tar -C "$place" -xf "$dist/hsdo-$VERSION-source.tar.xz"
cd "$place/hsdo-$VERSION"
for target in "$@"; do
    # Rust itself stays where rustup put it.
    env -i PATH="$PATH" HOME="$place/home" CARGO_HOME="$place/home/cargo" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" \
        make package TARGET="$target"
done
mv target/dist/* "$dist/"
cd "$dist"
sha256sum ./* | sed 's| \./| |' > "$place/SHA256SUMS"
mv "$place/SHA256SUMS" .
cat SHA256SUMS
