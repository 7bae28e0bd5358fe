#!/bin/sh
# Builds an rpm: rpm.sh ARCHITECTURE BINARY FOLDER FILE, in the top folder, with VERSION, MAINTAINER and SOURCE_DATE_EPOCH.
# Plain rpmbuild, from Debian's package rpm: it signs and dates nothing that it is not told to.
set -eu
umask 022
architecture=$1 binary=$2 folder=$(realpath -m "$3") file=$4

conf/package/stage.sh "$binary" "$folder/stage" rpm
find "$folder/stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
# Neither the user's macros nor the machine's name count.
HOME=$folder rpmbuild --quiet -bb --target "$architecture-linux" \
    --define "_topdir $folder/top" \
    --define "_tmppath $folder/tmp" \
    --define "_buildhost hsdo" \
    --define "use_source_date_epoch_as_buildtime 1" \
    --define "clamp_mtime_to_source_date_epoch 1" \
    --define "source_date_epoch_from_changelog 0" \
    --define "_source_filedigest_algorithm 8" \
    --define "_binary_filedigest_algorithm 8" \
    --define "_binary_payload w9.xzdio" \
    --define "_rpmfilename hsdo.rpm" \
    --define "optflags none" \
    --define "hsdo_version $VERSION" \
    --define "hsdo_maintainer $MAINTAINER" \
    --define "hsdo_date $(LC_ALL=C date -u -d "@$SOURCE_DATE_EPOCH" '+%a %b %d %Y')" \
    --define "hsdo_stage $folder/stage" \
    conf/package/hsdo.spec
mv "$folder/top/RPMS/hsdo.rpm" "$file"
