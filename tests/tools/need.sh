#!/bin/sh
# Installs Debian packages for commands that are missing: need.sh COMMAND=PACKAGE...
# need.sh --always PACKAGE... installs without looking for a command.
set -eu

missing=''
if [ "${1:-}" = --always ]; then
    shift
    missing="$*"
else
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing="$missing ${pair#*=}"
    done
fi
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "missing, and no apt-get to install them with: $missing" >&2
    exit 1
fi
sudo=''
[ "$(id -u)" = 0 ] || sudo='sudo'
# shellcheck disable=SC2086 # both are lists of words
{
    $sudo apt-get update -q
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y $missing
} </dev/null
