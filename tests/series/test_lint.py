# SPDX-License-Identifier: GPL-2.0-or-later
"""What `make lint` objects to, by name."""

from support import SeriesTest, git

SPDX = '/* SPDX-License-Identifier: GPL-2.0-or-later */\n'


class Lint(SeriesTest):

    def setUp(self):
        super().setUp()
        self.make_series()
        for path in ('system/new.c', 'include/system/new.h'):
            self.write(self.project, {path: SPDX})
        self.write(self.project, {'MAINTAINERS': 'F: *\nF: patches/\n'
                                  'F: system/\nF: include/\nF: docs/\n',
                                  '.gitignore': '/build/\n'})
        self.track()
        self.tool('tree')

    def track(self):
        git(self.project, 'init', '-q')
        git(self.project, 'add', '-A')

    def refused(self, *expected):
        self.track()
        said = self.tool('lint', fails=True)
        for text in expected:
            self.assertIn(text, said)

    def test_good(self):
        said = self.tool('lint')
        self.assertIn('2 hook lines in 2 upstream files', said)
        self.assertIn('no problem', said)

    def test_licence_line(self):
        self.write(self.project, {'system/new.c': 'code\n'})
        self.refused('system/new.c: no line SPDX')

    def test_maintainers(self):
        self.write(self.project, {'other/file': ''})
        self.edit('patches/qemu/series', r'\Z', '  other/file\n')
        self.refused('other/file: no F: line')

    def test_path_of_a_machine(self):
        self.write(self.project, {'notes': f'see {self.project}\n'})
        self.refused('notes:1: names a path')
        self.write(self.project, {'notes': '\n/home' + '/someone/x\n'})
        self.refused('notes:2: names a path')

    def test_too_many_hook_lines(self):
        self.commit('net: a lot', {'net/net.c': self.change(
            'net/net.c', 30, '\n'.join(f'call{n}();' for n in range(20)))})
        self.tool('fold')
        self.refused('net/net.c: 21 hook lines, more than 20')

    def test_checkpatch_error(self):
        self.write(self.upstream, {'scripts/checkpatch.pl':
                   'print "total: 1 errors, 0 warnings, 1 lines checked\\n"'})
        self.refused('0001-block-call-the-new-code.patch: checkpatch')
