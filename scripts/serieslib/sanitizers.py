# SPDX-License-Identifier: GPL-2.0-or-later
"""What programs built with AddressSanitizer and UBSan are told."""

from pathlib import Path

_LEAKS = Path(__file__).parents[2] / 'tests/e2e/fuzzing/leaks.supp'

ENVIRONMENT = {
    # Coroutines have stacks of their own; glib, which allocates most of what
    # may leak, has no frame pointers.
    'ASAN_OPTIONS': 'halt_on_error=1:exitcode=99:detect_leaks=1:'
                    'detect_stack_use_after_return=0:fast_unwind_on_malloc=0',
    'UBSAN_OPTIONS': 'halt_on_error=1:print_stacktrace=1',
    'LSAN_OPTIONS': f'suppressions={_LEAKS}:print_suppressions=0',
}
