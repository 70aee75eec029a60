/*
 * Test of migration convergence and the migration history
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/convergence-util.h"
#include "qemu/module.h"
#include "vm-quiesce-util.h"

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_QOM);
    vmq_tmpdir_make();

    cvg_add_parameter_tests();
    cvg_add_combination_tests();
    cvg_add_load_tests();
    cvg_add_failure_tests();
    cvg_add_history_tests();
    cvg_add_stream_tests();

    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
