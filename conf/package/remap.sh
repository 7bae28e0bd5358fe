#!/bin/sh
# Prints a Cargo setting that keeps the folders of this build out of the binary: remap.sh TARGET, in the top folder.
# A crate has the same name whether it comes from Cargo's cache or from vendor/, and the standard library has the name
# that its own build gave it, whether or not its source is installed.
set -eu

flags=''
remap() {
    flags="$flags'--remap-path-prefix=$1=$2', "
}
# The last prefix that fits wins.
remap "$PWD" /hsdo
remap "$PWD/vendor/crates" /crates
for folder in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    [ ! -d "$folder" ] || remap "$folder" /crates
done
commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
remap "$(rustc --print sysroot)/lib/rustlib/src/rust" "/rustc/$commit"
echo "target.$1.rustflags = [ $flags]"
