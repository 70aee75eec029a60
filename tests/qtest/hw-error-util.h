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

/* Start QEMU with a rule for a source, or for all if it is to be injected */
QTestState *hwe_init(const char *args, const char *source, HweAction action);

/*
 * Wait for an event that was not returned before; returns its data, to be
 * unreferenced.  While this is used, libqtest's functions that wait for events
 * must not be.
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

/* Leave the quiesced state that @record tells of */
void hwe_unquiesce(QTestState *qts, QDict *record);

/* Check that there are @n records */
void hwe_assert_records(QTestState *qts, int n);

/* What a test of one action gets */
typedef struct HweCase {
    HweAction action;
    const void *data;
} HweCase;

/* Add a test for each action; @func is called with a HweCase */
void hwe_add_cases(const char *name, void (*func)(const void *),
                   const void *data);

#endif
