# SPDX-License-Identifier: GPL-2.0-or-later
"""A rebase is done, or stops and says where and how to go on."""

import shutil

from support import SeriesTest, git, numbered


class Rebase(SeriesTest):

    def setUp(self):
        super().setUp()
        self.make_series()
        self.newer = self.top / 'newer'
        shutil.copytree(self.upstream, self.newer)
        self.write(self.newer, {'VERSION': '2.0.0\n',
                                'block/io.c': 'first\n' + numbered('io')})

    def conflict(self):
        """Let the newer upstream change the lines around the hook."""
        self.write(self.newer, {'block/io.c': numbered('io').replace(
            'io line 20\n', 'io line twenty\n')})

    def test_done(self):
        before = self.files()
        said = self.tool('rebase', self.newer)
        self.assertIn('rebased onto QEMU 2.0.0', said)
        after = self.files()
        self.assertIn(b'QEMU_VERSION := 2.0.0\n',
                      after['patches/upstream.mk'])
        self.assertIn(b'# The pin of a test\n', after['patches/upstream.mk'])
        changed = {path for path in after if after[path] != before[path]}
        self.assertEqual(changed, {
            'patches/upstream.mk',
            'patches/qemu/block-call-the-new-code.patch'})
        # What was written builds from the new upstream, anywhere.
        first = self.tool('log', source='')
        shutil.rmtree(self.project / 'build')
        self.assertEqual(first, self.tool('log', source=self.newer))

    def test_worktree_follows(self):
        self.tool('rebase', self.newer)
        self.assertEqual((self.tree / 'VERSION').read_text(), '2.0.0\n')
        self.assertIn('nothing to fold', self.tool('fold', source=''))

    def test_stopped_and_continued(self):
        self.conflict()
        before = self.files()
        said = self.tool('rebase', self.newer, fails=True)
        for text in ('patches/qemu/block-call-the-new-code.patch',
                     'block/io.c: changed on both sides', 'hunk at lines',
                     'io line twenty', 'call();', 'CONTINUE=1'):
            self.assertIn(text, said)
        self.assertEqual(before, self.files())
        self.assertIn('block/io.c', self.tool('rebase-continue', fails=True))
        self.write(self.tree, {'block/io.c': numbered('io').replace(
            'io line 20\n', 'io line twenty\ncall();\n')})
        git(self.tree, 'add', 'block/io.c')
        self.assertIn('rebased onto', self.tool('rebase-continue'))
        self.assertIn(b' io line twenty\n+call();', self.files()
                      ['patches/qemu/block-call-the-new-code.patch'])
        self.assertIn('no rebase', self.tool('rebase-continue', fails=True))

    def test_stopped_and_given_up(self):
        self.conflict()
        before = self.files()
        head = git(self.tree, 'rev-parse', 'HEAD')
        self.tool('rebase', self.newer, fails=True)
        for command in ('tree', 'fold', 'check-clean'):
            self.assertIn('under way', self.tool(command, fails=True))
        self.assertIn('under way',
                      self.tool('rebase', self.newer, fails=True))
        self.tool('rebase-abort')
        self.assertEqual(before, self.files())
        self.assertEqual(head, git(self.tree, 'rev-parse', 'HEAD'))
        self.assertIn('3 commits', self.tool('tree'))

    def test_overlay_file_that_upstream_has_now(self):
        self.write(self.newer, {'system/new.c': 'theirs\n'})
        said = self.tool('rebase', self.newer, fails=True)
        self.assertIn('system/new.c: added on both sides', said)

    def test_file_gone_upstream(self):
        (self.newer / 'net/net.c').unlink()
        said = self.tool('rebase', self.newer, fails=True)
        self.assertIn('patches/qemu/net-one-more-line.patch', said)
        self.assertIn('net/net.c: gone upstream', said)

    def test_patch_that_upstream_took(self):
        shutil.copy(self.tree / 'net/net.c', self.newer / 'net/net.c')
        said = self.tool('rebase', self.newer)
        self.assertIn('removed  patches/qemu/net-one-more-line.patch', said)

    def test_tag_of_a_checkout(self):
        self.upstream_git('v1.0.0')
        shutil.rmtree(self.project / 'build')
        self.tool('tree')
        shutil.copytree(self.newer, self.upstream, dirs_exist_ok=True)
        commit = self.upstream_git('v2.0.0')
        self.tool('rebase', 'v2.0.0')
        self.assertIn(b'QEMU_TAG := v2.0.0\n',
                      self.files()['patches/upstream.mk'])
        self.assertEqual(commit, git(self.tree, 'rev-parse', 'HEAD~3'))

    def test_unknown_target(self):
        self.assertIn('TO=v9', self.tool('rebase', 'v9', source='',
                                         fails=True))

    def test_target_that_is_no_qemu(self):
        (self.newer / 'VERSION').unlink()
        self.assertIn('VERSION', self.tool('rebase', self.newer, fails=True))
        self.assertIn('3 commits', self.tool('tree'))

    def test_dirty_worktree(self):
        self.write(self.tree, {'net/net.c': 'work in progress\n'})
        self.assertIn('uncommitted',
                      self.tool('rebase', self.newer, fails=True))

    def test_range_diff_over_a_rebase(self):
        git(self.project, 'init', '-q')
        git(self.project, 'add', 'patches', 'system', 'include', 'docs')
        git(self.project, 'commit', '-q', '-m', 'then')
        self.tool('rebase', self.newer)
        said = self.tool('range-diff', 'HEAD', source='')
        self.assertIn('1:', said)
