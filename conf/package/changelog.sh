#!/bin/sh
# Whether CHANGELOG.md has a section for this version: changelog.sh VERSION, in the top folder. A tagged commit needs its date.
set -eu
heading=$(grep -F "## $1 " CHANGELOG.md | head -n 1 || true)
case $heading in
"## $1 ("????-??-??")") ;;
"## $1 (unreleased)")
    if [ -e .git ] && git tag --points-at HEAD | grep -qxF "v$1"; then
        echo "CHANGELOG.md: version $1 is tagged, but has no date: ## $1 (YYYY-MM-DD)" >&2
        exit 1
    fi
    ;;
*)
    echo "CHANGELOG.md has no section for version $1 of Cargo.toml: ## $1 (YYYY-MM-DD), or (unreleased) before its tag" >&2
    exit 1
    ;;
esac
