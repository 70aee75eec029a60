"""
The parts of scripts/migration-watch.

SPDX-License-Identifier: GPL-2.0-or-later
"""
