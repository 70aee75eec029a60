"""
The arms: with what settings the guest is migrated.

SPDX-License-Identifier: GPL-2.0-or-later
"""

from dataclasses import dataclass, field

_XBZRLE_CACHE = 256 << 20
# a page per entry, and what QEMU's documentation suggests
_RING = 4096


@dataclass(frozen=True)
class Arm:
    """Settings of a migration."""
    name: str
    capabilities: tuple[str, ...] = ()
    parameters: dict[str, object] = field(default_factory=dict)
    ring: bool = False
    # is it the series' own?
    ours: bool = False

    def accel(self, accel: str) -> str:
        """For QEMU's command line."""
        return f'{accel},dirty-ring-size={_RING}' if self.ring else accel


_XBZRLE = {'xbzrle-cache-size': _XBZRLE_CACHE}
_ENFORCE = {'convergence-mode': 'enforce'}

ARMS = {arm.name: arm for arm in (
    Arm('default'),
    Arm('auto-converge', ('auto-converge',)),
    Arm('tailslow', ('auto-converge',), {'cpu-throttle-tailslow': True}),
    Arm('xbzrle', ('xbzrle',), _XBZRLE),
    Arm('dirty-limit', ('dirty-limit',), ring=True),
    # what the ring itself costs
    Arm('default-ring', ring=True),
    # a wrong promise, unless the network is as fast as that
    Arm('switchover-bw', (), {'avail-switchover-bandwidth': 1 << 30}),
    Arm('observe', ('convergence',), {'convergence-mode': 'observe'},
        ours=True),
    Arm('convergence', ('convergence',), _ENFORCE, ours=True),
    Arm('convergence-ring', ('convergence',), _ENFORCE, ring=True, ours=True),
    Arm('convergence-xbzrle', ('convergence', 'xbzrle'), _ENFORCE | _XBZRLE,
        ours=True),
)}
# `observe` is the default with events; the others explain what is seen
DEFAULT = [name for name in ARMS if name not in
           ('observe', 'default-ring', 'convergence-xbzrle')]
