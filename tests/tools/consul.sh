#!/bin/sh
# Unpacks a Consul agent for the tests into a folder, without installing it: consul.sh FOLDER.
# Debian 12 has no consul; Debian 11 has 1.8.7, which needs only the C library. apt-get fetches the package from this machine's
# Debian mirror, with separate lists and cache, and checks Debian's signature.
set -eu

target=$1
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

mirror() {
    # shellcheck disable=SC2016 # apt-get's own variables
    apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        sed -n 's/^Debian main //p' | head -n 1
}

if ! command -v apt-get >/dev/null; then
    echo "no apt-get to fetch consul with: put a consul 1.8 binary at $target/consul" >&2
    exit 1
fi
if [ -z "$(mirror)" ]; then
    # apt learns a mirror's origin from the lists.
    sudo=''
    [ "$(id -u)" = 0 ] || sudo='sudo'
    $sudo apt-get update -q </dev/null
fi
mirror=$(mirror)
if [ -z "$mirror" ]; then
    echo "this machine's apt sources have no Debian mirror: put a consul 1.8 binary at $target/consul" >&2
    exit 1
fi

rm -rf "$target.new"
mkdir -p "$target.new/lists/partial" "$target.new/archives/partial" "$target.new/none"
folder=$(cd "$target.new" && pwd)
printf 'deb [signed-by=%s] %s bullseye main\n' "$keyring" "$mirror" >"$folder/sources.list"
: >"$folder/status"
apt() {
    apt-get -q \
        -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts="$folder/none" \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts="$folder/none" \
        -o Dir::State="$folder" -o Dir::State::Lists="$folder/lists" -o Dir::State::status="$folder/status" \
        -o Dir::Cache="$folder" -o Dir::Cache::Archives="$folder/archives" -o APT::Sandbox::User="" \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@" </dev/null
}
apt update
(cd "$folder" && apt download consul)
dpkg-deb --extract "$folder"/consul_*.deb "$folder/package"
mkdir -p "$target"
mv "$folder/package/usr/bin/consul" "$target/consul"
rm -rf "$folder"
"$target/consul" version
