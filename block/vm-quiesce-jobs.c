/*
 * Quiesced run state: jobs
 *
 * Jobs are cancelled: one that is merely paused keeps its nodes writable, so
 * that they could not be inactivated, and would have to be found again by the
 * VM's next host anyway.
 *
 * A block job drains nodes when it ends, in the main loop.  So it is cancelled
 * when they are drained already; until then it is paused by the drained
 * section.  Other jobs cannot be paused, and are waited for before.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/vm-quiesce.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-job.h"
#include "qapi/qapi-visit-job.h"
#include "qemu/job.h"
#include "system/vm-quiesce.h"

/* As they were when the VM was asked to quiesce: the drain pauses them */
static JobInfoList *recorded;
static bool cancelled;

/*
 * Not job_is_completed_locked(): a job that waits to be finalized holds its
 * nodes, too.
 */
static bool is_open(JobStatus status)
{
    return status != JOB_STATUS_CONCLUDED && status != JOB_STATUS_NULL;
}

static Job *next_open_job_locked(Job *job)
{
    do {
        job = job_next_locked(job);
    } while (job && !is_open(job->status));
    return job;
}

static bool is_block_job(JobType type)
{
    return type == JOB_TYPE_COMMIT || type == JOB_TYPE_STREAM ||
           type == JOB_TYPE_MIRROR || type == JOB_TYPE_BACKUP;
}

JobInfoList *jobs_quiesce_cancelled(void)
{
    return cancelled ? QAPI_CLONE(JobInfoList, recorded) : NULL;
}

static void jobs_quiesce_stop(VMQuiesceParticipant *p)
{
    g_autoptr(JobInfoList) all = qmp_query_jobs(&error_abort);
    JobInfoList *l, **tail = &recorded;

    for (l = all; l; l = l->next) {
        if (is_open(l->value->status) && is_block_job(l->value->type)) {
            QAPI_LIST_APPEND(tail, QAPI_CLONE(JobInfo, l->value));
        }
    }
}

static void cancel_open_jobs(void)
{
    Job *job, *next;

    cancelled = true;

    JOB_LOCK_GUARD();

    for (job = next_open_job_locked(NULL); job; job = next) {
        /* Cancelling may end the job at once */
        job_ref_locked(job);
        job_cancel_locked(job, true);
        next = next_open_job_locked(job);
        job_unref_locked(job);
    }
}

/* Returns the jobs that have not ended, for people; empty if all have */
static GString *open_jobs(bool block_jobs)
{
    GString *open = g_string_new(NULL);
    Job *job = NULL;

    JOB_LOCK_GUARD();

    while ((job = next_open_job_locked(job))) {
        if (block_jobs || !is_block_job(job_type(job))) {
            g_string_append_printf(open, "%sjob '%s' (%s) has not ended",
                                   open->len ? "; " : "",
                                   job->id ?: "", job_type_str(job));
        }
    }
    return open;
}

static VMQuiesceResult jobs_quiesce_poll(VMQuiesceParticipant *p,
                                         VmQuiescePhase phase, Error **errp)
{
    g_autoptr(GString) open = NULL;

    if (phase != VM_QUIESCE_PHASE_STOP && phase != VM_QUIESCE_PHASE_DRAIN) {
        return VM_QUIESCE_DONE;
    }

    open = open_jobs(phase == VM_QUIESCE_PHASE_DRAIN);
    if (phase == VM_QUIESCE_PHASE_DRAIN && open->len && !cancelled &&
        block_quiesce_drained()) {
        cancel_open_jobs();
        g_string_free(open, true);
        open = open_jobs(true);
    }
    if (open->len) {
        error_setg(errp, "%s", open->str);
        return VM_QUIESCE_BUSY;
    }
    return VM_QUIESCE_DONE;
}

static bool jobs_quiesce_undo(VMQuiesceParticipant *p, Error **errp)
{
    g_clear_pointer(&recorded, qapi_free_JobInfoList);
    cancelled = false;
    return true;
}

static VMQuiesceParticipant jobs_participant = {
    .name = "block-jobs",
    .order = VM_QUIESCE_ORDER_BACKENDS,
    .stop = jobs_quiesce_stop,
    .poll = jobs_quiesce_poll,
    .undo = jobs_quiesce_undo,
};

static void __attribute__((__constructor__)) jobs_quiesce_init(void)
{
    vm_quiesce_register(&jobs_participant);
}
