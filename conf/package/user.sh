# shellcheck shell=sh
# The system user of the units, in the scripts of the packages. Without systemd there is no unit, but a user may still be wanted.
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers hsdo.conf
elif ! getent passwd hsdo >/dev/null && command -v useradd >/dev/null; then
    group=--user-group
    if getent group hsdo >/dev/null; then group='--gid hsdo'; fi
    # shellcheck disable=SC2086 # two words
    useradd --system $group --no-create-home --home-dir / --shell /usr/sbin/nologin hsdo
fi
