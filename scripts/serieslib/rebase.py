# SPDX-License-Identifier: GPL-2.0-or-later
"""Move the series onto another upstream.

It ends in one of two ways: done, with the patches and the pin rewritten; or
stopped at a conflict in the worktree, with nothing of this repository
changed yet.
"""

import json
from pathlib import Path

from . import pin, upstream, worktree
from .build import tip
from .fold import fold
from .git import Failure
from .snapshot import PIN

_KINDS = {'DD': 'deleted on both sides', 'AU': 'added by the series',
          'UD': 'deleted by the patch, changed upstream',
          'UA': 'added upstream', 'DU': 'gone upstream',
          'AA': 'added on both sides', 'UU': 'changed on both sides'}
_SHOWN_LINES = 20


def start(project, target):
    """`make rebase TO=target`."""
    state = _state_file(project)
    if state.exists():
        raise Failure('a rebase is under way: make rebase CONTINUE=1, or '
                      'make rebase ABORT=1')
    source = _target(project, target)
    # With TO=tag, QEMU_SRC is where the tag is, not the present upstream.
    project.source = None
    files = project.files()
    base = project.base(files)
    tree = worktree.make_tree(project)
    onto = upstream.import_source(project.git, source)
    version = upstream.version(project.git, onto)
    if not version:
        raise Failure(f'{source.describe()}: no file VERSION: not QEMU')
    project.git.run('update-ref', f'refs/bases/{version}', onto)
    state.write_text(json.dumps({
        'base': base, 'onto': onto, 'version': version,
        'pin': _new_pin(source, version, target),
        'source': [source.kind, str(source.path), source.fingerprint]}))
    print(f'rebasing onto QEMU {version}, {source.describe()}', flush=True)
    done = tree.git.attempt('rebase', '--onto', onto, base)
    _finish_or_stop(project, tree, done)


def _target(project, target):
    if Path(target).expanduser().exists():
        return upstream.examine(target, None)
    if not project.source:
        raise Failure(f'TO={target}: no such git checkout, directory or '
                      'tarball; for a tag, name a checkout with QEMU_SRC=')
    source = upstream.examine(project.source, None)
    if source.kind != 'git':
        raise Failure(f'{project.source} is no git checkout: no tag {target}')
    commit = upstream.Git(cwd=source.path).resolve(target)
    if not commit:
        raise Failure(f'{project.source}: no tag or commit {target}')
    return source._replace(fingerprint=commit, commit=commit)


def _new_pin(source, version, target):
    tag = f'v{version}'
    if source.kind == 'git' and not Path(target).expanduser().exists():
        tag = target
    values = {'QEMU_VERSION': version, 'QEMU_TAG': tag,
              'QEMU_DEBIAN_VERSION': '', 'QEMU_TARBALL': '',
              'QEMU_SHA256': ''}
    if source.kind == 'tarball':
        values['QEMU_TARBALL'] = source.path.name
        values['QEMU_SHA256'] = upstream.sha256(source.path)
        stem = source.path.name.partition('.orig.tar')
        if stem[0].startswith('qemu_') and stem[1]:
            values['QEMU_DEBIAN_VERSION'] = f'1:{stem[0][5:]}-1'
    return values


def proceed(project):
    """`make rebase CONTINUE=1`."""
    tree = worktree.Worktree(project)
    _read_state(project)
    if not tree.rebasing():
        _finish(project, tree)
        return
    unmerged = tree.git.lines('diff', '--name-only', '--diff-filter=U')
    if unmerged:
        raise Failure('not resolved yet (edit, then git add):\n  '
                      + '\n  '.join(unmerged))
    _finish_or_stop(project, tree, tree.git.attempt('rebase', '--continue'))


def abort(project):
    """`make rebase ABORT=1`."""
    tree = worktree.Worktree(project)
    _read_state(project)
    if tree.rebasing():
        tree.git.run('rebase', '--abort')
    else:
        tree.require_clean()
        tree.move(tree.synced())
    _state_file(project).unlink()
    print('rebase given up; the series is as it was')


def _state_file(project):
    return project.git_dir / 'rebase.json'


def _read_state(project):
    try:
        return json.loads(_state_file(project).read_text())
    except FileNotFoundError:
        raise Failure('no rebase is under way') from None


def _finish_or_stop(project, tree, done):
    if not done.returncode:
        _finish(project, tree)
    elif tree.rebasing():
        raise Failure(_report(project, tree))
    else:
        _state_file(project).unlink()
        raise Failure('git rebase: ' + done.stderr.decode(errors='replace'))


def _finish(project, tree):
    """Fold the worktree onto the new upstream, and pin that."""
    state = _read_state(project)
    tree.require_clean()
    old = project.files()
    old_commits = project.commits(old, state['base'])
    if tip(old_commits, state['base']) != tree.synced():
        raise Failure('the series was changed during the rebase; put it '
                      'back with git restore, then make rebase CONTINUE=1')
    # New patches for the old pin would be refused, so both change at once.
    new = fold(project.git, state['onto'], tree.head(), old, old_commits)
    if pin.read(old)['QEMU_VERSION'] != state['version'] or \
            state['pin']['QEMU_TARBALL']:
        new[PIN] = pin.update(old, state['pin'])
    kind, path, fingerprint = state['source']
    project.record_base(state['version'],
                        upstream.Source(kind, Path(path), fingerprint),
                        state['onto'])
    worktree.adopt(project, tree, state['onto'], old, new)
    _state_file(project).unlink()
    print(f'rebased onto QEMU {state["version"]}; commit the changes, and '
          'name for each adapted patch the upstream commit that forced it')


def _report(project, tree):
    """Name the patch, the files and the hunks that git stopped at."""
    state = _read_state(project)
    names = {commit.id: commit.name for commit in
             project.commits(project.files(), state['base'])}
    stopped = tree.git.resolve('REBASE_HEAD')
    subject = tree.git.text('show', '-s', '--format=%s', stopped)
    lines = [f'the rebase stopped at patches/qemu/{names.get(stopped, "?")} '
             f'("{subject}")']
    for entry in tree.git.text('status', '--porcelain', '-z').split('\0'):
        code, path = entry[:2], entry[3:]
        if code in _KINDS:
            lines += [f'  {path}: {_KINDS[code]}', *_hunks(tree.path / path)]
    lines.append(f'Resolve it in {tree.path}, mark it with git add, then run '
                 'make rebase CONTINUE=1\n'
                 '(or give up: make rebase ABORT=1)')
    return '\n'.join(lines)


def _hunks(path):
    """The conflicts of a file, each with its line numbers."""
    if not path.is_file():
        return
    first = 0
    text = path.read_text(errors='replace').splitlines()
    for number, line in enumerate(text, 1):
        if line.startswith('<<<<<<< '):
            first = number
        elif line.startswith('>>>>>>> ') and first:
            yield f'    hunk at lines {first}-{number}:'
            hunk = text[first - 1:number]
            yield from ('    | ' + one for one in hunk[:_SHOWN_LINES])
            if len(hunk) > _SHOWN_LINES:
                yield f'    | ... {len(hunk) - _SHOWN_LINES} more lines'
            first = 0
