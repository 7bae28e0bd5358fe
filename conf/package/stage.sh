#!/bin/sh
# Lays out what a package installs: stage.sh BINARY ROOT deb|rpm, in the top folder. Owners are the packer's business.
set -eu
umask 022
binary=$1 root=$2 kind=$3

put() {
    install -D -m "$1" "$2" "$root/$3"
}
zsh=usr/share/zsh/site-functions units=usr/lib/systemd/system
if [ "$kind" = deb ]; then
    zsh=usr/share/zsh/vendor-completions units=lib/systemd/system
fi
rm -rf "$root"
put 755 "$binary" usr/bin/hsdo
put 644 conf/package/hsdo.1 usr/share/man/man1/hsdo.1
gzip -9n "$root/usr/share/man/man1/hsdo.1"
put 644 conf/package/completions/hsdo.bash usr/share/bash-completion/completions/hsdo
put 644 conf/package/completions/_hsdo $zsh/_hsdo
put 644 conf/package/completions/hsdo.fish usr/share/fish/vendor_completions.d/hsdo.fish
put 644 conf/package/hsdo.sysusers usr/lib/sysusers.d/hsdo.conf
for unit in conf/systemd/*.service; do
    put 644 "$unit" $units/"${unit##*/}"
done
put 644 conf/env.yaml etc/hsdo/env.yaml
doc=usr/share/doc/hsdo
put 644 README.md $doc/README.md
put 644 conf/README.md $doc/conf.md
for file in conf/haproxy.cfg conf/ecs/* conf/grafana/* conf/prometheus/* $(find conf/terraform -name '*.tf' -o -name README.md | LC_ALL=C sort); do
    [ ! -f "$file" ] || put 644 "$file" $doc/examples/"${file#conf/}"
done
case $kind in
deb)
    put 644 CHANGELOG.md $doc/changelog
    gzip -9n "$root/$doc/changelog" "$root/$doc/README.md" "$root/$doc/conf.md"
    ;;
rpm)
    put 644 CHANGELOG.md $doc/CHANGELOG.md
    put 644 LICENSE usr/share/licenses/hsdo/LICENSE
    ;;
esac
