# SPDX-License-Identifier: GPL-2.0-or-later
"""The generated source tree, and the list of tests to run."""

from support import SeriesTest


class Source(SeriesTest):

    def setUp(self):
        super().setUp()
        self.write(self.upstream, {
            'roms/firmware/x.c': '',
            'pythondeps.toml': 'meson = 1\npycotap = 2\n',
            'meson.build': 'a\n  unpack_edk2_blobs = bzip2.found()\nb\n'})
        self.src = self.project / 'build' / 'src'

    def times(self):
        return {path: path.stat().st_mtime_ns
                for path in self.src.rglob('*') if path.is_file()}

    def test_only_changed_files_are_rewritten(self):
        self.make_series()
        self.tool('source')
        before = self.times()
        self.tool('source')
        self.assertEqual(before, self.times())
        self.write(self.project, {'system/new.c': 'newer code\n'})
        self.tool('source')
        after = self.times()
        self.assertEqual([self.src / 'system/new.c'],
                         [p for p in after if after[p] != before[p]])
        self.assertEqual((self.src / 'system/new.c').read_text(),
                         'newer code\n')

    def test_an_edit_in_it_is_undone(self):
        self.tool('source')
        self.write(self.src, {'net/net.c': 'edited in the wrong place\n'})
        self.tool('source')
        self.assertEqual((self.src / 'net/net.c').read_bytes(),
                         (self.upstream / 'net/net.c').read_bytes())

    def test_what_a_source_package_lacks(self):
        self.tool('source')
        self.assertEqual((self.src / 'pythondeps.toml').read_text(),
                         'meson = 1\n')
        self.assertIn('unpack_edk2_blobs = false',
                      (self.src / 'meson.build').read_text())
        self.assertFalse((self.src / 'roms').exists())
        self.assertFalse((self.src / '.git').exists())

    def test_a_complete_source_is_left_alone(self):
        self.write(self.upstream, {
            'python/wheels/pycotap.whl': '',
            'pc-bios/edk2-x86_64-code.fd.bz2': ''})
        self.tool('source')
        for name in ('pythondeps.toml', 'meson.build'):
            self.assertEqual((self.src / name).read_text(),
                             (self.upstream / name).read_text())

    def test_upstream_has_no_series(self):
        self.make_series()
        self.tool('upstream-source')
        source = self.project / 'build/upstream/src'
        self.assertFalse((source / 'system/new.c').exists())

    def test_tests_that_the_series_brings(self):
        self.tool('tree')
        self.commit('tests: some', {'tests/unit/test-one.c': '',
                                    'tests/unit/helper.c': '',
                                    'tests/qtest/two-test.c': ''})
        self.tool('fold')
        self.assertEqual(self.tool('tests').split(),
                         ['tests/qtest/two-test', 'tests/unit/test-one'])
