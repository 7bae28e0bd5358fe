#!/bin/bash
# Installs what make dist gave, as root: install-test.sh PYTHON, in the top folder, with VERSION, MAINTAINER and SOURCE_DATE_EPOCH. Each
# part lets hsdo serve a HAProxy (scene.py): the unit of the deb, then of the rpm, in a bare Debian that is booted, with Debian's HAProxy,
# which is upgraded and removed while it runs; the rpm's files in an empty folder; the image in a chroot as its user; the other machine
# type's binary under qemu. The bare Debian is kept in target/.
set -euo pipefail
umask 022
export LC_ALL=C
python=$1
dist=$PWD/target/dist
machine=$(uname -m)
case $machine in x86_64) debian=amd64 other=aarch64 ;; aarch64) debian=arm64 other=x86_64 ;; *) exit 1 ;; esac
[ "$(id -u)" = 0 ] || { echo 'run it as root: it makes root folders' >&2; exit 1; }
work=$(mktemp -d)
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
die() { echo "$*" >&2; exit 1; }
say() { printf '\n== %s\n' "$*"; }

# dpkg runs it in the bare Debian, without questions.
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }

say "deb: install in a bare Debian"
bare=target/debian-bookworm-dbus-rpm.tar
if [ ! -f $bare ]; then
    debootstrap --variant=minbase --include=haproxy,systemd-sysv,dbus,rpm bookworm "$work/bare" > "$work/debootstrap.log" || die "$(tail -n 20 "$work/debootstrap.log")"
    tar -C "$work/bare" -cf $bare.new . && mv $bare.new $bare
    rm -rf "$work/bare"
fi
root=$work/deb
mkdir "$root"
tar -C "$root" -xf $bare
cp "$dist/hsdo_$VERSION-1_$debian.deb" "$root/opt/hsdo.deb"
# A minimal machine image has no more than this; hsdo is all that is added.
inside dpkg-query -W -f '${Package}\n' > "$work/before"
inside dpkg -i /opt/hsdo.deb
inside dpkg-query -W -f '${Package}\n' | diff "$work/before" - || true
inside getent passwd hsdo
[ "$(inside hsdo --version)" = "hsdo $VERSION" ]
# As at the first boot of an image without a machine-id, where Debian turns on whatever no preset keeps off.
systemctl --root="$root" --quiet preset hsdo-client.service hsdo-server.service
for role in client server; do
    [ ! -e "$root/etc/systemd/system/multi-user.target.wants/hsdo-$role.service" ] || die "hsdo-$role is on"
done
cp "$root/usr/bin/hsdo" "$work/hsdo"

say "deb: the client's unit serves Debian's HAProxy, in its sandbox; an upgrade restarts it, and remove stops it"
VERSION=$VERSION+upgrade conf/package/deb.sh "$debian" "$work/hsdo" "$work/again" "$root/opt/next.deb"
"$python" tests/tools/scene.py --root "$root" --settings "$root/etc/hsdo/env.yaml" --boot \
    --upgrade 'dpkg -i /opt/next.deb' --remove 'dpkg -r hsdo' chroot --userspec=hsdo:hsdo "$root" /usr/bin/hsdo
[ -s "$root/var/lib/hsdo/table.json" ] || die 'no table was kept'

say "deb: upgrade and remove keep env.yaml as it was edited, purge leaves nothing but the user"
grep -qx 'DYNAMODB_TABLE_NAME: scene' "$root/etc/hsdo/env.yaml" && [ -e "$root/etc/hsdo/hsdo.env" ] && [ ! -e "$root/usr/bin/hsdo" ]
inside dpkg -i /opt/hsdo.deb
grep -qx 'DYNAMODB_TABLE_NAME: scene' "$root/etc/hsdo/env.yaml"
inside dpkg -P hsdo
left() { find "$root" -xdev -iname '*hsdo*' -not -path "$root/opt/*" -not -path "$root/var/log/journal/*"; }
[ -z "$(left)" ] || die "purge left $(left)"
inside getent passwd hsdo

say "rpm: the same in another bare Debian, by rpm's own scripts and database"
root=$work/rpm-root
mkdir "$root"
tar -C "$root" -xf $bare
rpm=$dist/hsdo-$VERSION-1.$machine.rpm
cp "$rpm" "$root/opt/hsdo.rpm"
VERSION=$VERSION.1 conf/package/rpm.sh "$machine" "$work/hsdo" "$work/again" "$root/opt/next.rpm"
# Without dependencies: Debian's rpm does not know what dpkg has installed.
inside rpm -i --nodeps /opt/hsdo.rpm
inside rpm -V --nodeps hsdo
"$python" tests/tools/scene.py --root "$root" --settings "$root/etc/hsdo/env.yaml" --boot \
    --upgrade 'rpm -U --nodeps /opt/next.rpm' --remove 'rpm -e hsdo' chroot --userspec=hsdo:hsdo "$root" /usr/bin/hsdo
grep -qx 'DYNAMODB_TABLE_NAME: scene' "$root/etc/hsdo/env.yaml.rpmsave" && [ ! -e "$root/usr/bin/hsdo" ]

say "rpm: its files alone in an empty folder"
mkdir "$work/rpm"
(cd "$work/rpm" && rpm2cpio "$rpm" | cpio -idm --quiet)
"$python" tests/tools/scene.py --root "$work/rpm" --settings "$work/rpm/etc/hsdo/env.yaml" \
    chroot --userspec=65534:65534 "$work/rpm" /usr/bin/hsdo

say "image: unpacked, as its user, with nothing else in the root folder"
mkdir "$work/layout"
tar -C "$work/layout" -xf "$dist/hsdo-$VERSION-$machine.oci.tar"
umoci unpack --image "$work/layout:$VERSION" "$work/bundle"
find "$work/bundle/rootfs" -type f -printf '%P %m %U:%G\n'
"$python" tests/tools/scene.py --root "$work/bundle/rootfs" chroot --userspec=65534:65534 "$work/bundle/rootfs" /usr/bin/hsdo

say "$other: the other machine type's binary, under qemu"
mkdir "$work/tar"
tar -C "$work/tar" -xf "$dist/hsdo-$VERSION-$other.tar.gz"
"$python" tests/tools/scene.py "qemu-$other-static" "$work/tar/hsdo-$VERSION-$other/hsdo"
echo 'installed, upgraded, removed, purged: as it should be'
