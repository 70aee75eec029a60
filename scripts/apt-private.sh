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

# The configured mirror of Debian's main archive.  Its origin is known once
# `apt-get update` has been run; before that, take the release's own name.
mirror() {
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    apt-get indextargets \
        --format '$(ORIGIN) $(LABEL) $(RELEASE) $(COMPONENT) $(REPO_URI)' \
        'Created-By: Packages' |
    awk -v codename="$codename" '
        $(NF - 1) != "main" { next }
        $1 == "Debian" && $2 == "Debian" { known = known ? known : $NF }
        $(NF - 2) == codename            { named = named ? named : $NF }
        END { print known ? known : named }'
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

uri=$(mirror)
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
