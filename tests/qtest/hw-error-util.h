/*
 * Helpers for tests of hardware errors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_ERROR_UTIL_H
#define HW_ERROR_UTIL_H

#include "libqtest.h"
#include "qobject/qdict.h"

/* The actions of a rule; none: there is no rule */
typedef enum HweAction {
    HWE_NONE,
    HWE_IGNORE,
    HWE_REPORT,
    HWE_INJECT,
    HWE_STOP,
    HWE_QUIESCE,
    HWE_MAX,
} HweAction;

const char *hwe_action_name(HweAction action);

/* Whether nothing else is done about an error */
bool hwe_contains(HweAction action);

/*
 * Start QEMU.  Its events are kept for hwe_event(): libqtest's functions that
 * wait for events, and those of vm-quiesce-util.h, must not be used then.
 */
QTestState *hwe_start(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/* The same with a rule for a source, or for all if it is to be injected */
QTestState *hwe_init(const char *args, const char *source, HweAction action);

/* Add a rule; @fmt is JSON, as for qdict_from_vjsonf_nofail() */
void hwe_add_rule(QTestState *qts, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
void hwe_remove_rule(QTestState *qts, const char *id);

/*
 * Wait for an event that was not returned before, the first of that name;
 * returns its data, to be unreferenced
 */
QDict *hwe_event(QTestState *qts, const char *name);

/* How many events named @name have come */
int hwe_count(const char *name);

/* Check that the last event @first came before the last event @second */
void hwe_assert_order(const char *first, const char *second);

/*
 * Check what a record, or that there is none, says of @action, which was done
 * while the VM was running.  @injects: whether the guest can be told.
 * @stop_state: the run state for action 'stop'.
 *
 * Returns: the error, to be unreferenced, or NULL if it is ignored.
 */
QDict *hwe_expect(QTestState *qts, HweAction action, bool injects,
                  const char *stop_state);

/*
 * Check that @record tells of the quiesced state, which came first, and that
 * the VM is in it; returns the data of VM_QUIESCED, to be unreferenced
 */
QDict *hwe_expect_quiesced(QTestState *qts, QDict *record);

/* Leave the quiesced state that @record tells of; the VM is paused */
void hwe_unquiesce(QTestState *qts, QDict *record);

/* Check that there are @n records, and that there were no more */
void hwe_assert_records(QTestState *qts, int n);

/* Check that there was no error, and that the VM is running */
void hwe_expect_none(QTestState *qts);

/* What a test of one action gets */
typedef struct HweCase {
    HweAction action;
    const void *data;
} HweCase;

/* Add a test, of that name, for each action; @func gets a HweCase */
void hwe_add_cases(void (*func)(const void *), const void *data,
                   const char *fmt, ...) G_GNUC_PRINTF(3, 4);

#endif
