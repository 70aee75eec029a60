#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# See to it that everything needed is installed: at once when it is, with one
# apt-get when root, and by printing the command otherwise.  All of it comes
# from the Debian release that the machine runs.

set -eu

packages="
    gcc libc6-dev git perl python3 python3-venv ninja-build pkg-config
    flex bison bzip2 xz-utils ccache device-tree-compiler
    libglib2.0-dev libpixman-1-dev libfdt-dev libslirp-dev libaio-dev
    liburing-dev libzstd-dev zlib1g-dev libfuse3-dev
    seabios ipxe-qemu qemu-system-data
    cpio mount util-linux python3-matplotlib"

# Debian 12 has a meson older than QEMU wants; build-qemu.sh gets another.
[ "$(. /etc/os-release && echo "${VERSION_ID:-}")" = 12 ] ||
    packages="$packages meson"

have=" $(dpkg-query -W -f '${db:Status-Status}=${Package} ' $packages \
             2>/dev/null || true)"
missing=
for package in $packages; do
    case $have in
    *" installed=$package "*) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "Packages are missing.  As root, run:" >&2
    echo "  apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends $missing >/dev/null
