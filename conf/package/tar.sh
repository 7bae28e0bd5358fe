#!/bin/sh
# Writes a tar file that depends on names and contents alone: tar.sh FOLDER NAME > FILE.
set -eu
exec tar -C "$1" --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
    --mtime="@$SOURCE_DATE_EPOCH" -cf - "$2"
