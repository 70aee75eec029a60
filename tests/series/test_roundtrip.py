# SPDX-License-Identifier: GPL-2.0-or-later
"""Build and fold are each other's inverse."""

import shutil

from support import SeriesTest, git


class RoundTrip(SeriesTest):

    def test_empty_series(self):
        base = self.tip()
        self.assertEqual(base, self.tip())
        self.assertIn('0 commits', self.tool('tree'))
        self.assertIn('nothing to fold', self.tool('fold'))

    def test_fold_writes_patches_and_overlay(self):
        self.make_series()
        files = self.files()
        self.assertEqual(files['patches/qemu/series'].decode(),
                         'block-call-the-new-code.patch\n'
                         '  include/system/new.h\n'
                         '  system/new.c\n'
                         'net-one-more-line.patch\n'
                         'docs-say-it.patch\n'
                         '  docs/system/new.rst\n')
        self.assertEqual(files['system/new.c'], b'new code\n')
        patch = files['patches/qemu/block-call-the-new-code.patch'].decode()
        self.assertTrue(patch.startswith('From ' + '0' * 40))
        self.assertIn('+call();', patch)
        self.assertNotIn('new.c', patch)

    def test_same_ids_on_every_run(self):
        self.make_series()
        first = self.tool('log')
        shutil.rmtree(self.project / 'build')
        self.assertEqual(first, self.tool('log'))

    def test_ids_do_not_depend_on_the_user(self):
        self.make_series()
        first = self.tool('log')
        shutil.rmtree(self.project / 'build')
        home = self.top / 'home'
        self.write(home, {'.gitconfig': '[core]\nautocrlf = true\n[diff]\n'
                          'noprefix = true\n[user]\nname = Other\n'})
        self.assertEqual(first, self.tool(
            'log', HOME=str(home), TZ='Asia/Tokyo',
            GIT_AUTHOR_DATE='1 +0000', GIT_DIR='/nonexistent'))

    def test_fold_of_build_changes_no_byte(self):
        self.make_series()
        before = self.files()
        shutil.rmtree(self.project / 'build')
        self.tool('tree')
        # Other ids, same content: every commit is written anew.
        git(self.tree, 'rebase', '-q', '--force-rebase', '--root', '--onto',
            git(self.tree, 'rev-list', '--max-parents=0', 'HEAD'))
        self.tool('fold')
        self.assertEqual(before, self.files())

    def test_worktree_has_the_series(self):
        self.make_series()
        shutil.rmtree(self.project / 'build')
        self.tool('tree')
        self.assertEqual((self.tree / 'system/new.c').read_text(),
                         'new code\n')
        self.assertIn('call();', (self.tree / 'block/io.c').read_text())
        self.assertTrue((self.tree / 'docs/a.patch').exists())
        log = git(self.tree, 'log', '-3', '--format=%an|%ad|%cd|%B',
                  '--date=raw')
        self.assertIn('A U Thor|1700000180 +0200|1700000180 +0200|'
                      'docs: say it\n\nÜnïcode, and\n\na second paragraph.',
                      log)

    def test_overlay_edited_in_place_reaches_the_worktree(self):
        self.make_series()
        self.write(self.project, {'system/new.c': 'newer code\n'})
        self.tool('tree')
        self.assertEqual((self.tree / 'system/new.c').read_text(),
                         'newer code\n')
        self.assertIn('nothing to fold', self.tool('fold'))

    def test_reworded_commit_keeps_its_patch(self):
        self.make_series()
        git(self.tree, 'commit', '-q', '--amend', '-m', 'docs: say it well')
        self.tool('fold')
        self.assertIn(b'Subject: [PATCH] docs: say it well', self.files()
                      ['patches/qemu/docs-say-it.patch'])

    def test_dropped_commit_takes_its_files_along(self):
        self.make_series()
        git(self.tree, 'reset', '-q', '--hard', 'HEAD~1')
        self.tool('fold')
        files = self.files()
        self.assertNotIn('docs/system/new.rst', files)
        self.assertNotIn('patches/qemu/docs-say-it.patch', files)
        self.assertFalse((self.project / 'docs').exists())

    def test_comments_stay_with_their_patch(self):
        self.make_series()
        self.edit('patches/qemu/series', '^net-', '# Section\n\nnet-')
        self.tool('tree')
        self.commit('last: another', {'meson.build': 'x\n'})
        self.tool('fold')
        text = self.files()['patches/qemu/series'].decode()
        self.assertIn('# Section\n\nnet-one-more-line.patch\n', text)
        self.assertTrue(text.endswith('last-another.patch\n'))

    def test_executable_overlay_file(self):
        self.make_series()
        self.write(self.tree, {'tests/unit/run.sh': '#!/bin/sh\n'})
        (self.tree / 'tests/unit/run.sh').chmod(0o755)
        self.commit('tests: a script', {})
        self.tool('fold')
        mode = (self.project / 'tests/unit/run.sh').stat().st_mode
        self.assertTrue(mode & 0o100)

    def test_file_that_grows_stays_in_the_patches(self):
        self.tool('tree')
        self.commit('one: start', {'system/trace-events': 'a\n'})
        self.commit('two: go on', {'system/trace-events': 'a\nb\n'})
        self.tool('fold')
        files = self.files()
        self.assertNotIn('system/trace-events', files)
        self.assertIn(b'+b', files['patches/qemu/two-go-on.patch'])

    def test_new_file_in_a_project_directory_stays_in_the_patch(self):
        self.tool('tree')
        self.commit('scripts: one', {'scripts/one.py': 'x\n'})
        self.tool('fold')
        self.assertNotIn('scripts/one.py', self.files())

    def test_script_of_the_series(self):
        self.tool('tree')
        paths = ['scripts/migration-watch', 'scripts/migrationwatch/cli.py']
        self.commit('scripts: one', dict.fromkeys(paths, 'x\n'))
        self.tool('fold')
        for path in paths:
            self.assertEqual(self.files()[path], b'x\n')

    def test_mails_apply_with_git_am(self):
        self.make_series()
        self.tool('mails')
        mails = sorted((self.project / 'build/mails').glob('*.patch'))
        self.assertEqual(len(mails), 4)
        self.assertIn('[PATCH 0/3]', mails[0].read_text())
        tip = self.tip()
        self.assertIn('base-commit: ', mails[0].read_text())
        self.assertNotIn('Signed-off-by', mails[1].read_text())
        target = self.top / 'target'
        shutil.copytree(self.upstream, target)
        git(target, 'init', '-q')
        git(target, 'add', '-A', '-f')
        git(target, 'commit', '-q', '-m', 'base')
        git(target, 'am', '-q', *mails[1:])
        series = self.project / 'build/series.git'
        self.assertEqual(git(target, 'rev-parse', 'HEAD^{tree}'),
                         git(series, 'rev-parse', tip + '^{tree}'))

    def test_range_diff(self):
        self.make_series()
        git(self.project, 'init', '-q')
        git(self.project, 'add', 'patches', 'system', 'include', 'docs')
        git(self.project, 'commit', '-q', '-m', 'then')
        self.write(self.project, {'system/new.c': 'newer code\n'})
        said = self.tool('range-diff', 'HEAD')
        self.assertIn('1:', said)
        self.assertIn('+newer code', said)
        self.assertIn('no such revision',
                      self.tool('range-diff', 'nowhere', fails=True))
