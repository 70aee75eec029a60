"""
A QMP connection whose errors are for people to read.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import asyncio
import os
from typing import Any, Callable, Iterable, Optional, Union

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError

_GREETING_S = 5
# before it is said that QEMU is slow to answer
_PATIENCE_S = 5


class WatchError(Exception):
    """QEMU cannot be watched, or not any longer; the message says why."""


def parse_address(text: str) -> Union[str, tuple[str, int]]:
    """A path, or a host and a port."""
    host, colon, port = text.rpartition(':')
    if colon and port.isdecimal() and '/' not in text:
        # [::1]:4444
        return host.strip('[]') or 'localhost', int(port)
    return text


class Connection:
    """
    A client of QEMU's that only asks and listens.

    :param address: what parse_address() takes
    :param events: names of the events to keep
    :param notice: told in words when QEMU is slow to answer
    """

    def __init__(self, address: str, events: Iterable[str],
                 notice: Callable[[str], None]) -> None:
        self._address = address
        self._notice = notice
        self._qmp = QMPClient('migration-watch')
        # It listens from the start, so nothing is lost between the end of the
        # negotiation and the first call of event().
        self._qmp.events.names.update(events)
        self._next: Optional[asyncio.Future[Any]] = None

    async def open(self) -> None:
        """Connect and negotiate, or raise WatchError."""
        try:
            await asyncio.wait_for(
                self._qmp.connect(parse_address(self._address)), _GREETING_S)
        except asyncio.TimeoutError as err:
            raise WatchError(
                f'{self._address}: connected, but not greeted within '
                f'{_GREETING_S} s. Is another client using this monitor? '
                'It serves one at a time.') from err
        except ConnectError as err:
            raise WatchError(f'{self._address}: {_why(err.exc)}') from err

    async def close(self) -> None:
        """End the connection; QEMU goes on as before."""
        if self._next:
            self._next.cancel()
        try:
            await self._qmp.disconnect()
        except Exception:       # pylint: disable=broad-except
            # The other side may have done so first, in any way.
            pass

    async def execute(self, command: str) -> Any:
        """
        What a command returns.

        Raises ExecuteError if QEMU refuses it, WatchError if the connection
        is lost.
        """
        task = asyncio.ensure_future(self._qmp.execute(command))
        try:
            done, _ = await asyncio.wait([task], timeout=_PATIENCE_S)
            if not done:
                self._notice(f'QEMU has not answered for {_PATIENCE_S} s; '
                             'waiting for it')
            return await task
        except ExecuteError:
            raise
        except QMPError as err:
            raise WatchError('the connection was lost: '
                             + await self._cause()) from err
        finally:
            task.cancel()

    async def _cause(self) -> str:
        try:
            await self._qmp.disconnect()
        except Exception as err:    # pylint: disable=broad-except
            return _why(err)
        return 'it was closed'

    async def event(self, timeout: float) -> Optional[dict[str, Any]]:
        """The next event, or None if none comes for so many seconds."""
        # The future stays over several calls: cancelled, it might take an
        # event with it.
        if not self._next:
            self._next = asyncio.ensure_future(self._qmp.events.get())
        await asyncio.wait([self._next], timeout=timeout)
        if not self._next.done():
            return None
        event, self._next = self._next.result(), None
        return dict(event)


def _why(err: BaseException) -> str:
    # Which one, depends on whether something was on its way.
    if isinstance(err, (EOFError, BrokenPipeError, ConnectionResetError)):
        return 'QEMU has closed the connection'
    if isinstance(err, ConnectionError) and err.errno:
        # asyncio's own words name the address once more, not the error
        return os.strerror(err.errno)
    if isinstance(err, OSError):
        return err.strerror or str(err)
    if isinstance(err, QMPError):
        # its messages may quote what was received, over several lines
        return 'this is not QMP: ' + str(err).partition('\n')[0]
    return str(err) or type(err).__name__
