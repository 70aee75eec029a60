#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Fetch Debian packages of another suite into the current directory, without
# touching the system's apt configuration and without installing anything.
#
#   apt-private.sh download SUITE PACKAGE[=VERSION]...   binary packages
#   apt-private.sh source SUITE PACKAGE=VERSION...       source packages
#
# The mirror is the one that apt is configured for; apt verifies what it
# fetches with Debian's keys, as always.

set -eu

die() {
    echo "apt-private: $*" >&2
    exit 1
}

# The configured mirror of Debian's main archive.  apt knows whose archive is
# whose once it has fetched its lists; before that, go by the release's name.
mirror() {
    apt-get indextargets --format '$(ORIGIN)/$(LABEL) $(REPO_URI)' \
        'Created-By: Packages' 'Component: main' |
        sed -n 's,^Debian/Debian ,,p' | grep . && return
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    apt-get update --print-uris |
        sed -n "s,^'\(.*\)/dists/$codename/InRelease' .*,\1,p"
}

[ $# -ge 3 ] || die "usage: apt-private.sh download|source SUITE PACKAGE..."
action=$1
suite=$2
shift 2
case $action in
download) type=deb ;;
source) type=deb-src ;;
*) die "$action: neither download nor source" ;;
esac

uri=$(mirror | head -n 1)
[ -n "$uri" ] || die "apt has no mirror of Debian's main archive configured"
for keyring in /usr/share/keyrings/debian-archive-keyring.gpg \
               /usr/share/keyrings/debian-archive-keyring.pgp; do
    [ -e "$keyring" ] && break
done
[ -e "$keyring" ] || die "no $keyring: install debian-archive-keyring"

state=${SERIES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qemu-failsafe}
state=$state/apt/$suite-$type
mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
cat > "$state/sources.sources" <<EOF
Types: $type
URIs: $uri
Suites: $suite
Components: main
Signed-By: $keyring
EOF

apt() {
    apt-get -qq \
        -o Dir::Etc::SourceList="$state/sources.sources" \
        -o Dir::Etc::SourceParts=/nonexistent \
        -o Dir::State::lists="$state/lists" \
        -o Dir::Cache="$state/cache" \
        -o Acquire::Languages=none \
        -o APT::Sandbox::User=root \
        "$@"
}

fetch() {
    case $action in
    download) apt download "$@" ;;
    source) apt source --download-only "$@" ;;
    esac
}

# The lists of an earlier run serve as long as they name what is wanted.
fetch "$@" 2>/dev/null || { apt update && fetch "$@"; }
