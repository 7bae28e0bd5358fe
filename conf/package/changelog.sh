#!/bin/sh
# Whether this version can be released: changelog.sh VERSION, in the top folder. It has the first section of CHANGELOG.md, with a date if the
# commit is tagged, and the tag is this version's.
set -eu
version=$1
fail() {
    echo "$*" >&2
    exit 1
}
# deb and rpm would take 1.0.0-rc.1 for newer than 1.0.0, or for no version at all.
printf '%s\n' "$version" | grep -qxE '[0-9]+\.[0-9]+\.[0-9]+' || fail "Cargo.toml: version $version: only X.Y.Z can be packed"
heading=$(grep '^## ' CHANGELOG.md | head -n 1)
date=${heading#"## $version ("}
date=${date%)}
[ "$heading" = "## $version ($date)" ] || fail "CHANGELOG.md begins with \"$heading\": its first section has to be ## $version (YYYY-MM-DD), or (unreleased) before its tag"
if [ "$date" != unreleased ]; then
    [ "$(date -u -d "$date" +%F 2>/dev/null)" = "$date" ] || fail "CHANGELOG.md: \"$date\" is no date: ## $version (YYYY-MM-DD), or (unreleased)"
fi
sed -n "/^## $version /,/^## /p" CHANGELOG.md | sed 1d | grep -q '^[^#]' || fail "CHANGELOG.md: the section of version $version is empty"
[ -e .git ] || exit 0
for tag in $(git tag --points-at HEAD); do
    [ "$tag" = "v$version" ] || fail "this commit has the tag $tag, but Cargo.toml has version $version: the tag has to be v$version"
    [ "$date" != unreleased ] || fail "CHANGELOG.md: version $version is tagged, but has no date: ## $version (YYYY-MM-DD)"
done
