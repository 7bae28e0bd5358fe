#!/bin/sh
# Builds a deb: deb.sh ARCHITECTURE BINARY FOLDER FILE, in the top folder, with VERSION, MAINTAINER and SOURCE_DATE_EPOCH.
# Plain dpkg-deb: it has all that is needed, and cargo-deb would be one more tool to build.
set -eu
umask 022
architecture=$1 binary=$2 root=$3 file=$4

conf/package/stage.sh "$binary" "$root" deb
doc=$root/usr/share/doc/hsdo
{
    cat conf/package/deb/copyright
    sed -e '1,/^Copyright/d' -e 's/^$/./' -e 's/^/ /' LICENSE | sed '1{/^ \.$/d}'
} > "$doc/copyright"
printf 'hsdo (%s-1) stable; urgency=medium\n\n  * The changes are in changelog.gz.\n\n -- %s  %s\n' "$VERSION" "$MAINTAINER" \
    "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")" > "$doc/changelog.Debian"
gzip -9n "$doc/changelog.Debian"
install -D -m 644 conf/package/deb/lintian-overrides "$root/usr/share/lintian/overrides/hsdo"

mkdir "$root/DEBIAN"
size=$(find "$root" -type f -exec stat -c %s {} + | awk '{ sum += int(($1 + 1023) / 1024) } END { print sum }')
sed -e "s/@VERSION@/$VERSION/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@MAINTAINER@/$MAINTAINER/" -e "s/@SIZE@/$size/" \
    conf/package/deb/control > "$root/DEBIAN/control"
echo /etc/hsdo/env.yaml > "$root/DEBIAN/conffiles"
(cd "$root" && find usr -type f | LC_ALL=C sort | xargs md5sum) > "$root/DEBIAN/md5sums"
for script in postinst prerm postrm; do
    sed -e '/^@USER@$/{r conf/package/user.sh' -e 'd}' conf/package/deb/$script > "$root/DEBIAN/$script"
    chmod 755 "$root/DEBIAN/$script"
done
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
# One thread: the number of threads would change the bytes.
dpkg-deb --root-owner-group -Zxz -z9 --threads-max=1 --build "$root" "$file" >/dev/null
