#!/bin/bash
# Looks into everything in target/dist: test.sh, in the top folder, with VERSION. Ends at the first thing that is not as it should be.
set -euo pipefail
umask 022
export LC_ALL=C
dist=$PWD/target/dist
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf '%-14s %s\n' "$1" "$2"; }
die() { echo "$*" >&2; exit 1; }
same() { cmp "$work/hsdo-$1" "$2" || die "$2: another binary than in the tar file"; }
owned_by_root() {
    local strange
    strange=$(grep -vE '^[-dl]([-r][-w][-x]){3} +root/root ' <<< "$1") || return 0
    die "$2: $strange"
}

(cd "$dist" && sha256sum --check --quiet SHA256SUMS)
[ "$(cd "$dist" && ls --ignore=SHA256SUMS.asc)" = "$(printf '%s\n' SHA256SUMS hsdo-"$VERSION"-{aarch64,x86_64}.{cdx.json,oci.tar,tar.gz} \
    hsdo-"$VERSION"-1.{aarch64,x86_64}.rpm hsdo-"$VERSION"-source.tar.xz hsdo_"$VERSION"-1_{amd64,arm64}.deb | sort)" ] || die "$(ls "$dist")"
say files "all there, and SHA256SUMS is right"

for pair in x86_64:amd64 aarch64:arm64; do
    machine=${pair%:*} debian=${pair#*:}
    name=hsdo-$VERSION-$machine
    deb=$dist/hsdo_$VERSION-1_$debian.deb rpm=$dist/hsdo-$VERSION-1.$machine.rpm image=$dist/$name.oci.tar

    mkdir "$work/$machine"
    tar -C "$work/$machine" -xf "$dist/$name.tar.gz"
    cp "$work/$machine/$name/hsdo" "$work/hsdo-$machine"
    "$machine-linux-gnu-readelf" -lW "$work/hsdo-$machine" | grep -E 'INTERP|DYNAMIC' && die 'the binary is not static'
    strings -n 6 "$work/hsdo-$machine" | grep -F -e "$PWD/" -e "$HOME/" && die 'the binary tells where it was built'
    say "$machine tar" "static, $(stat -c %s "$work/hsdo-$machine") bytes, names no folder of this machine"

    dpkg-deb -x "$deb" "$work/$machine/deb"
    same "$machine" "$work/$machine/deb/usr/bin/hsdo"
    owned_by_root "$(dpkg-deb -c "$deb")" "$deb"
    [ "$(dpkg-deb -I "$deb" conffiles)" = /etc/hsdo/env.yaml ]
    python3 - "$work/$machine/$name" "$work/$machine/deb/usr/share/doc/hsdo" <<'PYTHON'
import pathlib, re, sys
pages = ["README.md", "conf/README.md", "conf/terraform/README.md"]
for page in (pathlib.Path(top, page) for top in sys.argv[1:] for page in pages):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    dead = [link for link in links if not (page.parent / link).exists()]
    assert links and not dead, f"{page}: {dead}"
PYTHON
    [ "$(dpkg-deb -f "$deb" Version Architecture | tr '\n' ' ')" = "Version: $VERSION-1 Architecture: $debian " ]
    [ -z "$(dpkg-deb -f "$deb" Depends Pre-Depends)" ]
    # apt's notices about the system that lintian runs on are not ours.
    lintian --allow-root --fail-on error,warning,info --display-info "$deb" || die 'lintian'
    say "$machine deb" 'one configuration file, needs no package, lintian is content'

    mkdir "$work/$machine/rpm"
    (cd "$work/$machine/rpm" && rpm2cpio "$rpm" | cpio -idm --quiet)
    same "$machine" "$work/$machine/rpm/usr/bin/hsdo"
    owned_by_root "$(rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]' "$rpm")" "$rpm"
    [ "$(rpm -qp --configfiles "$rpm")" = /etc/hsdo/env.yaml ]
    rpm -qp --qf '[%{FILEFLAGS:fflags} %{FILENAMES}\n]' "$rpm" | grep -qx 'cn /etc/hsdo/env.yaml'
    if rpm -qp --requires "$rpm" | grep -vE '^(rpmlib\(|/bin/sh$|config\(hsdo\))'; then die 'the rpm needs a package'; fi
    rpm -qp --scripts "$rpm" | grep -q systemd-sysusers
    rpmlint --strict --config conf/package/rpmlint.toml "$rpm" > "$work/rpmlint" 2>&1 || { cat "$work/rpmlint"; die 'rpmlint'; }
    say "$machine rpm" "one configuration file, needs no package, rpmlint: $(tail -n 1 "$work/rpmlint" | tr -d '=')"

    skopeo inspect "oci-archive:$image" > "$work/inspect"
    skopeo inspect --config --raw "oci-archive:$image" > "$work/config"
    python3 - "$work" "$VERSION" "$debian" <<'PYTHON'
import json, sys
work, version, machine = sys.argv[1:]
inspect, config = (json.load(open(f"{work}/{name}")) for name in ("inspect", "config"))
assert inspect["Architecture"] == machine and inspect["Labels"]["org.opencontainers.image.version"] == version, inspect
assert config["config"]["User"] == "65534:65534" and config["config"]["Healthcheck"]["Test"][1:] == ["/usr/bin/hsdo", "check", "--quick"]
assert sorted(config["config"]["Volumes"]) == ["/etc/hsdo", "/var/run/haproxy"], config
PYTHON
    mkdir "$work/$machine/layout"
    tar -C "$work/$machine/layout" -xf "$image"
    umoci unpack --rootless --image "$work/$machine/layout:$VERSION" "$work/$machine/bundle" 2> "$work/umoci" || die "$(cat "$work/umoci")"
    same "$machine" "$work/$machine/bundle/rootfs/usr/bin/hsdo"
    say "$machine image" 'skopeo and umoci read it; user, volumes, health check and labels are there'

    "$machine-linux-gnu-objcopy" -O binary --only-section=.dep-v0 --set-section-flags .dep-v0=alloc "$work/hsdo-$machine" "$work/embedded"
    python3 - "$work/embedded" "$dist/$name.cdx.json" "$work/hsdo-$machine" "$machine" <<'PYTHON'
import hashlib, json, sys, tomllib, zlib
embedded, document, binary, machine = sys.argv[1:]
locked = {(one["name"], one["version"]): one.get("checksum") for one in tomllib.load(open("Cargo.lock", "rb"))["package"]}
inside = {(one["name"], one["version"]) for one in json.loads(zlib.decompress(open(embedded, "rb").read()))["packages"]}
bom = json.load(open(document))
root = bom["metadata"]["component"]
assert root["hashes"][0]["content"] == hashlib.sha256(open(binary, "rb").read()).hexdigest()
crates = [one for one in bom["components"] if one["purl"].startswith("pkg:cargo/")]
told = {(one["name"], one["version"]) for one in crates}
assert told | {(root["name"], root["version"])} == inside, told ^ inside
for one in crates:
    assert locked[one["name"], one["version"]] == one["hashes"][0]["content"] and one["licenses"], one
refs = {one["bom-ref"] for one in bom["components"]} | {root["bom-ref"]}
assert all({one["ref"], *one["dependsOn"]} <= refs for one in bom["dependencies"])
build = sum(one["scope"] == "excluded" for one in crates)
print(f"{machine + ' crates':14} {len(crates) - build} in the binary and {build} that build it, with the sums of Cargo.lock, of {len(locked) - 1} there")
PYTHON
done

# As nobody, in a root folder that has only the image.
chroot=$work/$(uname -m)/bundle/rootfs
[ "$(id -u)" != 0 ] || [ "$(chmod 755 "$work" && chroot --userspec=65534:65534 "$chroot" /usr/bin/hsdo --version)" = "hsdo $VERSION" ]

for unit in conf/systemd/*.service; do
    score=$(systemd-analyze security --offline=yes --no-pager "$unit" | sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p')
    [ "$(echo "$score <= 1.3" | bc)" = 1 ] || die "$unit: $score"
    say "${unit##*/}" "exposure $score"
done
mkdir -p "$work/sysusers/etc"
systemd-sysusers --root="$work/sysusers" "$PWD/conf/package/hsdo.sysusers" 2>/dev/null
grep -q '^hsdo:x:[0-9]*:[0-9]*:hsdo:/:' "$work/sysusers/etc/passwd"
man --warnings -l conf/package/hsdo.1 2>&1 >/dev/null | grep . && die 'the man page is faulty'
lexgrog conf/package/hsdo.1 >/dev/null
zsh -n conf/package/completions/_hsdo
fish --no-execute conf/package/completions/hsdo.fish
[ "$(fish -c 'source conf/package/completions/hsdo.fish; complete -C "hsdo drain --y"' | cut -f 1)" = --yes ]
[ "$(bash -c 'source conf/package/completions/hsdo.bash; COMP_WORDS=(hsdo drain --y) COMP_CWORD=2; _hsdo; echo "${COMPREPLY[@]}"' 2>/dev/null)" = --yes ]
say completions 'bash, zsh and fish read them'
