# SPDX-License-Identifier: GPL-2.0-or-later
"""The git worktree to edit the series in.

refs/series/synced is the commit at which the worktree and the files of the
series last agreed.  Whichever of the two has left it has changed; when both
have, nothing is overwritten.
"""

from . import snapshot
from .build import tip
from .fold import fold
from .git import Git, Failure

_SYNCED = 'refs/series/synced'
_BRANCH = 'refs/heads/series'


class Worktree:
    """The worktree of a project; it may not exist yet."""

    def __init__(self, project):
        self.project = project
        self.path = project.tree
        self.git = Git(cwd=self.path)

    def exists(self):
        return (self.path / '.git').exists()

    def head(self):
        return self.git.resolve('HEAD')

    def synced(self):
        return self.project.git.resolve(_SYNCED)

    def set_synced(self, commit):
        self.project.git.run('update-ref', _SYNCED, commit)

    def rebasing(self):
        """Whether a git operation in the worktree is half done."""
        names = ('rebase-merge', 'rebase-apply', 'CHERRY_PICK_HEAD',
                 'MERGE_HEAD')
        paths = self.git.lines('rev-parse', *(
            word for name in names for word in ('--git-path', name)))
        return any((self.path / path).exists() for path in paths)

    def require_clean(self):
        if self.rebasing():
            raise Failure(f'{self.path}: a rebase, merge or cherry-pick is '
                          'under way: finish it or give it up first (that of '
                          'make rebase: with CONTINUE=1 or ABORT=1)')
        changed = self.git.lines('status', '--porcelain')
        if changed:
            shown = '\n'.join('  ' + line for line in changed[:10])
            raise Failure(f'{self.path} has uncommitted changes:\n{shown}\n'
                          'Commit them (or undo them), then try again')

    def create(self, commit):
        self.project.git.run('worktree', 'prune')
        left = self.project.git.resolve(_BRANCH)
        if left and left != self.synced():
            # The directory was removed, its commits were not folded.
            self.project.git.run('worktree', 'add', self.path, 'series')
            print(f'{self.path}: restored, with commits not folded yet')
            return
        self.project.git.run('worktree', 'add', '-B', 'series', self.path,
                             commit)
        self.set_synced(commit)

    def move(self, commit):
        """Show @commit; the worktree is known to be clean and folded."""
        self.git.run('checkout', '--quiet', '-B', 'series', commit)
        self.set_synced(commit)


def make_tree(project):
    """`make tree`: the worktree shows the series; nothing is lost."""
    files = project.files()
    base = project.base(files)
    commit = tip(project.commits(files, base), base)
    tree = Worktree(project)
    if not tree.exists():
        tree.create(commit)
    else:
        tree.require_clean()
        head = tree.head()
        if head == commit:
            tree.set_synced(commit)
        elif head != tree.synced():
            raise Failure(f'{tree.path} has commits that are not folded; '
                          'run `make fold` first')
        else:
            tree.move(commit)
    count = tree.git.text('rev-list', '--count', f'{base}..HEAD')
    print(f'{tree.path}: {count} commits on QEMU base {base[:12]}')
    return tree


def fold_tree(project):
    """`make fold`: the worktree's commits become the series."""
    tree = Worktree(project)
    if not tree.exists():
        raise Failure(f'{tree.path}: no worktree; `make tree` makes one')
    tree.require_clean()
    files = project.files()
    base = project.base(files)
    old_commits = project.commits(files, base)
    now, head = tip(old_commits, base), tree.head()
    if head in (now, tree.synced()):
        print('nothing to fold: no new commits in the worktree')
        if head != now:
            print('the series has changed; `make tree` updates the worktree')
        return
    if now != tree.synced():
        raise Failure(
            'both the worktree and the series have changed since they last '
            f'agreed (commit {tree.synced()[:12]}); nothing was folded.\n'
            'Put one side back: the series with git restore, or the '
            f'worktree with git -C {tree.path} reset --keep')
    result = fold(project.git, base, head, files, old_commits)
    adopt(project, tree, base, files, result)


def adopt(project, tree, base, old, new):
    """Write a folded series, and let the worktree stand on its commits."""
    commits = project.commits(new, base)
    snapshot.write(project.root, old, new)
    # Same content as before, so only the branch moves, no file.
    tree.git.run('update-ref', '-m', 'folded', 'HEAD', tip(commits, base))
    tree.set_synced(tip(commits, base))
    changed = [path for path in sorted(old.keys() | new.keys())
               if old.get(path) != new.get(path)]
    for path in changed:
        word = ('added' if path not in old
                else 'removed' if path not in new else 'changed')
        print(f'{word:8} {path}')
    print(f'{len(commits)} patches, {len(changed)} files changed')


def check_nothing_lost(project):
    """Before `make clean`: the worktree has nothing of its own."""
    tree = Worktree(project)
    if tree.exists():
        tree.require_clean()
    branch = project.git.resolve(_BRANCH)
    if branch and branch != tree.synced() or \
            tree.exists() and tree.head() != tree.synced():
        raise Failure(f'{tree.path} has commits that are not folded; '
                      'run `make fold` first')
