# SPDX-License-Identifier: GPL-2.0-or-later
"""Where upstream comes from, and that a wrong one is told apart."""

import hashlib
import shutil

from support import SeriesTest, git, numbered


class Upstream(SeriesTest):

    def test_directory_and_tarball_give_the_same_commits(self):
        self.make_series()
        first = self.tool('log')
        shutil.rmtree(self.project / 'build')
        self.assertEqual(first, self.tool('log', source=self.tarball()))

    def test_git_checkout_gives_its_tagged_commit(self):
        commit = self.upstream_git('v1.0.0')
        self.write(self.upstream, {'VERSION': '1.0.50\n'})
        self.upstream_git()
        self.assertEqual(commit, self.tip())

    def test_git_checkout_without_the_tag_gives_head(self):
        self.assertEqual(self.upstream_git(), self.tip())

    def test_patches_are_the_same_for_every_kind(self):
        self.make_series()
        trees = set()
        for source in (self.upstream, self.tarball()):
            trees.add(self._tree(source))
        self.upstream_git()
        trees.add(self._tree(self.upstream))
        self.assertEqual(len(trees), 1)

    def _tree(self, source):
        shutil.rmtree(self.project / 'build')
        tip = self.tool('build', source=source).strip()
        return git(self.project / 'build/series.git', 'rev-parse',
                   tip + '^{tree}')

    def test_no_source_uses_the_one_before(self):
        self.make_series()
        first = self.tip()
        shutil.move(self.upstream, self.top / 'gone')
        self.assertEqual(first, self.tool('build', source='').strip())

    def test_tarball_from_the_cache(self):
        tarball = self.tarball('pinned.tar.xz')
        digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
        self.edit('patches/upstream.mk', '^QEMU_TARBALL :=',
                  'QEMU_TARBALL := pinned.tar.xz')
        self.edit('patches/upstream.mk', '^QEMU_SHA256 :=',
                  f'QEMU_SHA256 := {digest}')
        (self.top / 'cache').mkdir()
        shutil.move(tarball, self.top / 'cache')
        self.tool('build', source='')
        (self.top / 'cache/pinned.tar.xz').write_bytes(b'damaged')
        shutil.rmtree(self.project / 'build')
        said = self.tool('build', source='', fails=True)
        self.assertIn('pinned.tar.xz', said)
        self.assertIn('SHA-256', said)

    def test_no_source_at_all(self):
        self.assertIn('QEMU_SRC=',
                      self.tool('build', source='', fails=True))

    def test_missing_source(self):
        said = self.tool('build', source=self.top / 'nothing', fails=True)
        self.assertIn(str(self.top / 'nothing'), said)

    def test_not_a_tarball(self):
        self.write(self.top, {'x.tar': 'text'})
        said = self.tool('build', source=self.top / 'x.tar', fails=True)
        self.assertIn('x.tar', said)

    def test_truncated_tarball(self):
        path = self.tarball()
        path.write_bytes(path.read_bytes()[:-200])
        said = self.tool('build', source=path, fails=True)
        self.assertIn(str(path), said)

    def test_other_version(self):
        self.write(self.upstream, {'VERSION': '2.0.0\n'})
        said = self.tool('build', fails=True)
        self.assertIn('VERSION says 2.0.0', said)

    def test_changed_upstream_names_the_file(self):
        self.make_series()
        for path, text in (('block/io.c', numbered('io', 41)),
                           ('net/net.c', numbered('ne'))):
            original = (self.upstream / path).read_text()
            self.write(self.upstream, {path: text})
            for rebuilt in (False, True):
                if rebuilt:
                    shutil.rmtree(self.project / 'build')
                said = self.tool('build', fails=True)
                self.assertIn(path + ': patches/qemu/', said)
            self.write(self.upstream, {path: original})

    def test_overlay_file_that_upstream_has(self):
        self.make_series()
        self.write(self.upstream, {'system/new.c': 'theirs\n'})
        said = self.tool('build', fails=True)
        self.assertIn('system/new.c: brought by', said)

    def test_change_elsewhere_in_upstream_is_no_matter(self):
        self.make_series()
        self.write(self.upstream, {'meson.build': 'other\n'})
        self.tool('build')
