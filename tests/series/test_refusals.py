# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad input gets one error that names what is wrong, and changes nothing."""

from support import SeriesTest, git

IO_PATCH = 'patches/qemu/block-call-the-new-code.patch'


class Refusals(SeriesTest):

    def setUp(self):
        super().setUp()
        self.make_series()

    def refused(self, command, *expected, **options):
        """The command fails, says @expected, and leaves all as it was."""
        files, head = self.files(), git(self.tree, 'rev-parse', 'HEAD')
        status = git(self.tree, 'status', '--porcelain')
        said = self.tool(command, fails=True, **options)
        for text in expected:
            self.assertIn(text, said)
        self.assertEqual(files, self.files())
        self.assertEqual(head, git(self.tree, 'rev-parse', 'HEAD'))
        self.assertEqual(status, git(self.tree, 'status', '--porcelain'))

    def test_offset(self):
        self.edit(IO_PATCH, r'^@@ -18,6 \+18,7 @@', '@@ -17,6 +17,7 @@')
        self.refused('build', IO_PATCH, 'offset')

    def test_fuzz(self):
        self.edit(IO_PATCH, '^ io line 18$', ' io line something else')
        self.refused('build', IO_PATCH, 'block/io.c')

    def test_patch_edited_by_hand(self):
        self.edit(IO_PATCH, r'^\+call', '+other_call')
        self.refused('build', IO_PATCH, 'block/io.c', 'by hand')

    def test_patch_without_full_ids(self):
        self.edit(IO_PATCH, r'^index (\w{7})\w+\.\.(\w{7})\w+',
                  r'index \1..\2')
        self.refused('build', IO_PATCH, 'block/io.c', 'full')

    def test_patch_not_in_canonical_form(self):
        self.edit(IO_PATCH, '^Subject: .PATCH. ', 'Subject: [PATCH 1/3] ')
        self.write(self.project, {'MAINTAINERS': ''})
        git(self.project, 'init', '-q')
        self.refused('lint', IO_PATCH, 'make fold')

    def test_patch_missing(self):
        (self.project / IO_PATCH).unlink()
        self.refused('build', IO_PATCH, 'listed but missing')

    def test_patch_not_listed(self):
        self.write(self.project, {'patches/qemu/stray.patch': ''})
        self.refused('build', 'patches/qemu/stray.patch', 'not listed')

    def test_overlay_missing(self):
        (self.project / 'system/new.c').unlink()
        self.refused('build', 'system/new.c', 'listed but missing')

    def test_overlay_not_listed(self):
        self.write(self.project, {'system/stray.c': ''})
        self.refused('build', 'system/stray.c', 'not listed')

    def test_overlay_listed_twice(self):
        self.edit('patches/qemu/series', '(^docs-say-it.patch$)',
                  r'\1\n  system/new.c')
        self.refused('build', 'system/new.c', 'listed 2 times')

    def test_overlay_outside_the_tree(self):
        self.edit('patches/qemu/series', '(^docs-say-it.patch$)',
                  r'\1\n  scripts/x.py')
        self.refused('build', 'patches/qemu/series:6', 'scripts/x.py')

    def test_overlay_before_any_patch(self):
        self.edit('patches/qemu/series', r'\A', '  system/new.c\n')
        self.refused('build', 'patches/qemu/series:1', 'system/new.c')

    def test_patches_in_the_wrong_order(self):
        self.commit('net: yet more', {
            'net/net.c': self.change('net/net.c', 30, 'yet();')})
        self.tool('fold')
        self.edit('patches/qemu/series', r'\A(?s:(.*))(net-yet-more.patch\n)',
                  r'\2\1')
        self.refused('build', 'net/net.c', 'patches/qemu/net-yet-more.patch')

    def test_dirty_worktree(self):
        self.write(self.tree, {'net/net.c': 'work in progress\n'})
        self.refused('tree', 'uncommitted', 'net/net.c')
        self.refused('fold', 'uncommitted', 'net/net.c')
        self.refused('check-clean', 'uncommitted', 'net/net.c')

    def test_untracked_file_in_the_worktree(self):
        self.write(self.tree, {'net/forgotten.c': ''})
        self.refused('fold', 'uncommitted', 'net/forgotten.c')

    def test_worktree_not_folded(self):
        self.commit('more: work', {'meson.build': 'x\n'})
        self.refused('tree', 'not folded', 'make fold')
        self.refused('check-clean', 'not folded')

    def test_both_sides_changed(self):
        self.commit('more: work', {'meson.build': 'x\n'})
        self.write(self.project, {'system/new.c': 'newer code\n'})
        self.refused('fold', 'both')
        self.refused('tree', 'not folded')

    def test_removed_worktree_with_work_is_restored(self):
        self.commit('more: work', {'meson.build': 'x\n'})
        head = git(self.tree, 'rev-parse', 'HEAD')
        self.tree.rename(self.top / 'moved')
        self.assertIn('restored', self.tool('tree'))
        self.assertEqual(head, git(self.tree, 'rev-parse', 'HEAD'))

    def test_merge(self):
        git(self.tree, 'checkout', '-q', '-b', 'side', 'HEAD~1')
        self.commit('side: work', {'meson.build': 'x\n'})
        git(self.tree, 'merge', '-q', '--no-edit', 'series')
        self.refused('fold', 'is a merge')

    def test_second_commit_to_an_overlay_file(self):
        self.commit('system: fix', {'system/new.c': 'fixed code\n'})
        self.refused('fold', 'system/new.c', 'system: fix',
                     'block: call the new code')

    def test_empty_commit(self):
        git(self.tree, 'commit', '-q', '--allow-empty', '-m', 'no: thing')
        self.refused('fold', 'no-thing.patch')

    def test_message_that_a_mail_cannot_carry(self):
        self.commit('odd: message', {'meson.build': 'x\n'},
                    'diff --git a/x b/x\n')
        self.refused('fold', 'odd-message.patch')

    def test_other_base(self):
        git(self.tree, 'checkout', '-q', '--orphan', 'other')
        git(self.tree, 'commit', '-q', '-m', 'all: anew')
        self.refused('fold', 'not based on')

    def test_fold_without_worktree(self):
        self.tree.rename(self.top / 'moved')
        self.assertIn('make tree', self.tool('fold', fails=True))
