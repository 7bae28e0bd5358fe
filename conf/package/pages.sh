#!/bin/sh
# Copies what people read, and the deploy files, to a folder, as they lie in the source, since the pages link to each other:
# pages.sh FOLDER, in the top folder.
set -eu
umask 022
for file in README.md CHANGELOG.md src/README.md tests/README.md $(find conf -path conf/package -prune -o -type f -print | LC_ALL=C sort); do
    install -D -m 644 "$file" "$1/$file"
done
