# SPDX-License-Identifier: GPL-2.0-or-later
"""Run git, independent of the user's configuration and environment."""

import os
import subprocess
from pathlib import Path


class Failure(Exception):
    """An error to show to the user as it is; nothing has been changed."""


def _environment():
    env = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')}
    env.update(GIT_CONFIG_GLOBAL=str(Path(__file__).with_name('gitconfig')),
               GIT_CONFIG_NOSYSTEM='1', GIT_ATTR_NOSYSTEM='1',
               GIT_TERMINAL_PROMPT='0', GIT_EDITOR='true',
               LC_ALL='C', TZ='UTC')
    return env


class Git:
    """git in one repository, optionally with its own index or work tree."""

    def __init__(self, git_dir=None, work_tree=None, index=None, cwd=None):
        self.cwd = cwd
        self.env = _environment()
        for name, value in (('GIT_DIR', git_dir),
                            ('GIT_WORK_TREE', work_tree),
                            ('GIT_INDEX_FILE', index)):
            if value is not None:
                self.env[name] = str(value)

    def attempt(self, *args, stdin=None, env=None):
        """Run git and return the finished process, failed or not."""
        return subprocess.run(
            ['git', *map(str, args)], input=stdin, capture_output=True,
            cwd=self.cwd, env={**self.env, **(env or {})}, check=False)

    def run(self, *args, stdin=None, env=None):
        """Run git; return its output as bytes, or fail with its message."""
        done = self.attempt(*args, stdin=stdin, env=env)
        if done.returncode:
            message = done.stderr.decode(errors='replace').strip()
            raise Failure(f'git {args[0]}: {message}')
        return done.stdout

    def text(self, *args, stdin=None, env=None):
        """Run git; return its output as text without the last newline."""
        out = self.run(*args, stdin=stdin, env=env)
        return out.decode(errors='surrogateescape').rstrip('\n')

    def lines(self, *args):
        """Run git; return its output as a list of lines."""
        return self.text(*args).splitlines()

    def resolve(self, rev):
        """Return the commit id that @rev names, or None."""
        done = self.attempt('rev-parse', '--verify', '--quiet',
                            f'{rev}^{{commit}}')
        return done.stdout.decode().strip() or None
