#!/bin/sh
# Lays out what a package installs: stage.sh BINARY ROOT deb|rpm, in the top folder. Owners are the packer's business.
set -eu
umask 022
binary=$1 root=$2 kind=$3

put() {
    install -D -m "$1" "$2" "$root/$3"
}
zsh=usr/share/zsh/site-functions
[ "$kind" != deb ] || zsh=usr/share/zsh/vendor-completions
rm -rf "$root"
put 755 "$binary" usr/bin/hsdo
put 644 conf/package/hsdo.1 usr/share/man/man1/hsdo.1
gzip -9n "$root/usr/share/man/man1/hsdo.1"
put 644 conf/package/completions/hsdo.bash usr/share/bash-completion/completions/hsdo
put 644 conf/package/completions/_hsdo $zsh/_hsdo
put 644 conf/package/completions/hsdo.fish usr/share/fish/vendor_completions.d/hsdo.fish
put 644 conf/package/hsdo.sysusers usr/lib/sysusers.d/hsdo.conf
put 644 conf/package/hsdo.preset usr/lib/systemd/system-preset/80-hsdo.preset
for unit in conf/systemd/*.service; do
    put 644 "$unit" usr/lib/systemd/system/"${unit##*/}"
done
put 644 conf/package/env.yaml etc/hsdo/env.yaml
doc=usr/share/doc/hsdo
conf/package/pages.sh "$root/$doc"
case $kind in
deb)
    put 644 CHANGELOG.md $doc/changelog
    gzip -9n "$root/$doc/changelog"
    ;;
rpm)
    put 644 LICENSE usr/share/licenses/hsdo/LICENSE
    ;;
esac
