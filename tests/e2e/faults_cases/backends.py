"""
Storage that can be made to hang, and to go on.

Each class is a disk for QEMU (the block node "disk", from args()) on the raw
file `image`, which is where the bytes are in the end.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from harness import image, paths
from harness.process import Process, until
from harness.tap import Failure, Skip, expect
from harness.virtio import SLOT

SIZE = 16 << 20
# where another process writes when the disk was given up
ELSEWHERE = 8 << 20


def tool(name: str, *args: object) -> str:
    """Run a program of QEMU that must succeed; its output."""
    done = subprocess.run([paths.QEMU_BIN / name, *map(str, args)],
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=30, check=False)
    expect(done.returncode == 0, f'{name}: {done.stderr or done.stdout}')
    return done.stdout


def _require(program: str) -> None:
    if not shutil.which(program):
        raise Skip(f'there is no {program}')


class Backend(contextlib.ExitStack):
    """A disk on a local file, on which nothing hangs."""

    # can what hangs be made to go on?
    resumes = True
    # a command of qemu-io, with the request's number, to give before each
    before_request = ''
    # does the guest make the requests, and not QEMU itself?
    by_guest = False

    def __init__(self, work: Path) -> None:
        super().__init__()
        self.work = work
        self.image = image.create(work / 'image', 'raw', SIZE)

    def args(self) -> list[str]:
        """The part of QEMU's command line."""
        return ['-blockdev', f'file,node-name=disk,filename={self.image}']

    def hang(self) -> None:
        """From here on it does not answer."""

    def go_on(self) -> None:
        """Undo that."""

    def release(self) -> None:
        """Let nothing that still uses the disk wait for it."""

    def shared(self) -> str:
        """The disk's name for another process."""
        return str(self.image)

    def is_locked(self) -> bool:
        """Is the disk locked by the VM?"""
        return image.is_locked(self.image)

    def closes(self) -> bool:
        """Could any process that has the disk open end?"""
        return True

    def write_elsewhere(self) -> None:
        """Have another process write to the disk, as one that takes over."""
        tool('qemu-io', '-f', 'raw', '-c', f'write -P 7 {ELSEWHERE} 64k',
             '-c', 'flush', self.shared())
        with open(self.image, 'rb') as file:
            file.seek(ELSEWHERE)
            expect(file.read(65536) == b'\7' * 65536,
                   'what another process has written is not there')


class Suspended(Backend):
    """blkdebug keeps each request; nothing outside QEMU can resume it."""

    resumes = False
    before_request = 'break pwritev tag{}'

    def args(self) -> list[str]:
        return ['-blockdev', f'file,node-name=file,filename={self.image}',
                '-blockdev', 'blkdebug,node-name=disk,image=file']


class Throttled(Backend):
    """QEMU itself lets 64 KiB through each second."""

    def args(self) -> list[str]:
        return ['-object', 'throttle-group,id=slow,x-bps-write=65536',
                '-blockdev', f'file,node-name=file,filename={self.image}',
                '-blockdev', 'throttle,node-name=disk,throttle-group=slow,'
                             'file=file']


