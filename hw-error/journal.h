/*
 * Hardware errors: the records, in order
 *
 * Errors of a kind that follow each other closely are coalesced.  A kind is
 * what differs in nothing that somebody would act upon: source, severity,
 * component, agent, what was chosen to be done, and hw_error_detail().  The
 * first error of a kind gets a record at once.  Those that follow are counted,
 * and get one record when COALESCE_NS have passed; and so on until none
 * follows.  The number of kinds at a time is bounded: what is too much shares
 * one kind for its source, severity and action.  Corrected errors do not count
 * for others here: a flood of them keeps no other from having its record.
 *
 * A record is either ready to be sent, or waits until it is known what has
 * come of its action.  It gets its sequence number when it is taken to be
 * sent, so that numbers are without gaps in the order of events.
 *
 * Pure: no globals of QEMU, times are given.  The caller sees to locking.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_ERROR_JOURNAL_H
#define HW_ERROR_JOURNAL_H

#include "qapi/qapi-types-hw-error.h"

/* Records that are kept */
#define HW_ERROR_KEEP_CORRECTED 256
#define HW_ERROR_KEEP_UNCORRECTED 1024

/* Kinds that are told apart at a time, of corrected errors and of others */
#define HW_ERROR_MAX_KINDS 512

#define HW_ERROR_COALESCE_NS 1000000000LL

/**
 * HwErrorJournal: Private.
 *
 * @kinds: sets of HwErrorKind, those of which there was an error lately:
 *     uncorrected, and corrected ones
 * @shared: the same, those that stand for what does not fit into @kinds
 * @ready: HwError that may be sent
 * @waiting: HwError whose outcome is not known
 * @corrected: HwError that were sent, oldest first
 * @uncorrected: the same
 * @last_id: sequence number of the last one
 * @cleared_id: of the last one that was to be forgotten
 */
typedef struct HwErrorJournal {
    GHashTable *kinds[2];
    GHashTable *shared;
    GQueue ready;
    GQueue waiting;
    GQueue corrected;
    GQueue uncorrected;
    uint64_t last_id;
    uint64_t cleared_id;
} HwErrorJournal;

void hw_error_journal_init(HwErrorJournal *j);
void hw_error_journal_destroy(HwErrorJournal *j);

/**
 * hw_error_journal_add: Note an error.
 * @info: what was found; copied when there will be a record of it
 * @action: what was chosen; not HW_ERROR_ACTION_IGNORE.  Records with
 *     HW_ERROR_ACTION_QUIESCE wait.
 * @rule: id of the rule that chose it, or NULL
 * @urgent: make a record at once, whatever there was lately
 * @now_ns: when, on a clock that never steps; never less than before
 * @time_us: when, in microseconds since the epoch
 */
void hw_error_journal_add(HwErrorJournal *j, const HwErrorInfo *info,
                          HwErrorAction action, const char *rule, bool urgent,
                          int64_t now_ns, int64_t time_us);

/**
 * hw_error_journal_add_last: Note an error after which the process ends.
 *
 * As hw_error_journal_add(), but the record is ready at once, and so are those
 * that wait.
 */
void hw_error_journal_add_last(HwErrorJournal *j, const HwErrorInfo *info,
                               HwErrorAction action, const char *rule,
                               int64_t time_us);

/** hw_error_journal_waiting: The first record that waits, or NULL. */
const HwError *hw_error_journal_waiting(HwErrorJournal *j);

/**
 * hw_error_journal_expire: Make the records for which the time has come.
 *
 * Returns when to call it again; -1 if there is no need.
 */
int64_t hw_error_journal_expire(HwErrorJournal *j, int64_t now_ns);

/**
 * hw_error_journal_settle: It is known what has come of what waits.
 * @quiesce: copied; may be NULL
 * @error: why @outcome is not what was wanted; may be NULL
 */
void hw_error_journal_settle(HwErrorJournal *j, HwErrorOutcome outcome,
                             const VmQuiesceInfo *quiesce, const char *error);

/**
 * hw_error_journal_take: Take the next record that is ready, to send it.
 *
 * It gets its sequence number.  It belongs to the journal, and is valid until
 * hw_error_journal_take() or hw_error_journal_clear().  Returns NULL if there
 * is none.
 */
HwError *hw_error_journal_take(HwErrorJournal *j);

/** hw_error_journal_query: The records with a number higher than @since_id. */
HwErrorLog *hw_error_journal_query(HwErrorJournal *j, uint64_t since_id);

/**
 * hw_error_journal_clear: Forget the records up to @up_to_id, at most
 * @last_id.
 */
void hw_error_journal_clear(HwErrorJournal *j, uint64_t up_to_id);

#endif
