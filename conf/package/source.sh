#!/bin/sh
# Packs the source with its crates: source.sh, in the top folder, into target/dist. In a clone it packs the last commit, in
# an unpacked source archive that archive again. VERSION, REVISION and SOURCE_DATE_EPOCH come from the Makefile.
set -eu
umask 022
export LC_ALL=C TZ=UTC
dist=target/dist work=target/dist-work/source name=hsdo-$VERSION
rm -rf "$work"
mkdir -p "$work/$name" "$dist"
if [ -e .git ]; then
    git -c core.attributesFile=/dev/null -c core.autocrlf=false -c core.eol=lf archive --format=tar HEAD | tar -C "$work/$name" -xf -
    echo "$REVISION $SOURCE_DATE_EPOCH" > "$work/$name/conf/package/commit"
    conf/package/vendor.sh "$work/$name/vendor"
else
    tar --exclude=./target -cf - . | tar -C "$work/$name" -xf -
fi
conf/package/tar.sh "$work" "$name" | xz -2 -T1 > "$dist/$name-source.tar.xz"
rm -rf "$work"
chmod 644 "$dist/$name-source.tar.xz"