class Served(Backend):
    """A disk that another process serves."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self.socket = work / 'socket'
        self.server = self.serve()

    def release(self) -> None:
        self.server.thaw()

    def serve(self) -> Process:
        """Start the server."""
        raise NotImplementedError

    def daemon(self, *args: object) -> Process:
        """A qemu-storage-daemon that is ready, with the image as node n."""
        ready = self.work / 'pid'
        process = self.enter_context(Process(
            [paths.QEMU_BIN / 'qemu-storage-daemon', '--blockdev',
             f'file,node-name=n,filename={self.image}', *args,
             '--pidfile', ready], self.work / 'server.log'))
        process.await_file(ready)
        return process

    def hang(self) -> None:
        self.server.freeze()

    def go_on(self) -> None:
        self.server.thaw()

    def is_locked(self) -> bool:
        # by the server, always
        return False


class NbdDaemon(Served):
    """NBD, served by qemu-storage-daemon."""

    options = ''
    node = 'n'
    daemon_args: tuple[str, ...] = ()

    def serve(self) -> Process:
        return self.daemon(
            *self.daemon_args,
            '--nbd-server', f'addr.type=unix,addr.path={self.socket}',
            '--export', f'nbd,id=e,name=n,node-name={self.node},writable=on')

    def args(self) -> list[str]:
        return ['-blockdev', 'nbd,node-name=disk,export=n,server.type=unix,'
                             f'server.path={self.socket}{self.options}']

    def shared(self) -> str:
        return f'nbd+unix:///n?socket={self.socket}'


class QemuNbd(NbdDaemon):
    """NBD, served by qemu-nbd."""

    def serve(self) -> Process:
        process = self.enter_context(Process(
            [paths.QEMU_BIN / 'qemu-nbd', '-f', 'raw', '-k', self.socket,
             '-x', 'n', '-t', '-e', '4', self.image],
            self.work / 'server.log'))
        process.await_file(self.socket)
        return process


class Vanished(NbdDaemon):
    """The server is killed; another one comes later. QEMU may wait for it."""

    options = ',reconnect-delay=60'

    def hang(self) -> None:
        self.server.signal(signal.SIGKILL)
        expect(self.server.wait(5), 'the server cannot be killed')

    def go_on(self) -> None:
        self.socket.unlink()
        self.work.joinpath('pid').unlink()
        self.server = self.serve()


class FarThrottle(NbdDaemon):
    """The server lets some KiB through each second: slow, not hung."""

    node = 'throttle'

    def __init__(self, work: Path, rate: int) -> None:
        self.daemon_args = (
            '--object', f'throttle-group,id=slow,x-bps-write={rate}',
            '--blockdev', 'throttle,node-name=throttle,throttle-group=slow,'
                          'file=n')
        super().__init__(work)


class FuseFile(Served):
    """A file that qemu-storage-daemon serves by FUSE."""

    def __init__(self, work: Path) -> None:
        if not os.access('/dev/fuse', os.R_OK | os.W_OK):
            raise Skip('/dev/fuse cannot be used')
        if os.geteuid():
            _require('fusermount3')
        self.mountpoint = work / 'mountpoint'
        self.mountpoint.touch()
        super().__init__(work)
        # opened by the process itself: this one never opens the file
        self._holder = self.enter_context(Process(
            ['sh', '-c', f'exec sleep 600 3<{self.mountpoint}'],
            work / 'holder.log'))
        comm = Path(f'/proc/{self._holder.pid}/comm')
        until(lambda: comm.read_text() == 'sleep\n', 'the file is open')

    def serve(self) -> Process:
        return self.daemon('--export', 'fuse,id=e,node-name=n,writable=on,'
                           f'growable=off,mountpoint={self.mountpoint}')

    def args(self) -> list[str]:
        return ['-blockdev', f'file,node-name=disk,filename={self.shared()}']

    def shared(self) -> str:
        return str(self.mountpoint)

    def closes(self) -> bool:
        """
        Linux sends FUSE_FLUSH when a file is closed, and waits for the answer
        in a way that SIGKILL does not end; so does a process that is killed.
        Here it is measured with one that only has the file open.
        """
        self._holder.signal(signal.SIGKILL)
        return self._holder.wait(0.3) is not None


class LoopDevice(FuseFile):
    """A loop device on such a file."""

    def __init__(self, work: Path) -> None:
        _require('losetup')
        super().__init__(work)
        done = subprocess.run(
            ['losetup', '--find', '--show', self.mountpoint],
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=30, check=False)
        if done.returncode:
            self.__exit__(None, None, None)
            raise Skip(f'no loop device: {done.stderr.strip()}')
        self._loop = done.stdout.strip()
        self.callback(self._detach)

    def _detach(self) -> None:
        if subprocess.run(['losetup', '--detach', self._loop], timeout=30,
                          stdin=subprocess.DEVNULL, check=False).returncode:
            raise Failure(f'{self._loop} cannot be detached')

    def args(self) -> list[str]:
        return ['-blockdev', 'host_device,node-name=disk,cache.direct=on,'
                             f'filename={self._loop}']

    def shared(self) -> str:
        return self._loop


class VhostUser(Served):
    """vhost-user-blk, with qemu-storage-daemon as the back end."""

    by_guest = True

    def serve(self) -> Process:
        return self.daemon(
            '--export', 'vhost-user-blk,id=e,node-name=n,writable=on,'
                        f'addr.type=unix,addr.path={self.socket}')

    def args(self) -> list[str]:
        return vhost_user_args(self.socket)

    def write_elsewhere(self) -> None:
        # the back end's lock is its own affair; it serves one VM only
        self.server.end()
        super().write_elsewhere()

    def shared(self) -> str:
        return str(self.image)


def vhost_user_args(socket: Path) -> list[str]:
    """The front end's side, for virtio.access()."""
    return ['-chardev', f'socket,id=back-end,path={socket}',
            '-device', 'vhost-user-blk-pci,id=dev,chardev=back-end,'
                       f'addr={SLOT}']
