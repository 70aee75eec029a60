"""
The command line of migration-watch.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Callable, Optional, TextIO

from . import record, text
from .connection import Connection, WatchError
from .record import BadRecord, Record
from .screen import Screen
from .watch import EVENTS, Watcher

_COMPLETED, _FAILED, _ERROR = 0, 1, 2

_EPILOG = """exit status:
  0    the migration has completed (--history, --from: all is well)
  1    it has failed, or was cancelled
  2    wrong usage, no connection, or a file cannot be read or written
  130  interrupted; the migration goes on
"""


def _parse(argv: Optional[list[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='migration-watch', epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Watch the migration that runs in a QEMU, or the next '
        'one, and plot it afterwards.')
    parser.add_argument(
        'socket', metavar='SOCKET', nargs='?',
        help='QMP monitor: path of a UNIX socket, or HOST:PORT')
    parser.add_argument(
        '--follow', action='store_true',
        help='go on with the migrations after it, until QEMU ends')
    parser.add_argument(
        '--history', action='store_true',
        help='only show the migrations that QEMU remembers')
    parser.add_argument(
        '--from', dest='file', metavar='FILE',
        help='show those in a file: JSON, a reply to query-migration-history, '
        'the list in it, or one record')
    parser.add_argument(
        '--id', help='of --history or --from, only those with this id')
    parser.add_argument(
        '--plot', metavar='FILE', action='append', default=[],
        type=_plot_path, help='draw the (last) migration: .svg or .png; '
        'may be repeated; needs matplotlib')
    parser.add_argument(
        '--save', metavar='FILE',
        help='write the record of the (last) migration, as JSON')
    args = parser.parse_args(argv)
    if (args.socket is None) == (args.file is None):
        parser.error('one of SOCKET and --from is needed')
    if args.file is not None and (args.history or args.follow):
        parser.error('--history and --follow need SOCKET')
    if args.history and args.follow:
        parser.error('--history and --follow exclude each other')
    if args.id is not None and not (args.history or args.file is not None):
        parser.error('--id needs --history or --from')
    return args


def _plot_path(path: str) -> str:
    if not path.lower().endswith(('.svg', '.png')):
        raise argparse.ArgumentTypeError(f'"{path}" must end in .svg or .png')
    return path


class _Files:
    """The files that are to be written when a migration is over."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._plots, self._save = args.plot, args.save
        self.wanted = bool(self._plots or self._save)
        # Better now than when the migration is over
        for path in filter(None, (*self._plots, self._save)):
            parent = Path(path).parent
            if not os.access(parent, os.W_OK | os.X_OK):
                raise BadRecord(f'{path}: cannot write to {parent}')
        if self._plots:
            try:
                # pylint: disable=import-outside-toplevel
                from . import plot
            except ImportError as err:
                raise BadRecord(
                    f'--plot needs Python\'s matplotlib ({err}); it is in '
                    'the package python3-matplotlib of Debian and Fedora') \
                    from err
            self._draw = plot.draw

    def write(self, entry: Record) -> None:
        """Write them; raise BadRecord if one cannot be written."""
        if self._save:
            _write(record.save, entry, self._save)
        for path in self._plots:
            _write(self._draw, entry, path)


def _write(writer: Callable[[Record, str], None], entry: Record,
           path: str) -> None:
    try:
        writer(entry, path)
    except OSError as err:
        raise BadRecord(f'{path}: {err.strerror}') from err


def _show(history: list[Record], args: argparse.Namespace,
          files: _Files) -> int:
    """Print the records that are asked for, and write the files."""
    chosen = record.choose(history, args.id) \
        if files.wanted or args.id is not None else None
    print('\n\n'.join(text.log(entry) for entry in history
                      if args.id in (None, entry['id']))
          or 'no migration is recorded')
    if chosen:
        files.write(chosen)
    return _COMPLETED


async def _history(args: argparse.Namespace, files: _Files,
                   connection: Connection, screen: Screen) -> int:
    found = await Watcher(connection, screen).history()
    if found is None:
        raise WatchError('this QEMU keeps no history of migrations')
    return _show(found, args, files)


async def _watch(args: argparse.Namespace, files: _Files,
                 connection: Connection, screen: Screen) -> int:
    watcher = Watcher(connection, screen)
    await watcher.attach()
    status = _ERROR
    try:
        while True:
            entry = await watcher.next()
            status = {'completed': _COMPLETED}.get(entry['outcome'], _FAILED)
            try:
                files.write(entry)
            except BadRecord as err:
                if not args.follow:
                    raise
                screen.log(text.printable(str(err)))
            if not args.follow:
                return status
    except WatchError as err:
        if watcher.seen:
            raise WatchError(f'{err}; how the migration ended is not known') \
                from err
        if status == _ERROR:
            raise
        # There was a migration, and between two of them QEMU may end.
        screen.log(str(err))
        return status
    finally:
        if watcher.seen and watcher.seen['passes']:
            # It goes on without us; what there is may tell why.
            files.write(watcher.seen)


async def _connected(args: argparse.Namespace, files: _Files,
                     screen: Screen) -> int:
    task = asyncio.current_task()
    assert task
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    connection = Connection(args.socket, EVENTS, screen.log)
    try:
        await connection.open()
        return await (_history if args.history else _watch)(
            args, files, connection, screen)
    except asyncio.CancelledError:
        screen.log('interrupted; nothing in QEMU has changed')
        return 128 + signal.SIGINT
    finally:
        screen.close()
        await connection.close()


def _run(args: argparse.Namespace) -> int:
    files = _Files(args)
    if args.file is not None:
        return _show(record.load(args.file), args, files)
    return asyncio.run(_connected(args, files, Screen(sys.stdout)))


def _tolerant(stream: TextIO) -> None:
    # What QEMU says may be in no character set of this terminal's.
    if hasattr(stream, 'reconfigure'):
        stream.reconfigure(errors='backslashreplace')


def main(argv: Optional[list[str]] = None) -> int:
    """Run; the exit status."""
    args = _parse(argv)
    _tolerant(sys.stdout)
    _tolerant(sys.stderr)
    try:
        return _run(args)
    except (BadRecord, WatchError) as err:
        print(f'migration-watch: {text.printable(str(err))}', file=sys.stderr)
    except BrokenPipeError:
        # Whoever has read the log has seen enough; Python would object to it
        # once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 128 + signal.SIGINT
    return _ERROR
