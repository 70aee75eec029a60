#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Configure and compile a QEMU source tree.
#
#   build-qemu.sh SOURCE BUILD [NINJA-TARGET]...
#
# CONFIGURE_ARGS adds arguments to those below.  SOURCE and BUILD are best
# siblings: then all builds of this project share one ccache.

set -eu

features="
    --enable-system --enable-tools --enable-kvm --enable-tcg
    --enable-vhost-kernel --enable-vhost-net --enable-vhost-user
    --enable-vhost-vdpa --enable-vhost-user-blk-server
    --enable-slirp --enable-linux-io-uring --enable-linux-aio
    --enable-zstd --enable-fdt --enable-pixman --enable-vnc --enable-fuse
    --enable-tpm --enable-replication --enable-coroutine-pool"
# What a source package does not carry comes from Debian's packages.
firmware="/usr/share/qemu /usr/share/seabios /usr/lib/ipxe/qemu"
tools="qemu-system-x86_64 qemu-img qemu-io qemu-nbd
    storage-daemon/qemu-storage-daemon tests/vhost-user-bridge"

top=$(cd "$(dirname "$0")/.." && pwd)
cache=${SERIES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qemu-failsafe}
python=/usr/bin/python3

# Two builds at once of one directory: the second one waits.
mkdir -p "$2"
source=$(cd "$1" && pwd)
build=$(cd "$2" && pwd)
shift 2
exec 9> "$build.lock"
flock 9

# Debian 12's backports have the meson that QEMU needs; used from the cache.
meson_is_new() {
    $python -c '
import sys
from mesonbuild.coredata import version
sys.exit(tuple(map(int, version.split(".")[:2])) < (1, 5))' 2>/dev/null
}

provide_meson() {
    meson=$cache/meson/usr/lib/python3/dist-packages
    if ! meson_is_new; then
        export PYTHONPATH="$meson${PYTHONPATH:+:$PYTHONPATH}"
    fi
    meson_is_new && return
    echo "fetching meson from Debian's backports"
    mkdir -p "$cache/meson"
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    (cd "$cache/meson" &&
     "$top/scripts/apt-private.sh" download "$codename-backports" meson &&
     dpkg -x meson_*.deb .)
    meson_is_new || { echo "error: meson >= 1.5 is needed" >&2; exit 1; }
}

configure_args() {
    echo "--python=$python --target-list=x86_64-softmmu"
    echo "--without-default-features --disable-install-blobs --disable-docs"
    echo "--enable-werror --enable-debug-info"
    echo "$features"
    if [ ! -e "$source/pc-bios/bios-256k.bin" ]; then
        echo "--firmwarepath=$(echo $firmware | tr ' ' :)"
    fi
    if [ -e "$source/subprojects/keycodemapdb/README" ]; then
        echo "--disable-download"
    fi
}

provide_meson

# Paths below the project's top are hashed relative to the build directory.
export CCACHE_BASEDIR="$top" CCACHE_NOHASHDIR=1
cc=gcc
! command -v ccache >/dev/null || cc="ccache gcc"

args="$(configure_args) ${CONFIGURE_ARGS:-}"
stamp=$build/configured-with
cd "$build"
if [ ! -e build.ninja ] || [ "$(cat "$stamp" 2>/dev/null)" != "$cc $args" ]
then
    rm -f "$stamp"
    if ! "$source/configure" --cc="$cc" $args > configure.log 2>&1; then
        tail -n 30 configure.log >&2
        echo "error: QEMU's configure failed; see $build/configure.log" >&2
        exit 1
    fi
    echo "$cc $args" > "$stamp"
fi

# QEMU that is not installed looks for all its data below this directory.
for directory in $firmware; do
    mkdir -p "qemu-bundle${directory%/*}"
    ln -sfn "$directory" "qemu-bundle$directory"
done

# Nothing of the lock may be inherited by a compiler's daemon.
[ $# -gt 0 ] || set -- $tools
exec ninja --quiet "$@" 9>&-
