# SPDX-License-Identifier: GPL-2.0-or-later
#
# The upstream that the series is made against.  Read by the Makefile's
# tools as plain "NAME := value" lines; `make rebase` rewrites them.

# QEMU's VERSION file must say this.
QEMU_VERSION := 10.2.2

# Used when QEMU_SRC is a git checkout; without this tag its HEAD is taken.
QEMU_TAG := v10.2.2

# Debian's source package, the source when QEMU_SRC is not given and the
# download cache is empty: fetched with apt from the mirror that apt is
# already configured for.
QEMU_DEBIAN_VERSION := 1:10.2.2+ds-1
QEMU_DEBIAN_SUITE := sid

# Tarballs known by name, and their SHA-256.  A tarball of another name is
# vouched for like a directory: every file that a hook touches must be the
# exact blob that the patch was made against.
QEMU_TARBALL := qemu_10.2.2+ds.orig.tar.xz
QEMU_SHA256 := be05230fe47a6937cd29f28f562932c8125f9c93c2a82c625198f7a4aa601dfb
