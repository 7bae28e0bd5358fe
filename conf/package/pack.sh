#!/bin/sh
# Packs the built binary of one target in every form: pack.sh TARGET, in the top folder, into target/dist.
# VERSION, REVISION, MAINTAINER, SOURCE_DATE_EPOCH and CARGO_COMMAND come from the Makefile. The same inputs give the same bytes.
set -eu
umask 022
export LC_ALL=C TZ=UTC
target=$1
machine=${target%%-*}
case $machine in
x86_64) debian=amd64 ;;
aarch64) debian=arm64 ;;
*) echo "no packages for $machine" >&2; exit 1 ;;
esac

dist=target/dist work=target/dist-work/$machine
rm -rf "$work"
mkdir -p "$work" "$dist"
name=hsdo-$VERSION-$machine

# The list of crates goes into the binary, where scanners of images and hosts look for it.
conf/package/sbom.py "$target" - - "$work/crates"
# The names of the compilers are not needed.
"$machine-linux-gnu-objcopy" --remove-section .comment --add-section ".dep-v0=$work/crates" "target/$target/release/hsdo" "$work/hsdo"
conf/package/sbom.py "$target" "$work/hsdo" "$dist/$name.cdx.json" -

top=$work/tar/$name
mkdir -p "$top"
install -m 755 "$work/hsdo" "$top/hsdo"
conf/package/pages.sh "$top"
cp -R LICENSE conf/package/hsdo.1 conf/package/completions "$dist/$name.cdx.json" "$top/"
conf/package/tar.sh "$work/tar" "$name" | gzip -9n > "$dist/$name.tar.gz"

conf/package/deb.sh "$debian" "$work/hsdo" "$work/deb" "$dist/hsdo_$VERSION-1_$debian.deb"
conf/package/rpm.sh "$machine" "$work/hsdo" "$work/rpm" "$dist/hsdo-$VERSION-1.$machine.rpm"
conf/package/image.py "$debian" "$work/hsdo" "$dist/$name.oci.tar"
chmod 644 "$dist"/*
