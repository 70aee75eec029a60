/*
 * Migration convergence: measure, decide, and carry out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/sockets.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "exec/target_page.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "qapi/error.h"
#include "qapi/qapi-events-migration-convergence.h"
#include "system/cpu-throttle.h"
#include "convergence-bandwidth.h"
#include "convergence-blame.h"
#include "convergence-glue.h"
#include "convergence.h"
#include "history.h"
#include "migration-stats.h"
#include "migration.h"
#include "options.h"
#include "qemu-file.h"
#include "ram.h"
#include "trace.h"
#include "withhold.h"
#ifdef CONFIG_LINUX
#include <linux/sockios.h>
#include <sys/ioctl.h>
#endif

/* The engine looks at the first and the last passes only */
#define MAX_PASSES              64
#define FIRST_PASSES            4

/*
 * What it takes to stop the vCPUs, to send and load the devices' state, and to
 * start the vCPUs, in microseconds: measured with an idle PC under KVM.
 */
#define DEVICES_COST_US         8000

/*
 * A round of sending says little about the bandwidth unless it sends more
 * than the socket's buffers take.
 */
#define MIN_BURST_BYTES         (1 * MiB)

/*
 * Clear 4 MiB of the accelerator's dirty log at once, not 1 GiB as upstream
 * does: pages that are written after they were cleared, and before they are
 * sent, are sent in vain.
 */
#define CLEAR_BITMAP_SHIFT      10

/*
 * Nothing is learnt from a pass that is shorter; one that only waits for the
 * destination's agreement need not be short.
 */
#define MIN_PASS_MS             10
#define MIN_WAITING_PASS_MS     100

typedef struct ConvergenceSession {
    /* Set while no migration runs, or for its end; read without the lock */
    bool active;
    bool enforce;

    /*
     * Protects all below.  Mostly used by the migration thread; in mode observe
     * the timer of auto-converge may synchronize the dirty bitmap, too.
     */
    QemuMutex lock;
    char *id;
    int64_t start_ns;
    ConvergencePass passes[MAX_PASSES];
    size_t n;
    uint32_t number;

    /* The pass that is being made */
    int64_t pass_ns;
    uint64_t pass_bytes;
    uint64_t pass_pages;
    uint8_t throttle;
    bool waiting;

    /* The last synchronization of the dirty bitmap */
    bool synced;
    bool first_sync_done;
    int64_t sync_begin_ns;
    int64_t sync_end_ns;
    int64_t sync_ns;
    uint64_t sync_dirty_before;
    uint64_t sync_dirtied;
    uint64_t sync_hot;
    uint64_t withheld;

    /* Bandwidth before switchover, and of rounds of sending */
    ConvergenceBandwidth copy;
    ConvergenceBandwidth first_burst;
    ConvergenceBandwidth burst;
    int64_t window_ns;
    uint64_t window_bytes;
    bool window_synced;
    int64_t round_ns;
    int64_t round_waited_ns;
    uint64_t round_bytes;
    uint64_t round_unsent;
    int64_t burst_ns;
    int64_t burst_waited_ns;
    uint64_t burst_bytes;
    uint64_t burst_zero_pages;

    /* The rate limit was lifted for the end of a pass, and what it was */
    bool rate_lifted;
    uint64_t rate_limit_start;
} ConvergenceSession;

static ConvergenceSession session;

static void __attribute__((constructor)) convergence_init(void)
{
    qemu_mutex_init(&session.lock);
}

static int64_t now_ns(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

static bool convergence_active(void)
{
    return qatomic_read(&session.active);
}

static bool convergence_enforced(void)
{
    return qatomic_read(&session.active) && session.enforce;
}

static uint64_t pages_sent(void)
{
    /* Pages that XBZRLE gave up count twice */
    return ram_get_total_transferred_pages() - xbzrle_counters.overflow;
}

static void session_begin_pass(int64_t ns)
{
    session.pass_ns = ns;
    session.pass_bytes = migration_transferred_bytes();
    session.pass_pages = pages_sent();
}

static void session_start(void)
{
    const MigrationParameters *p = &migrate_get_current()->parameters;

    QEMU_LOCK_GUARD(&session.lock);
    g_free(session.id);
    memset(&session.id, 0,
           sizeof(session) - offsetof(ConvergenceSession, id));
    session.id = migration_history_id();
    session.start_ns = now_ns();
    session.enforce = p->convergence_mode == MIGRATION_CONVERGENCE_MODE_ENFORCE;
    convergence_blame_start();
    qatomic_set(&session.active, true);
}

static ConvergenceLimits session_limits(void)
{
    const MigrationParameters *p = &migrate_get_current()->parameters;

    return (ConvergenceLimits) {
        .downtime_limit = p->downtime_limit,
        .time_limit = p->convergence_time_limit,
        .max_slowdown = p->convergence_max_slowdown,
        .page_size = qemu_target_page_size(),
        .postcopy = p->convergence_fallback ==
                    MIGRATION_CONVERGENCE_FALLBACK_POSTCOPY &&
                    migrate_postcopy_ram(),
        .can_withhold = session.enforce,
    };
}

/*
 * Keep the vCPUs from running for @percent of the time, in short slices.
 * cpu_throttle_set() starts timers, so the BQL is needed.
 */
static void session_throttle(uint8_t percent)
{
    if (percent == session.throttle) {
        return;
    }
    session.throttle = percent;
    BQL_LOCK_GUARD();
    if (percent) {
        ConvergenceLimits limits = session_limits();

        cpu_throttle_set_timeslice(convergence_run_seconds(&limits, percent) *
                                   NANOSECONDS_PER_SECOND);
        cpu_throttle_set(percent);
    }
    /* It may have been released by another thread meanwhile */
    if (!percent ||
        migrate_get_current()->state != MIGRATION_STATUS_ACTIVE) {
        cpu_throttle_stop();
    }
}

/* The guest does not run here any more, or is to run at full speed again */
static void session_release(void)
{
    if (session.enforce) {
        cpu_throttle_stop();
        cpu_throttle_set_timeslice(0);
        convergence_blame_end();
    }
}

void convergence_start(void)
{
    migration_history_begin();
    if (migrate_convergence()) {
        session_start();
    }
}

static void outgoing_set_state(MigrationStatus state)
{
    switch (state) {
    case MIGRATION_STATUS_PRE_SWITCHOVER:
    case MIGRATION_STATUS_DEVICE:
        /* The vCPUs are stopped; all that is left must be sent */
        if (convergence_enforced()) {
            migration_withhold_release();
            session_release();
        }
        break;
    case MIGRATION_STATUS_CANCELLING:
        if (convergence_active()) {
            session_release();
        }
        break;
    case MIGRATION_STATUS_POSTCOPY_DEVICE:
    case MIGRATION_STATUS_POSTCOPY_ACTIVE:
    case MIGRATION_STATUS_CANCELLED:
    case MIGRATION_STATUS_FAILED:
    case MIGRATION_STATUS_COMPLETED:
        if (convergence_active()) {
            session_release();
            qatomic_set(&session.active, false);
        }
        break;
    default:
        break;
    }
}

void convergence_set_state(const MigrationStatus *state,
                           MigrationStatus new_state)
{
    if (state == &migration_incoming_get_current()->state) {
        migration_history_set_state(MIGRATION_DIRECTION_INCOMING, new_state);
    } else {
        migration_history_set_state(MIGRATION_DIRECTION_OUTGOING, new_state);
        outgoing_set_state(new_state);
    }
}

uint8_t convergence_clear_bitmap_shift(uint8_t shift)
{
    return convergence_enforced() ? MIN(shift, CLEAR_BITMAP_SHIFT) : shift;
}

void convergence_sync_begin(uint64_t dirty_pages)
{
    if (!convergence_active()) {
        return;
    }
    if (session.enforce) {
        migration_withhold_sync_begin();
    }
    QEMU_LOCK_GUARD(&session.lock);
    if (!session.sync_begin_ns) {
        session.sync_begin_ns = now_ns();
    }
    session.sync_dirty_before = dirty_pages;
}

void convergence_sync_end(uint64_t dirty_pages)
{
    uint64_t hot = 0;

    if (!convergence_active()) {
        return;
    }
    if (session.enforce) {
        hot = migration_withhold_sync_end();
        convergence_blame_update();
    }
    QEMU_LOCK_GUARD(&session.lock);
    session.sync_end_ns = now_ns();
    session.sync_ns = session.sync_end_ns - session.sync_begin_ns;
    session.sync_begin_ns = 0;
    session.sync_hot = hot;
    session.window_synced = true;
    if (!session.first_sync_done) {
        /* All pages are dirty at the start; this begins the first pass */
        session.first_sync_done = true;
        session_begin_pass(session.sync_end_ns);
        return;
    }
    session.sync_dirtied += dirty_pages - session.sync_dirty_before;
    session.synced = true;
}

/*
 * Bytes in the send buffer of the socket, so that what is only stored there
 * does not count as sent.  0 if there is no way to know.
 */
static uint64_t bytes_unsent(MigrationState *s)
{
#ifdef SIOCOUTQ
    QIOChannel *ioc = qemu_file_get_ioc(s->to_dst_file);
    QIOChannelTLS *tls;
    QIOChannelSocket *sioc;
    int unsent;

    tls = (QIOChannelTLS *)object_dynamic_cast(OBJECT(ioc),
                                               TYPE_QIO_CHANNEL_TLS);
    if (tls) {
        ioc = tls->master;
    }
    sioc = (QIOChannelSocket *)object_dynamic_cast(OBJECT(ioc),
                                                   TYPE_QIO_CHANNEL_SOCKET);
    if (sioc && ioctl(sioc->fd, SIOCOUTQ, &unsent) == 0) {
        return unsent;
    }
#endif
    return 0;
}

static void session_begin_round(MigrationState *s)
{
    session.round_bytes = migration_transferred_bytes();
    session.round_unsent = bytes_unsent(s);
    session.round_waited_ns = convergence_bandwidth_waited_ns();
    session.round_ns = now_ns();
}

/* Add up the rounds of sending of a window, without the waits between them */
static void session_end_round(MigrationState *s)
{
    uint64_t bytes, unsent;
    int64_t ns, waited_ns;

    if (!session.round_ns) {
        return;
    }
    ns = now_ns() - session.round_ns;
    waited_ns = convergence_bandwidth_waited_ns() - session.round_waited_ns;
    session.burst_ns += ns;
    session.burst_waited_ns += waited_ns;
    bytes = migration_transferred_bytes() - session.round_bytes;
    unsent = bytes_unsent(s);
    if (unsent > session.round_unsent) {
        bytes -= MIN(bytes, unsent - session.round_unsent);
    }
    session.burst_bytes += bytes;
    trace_convergence_round(bytes, ns, waited_ns, unsent);
    session.round_ns = 0;
}

static void session_end_window(int64_t ns)
{
    uint64_t bytes = migration_transferred_bytes();
    uint64_t zero_pages = stat64_get(&mig_stats.zero_pages);

    if (session.window_ns && !session.window_synced) {
        convergence_bandwidth_add(&session.copy, bytes - session.window_bytes,
                                  ns - session.window_ns, 0);
        /* Zero pages take time, and next to no bytes */
        if (session.burst_bytes >= MIN_BURST_BYTES &&
            (zero_pages - session.burst_zero_pages) * qemu_target_page_size() <=
            session.burst_bytes / 8) {
            convergence_bandwidth_add(session.number ? &session.burst :
                                                       &session.first_burst,
                                      session.burst_bytes, session.burst_ns,
                                      session.burst_waited_ns);
        }
    }
    session.window_ns = ns;
    session.window_bytes = bytes;
    session.window_synced = false;
    session.burst_ns = 0;
    session.burst_waited_ns = 0;
    session.burst_bytes = 0;
    session.burst_zero_pages = zero_pages;
    session.rate_lifted = false;
}

/*
 * What is sent per second while the guest is stopped.  In the first pass the
 * destination has to allocate the memory, too, so that it says little.
 */
static uint64_t session_switchover_bandwidth(
    uint64_t (*estimate)(const ConvergenceBandwidth *b))
{
    uint64_t given = migrate_avail_switchover_bandwidth();
    uint64_t burst = estimate(session.burst.samples ? &session.burst :
                                                      &session.first_burst);

    return given ?: MAX(burst, estimate(&session.copy));
}

/*
 * The network still sends what is in the socket's send buffer while the guest
 * is stopped; what comes later waits for that.
 */
static uint64_t session_fixed_cost(MigrationState *s)
{
    uint64_t bandwidth =
        session_switchover_bandwidth(convergence_bandwidth_low);
    uint64_t unsent_us =
        bandwidth ? bytes_unsent(s) * 1000000 / bandwidth : 0;

    return MAX(DEVICES_COST_US, unsent_us);
}

static bool session_pass_is_short(void)
{
    int64_t min_ms = session.waiting ? MIN_WAITING_PASS_MS : MIN_PASS_MS;

    return now_ns() - session.pass_ns < min_ms * SCALE_MS;
}

/* Whether all that this pass is to send has been sent */
static bool session_pass_sent(void)
{
    ConvergenceLimits limits = session_limits();
    uint64_t remaining = ram_bytes_remaining() / limits.page_size;

    if (session_pass_is_short()) {
        return false;
    }
    remaining -= MIN(remaining, session.withheld);
    return remaining <=
           convergence_pass_goal(&limits, session.passes, session.n,
                                 convergence_bandwidth_low(&session.copy));
}

/*
 * Do not wait for the end of the current window of the rate limit when there is
 * nothing left to be sent in this pass: the guest goes on writing meanwhile.
 */
static void session_lift_rate(MigrationState *s)
{
    if (!session.rate_lifted && session_pass_sent() &&
        migration_rate_exceeded(s->to_dst_file)) {
        session.rate_lifted = true;
        session.rate_limit_start = stat64_get(&mig_stats.rate_limit_start);
        migration_rate_reset();
    }
}

/* Another pass follows: what was sent in this window counts again */
static void session_restore_rate(void)
{
    if (session.rate_lifted) {
        stat64_set(&mig_stats.rate_limit_start, session.rate_limit_start);
        session.rate_lifted = false;
    }
}

void convergence_bandwidth_sample(MigrationState *s, int64_t now)
{
    if (!convergence_active()) {
        return;
    }
    QEMU_LOCK_GUARD(&session.lock);
    session_end_round(s);
    if (now >= s->iteration_start_time + BUFFER_DELAY) {
        session_end_window(now_ns());
    } else if (session.enforce) {
        session_lift_rate(s);
    }
}

static uint64_t session_ms(int64_t ns)
{
    return (ns - session.start_ns) / SCALE_MS;
}

bool convergence_pass_over(MigrationState *s, uint64_t pending_size)
{
    ConvergenceLimits limits;
    ConvergenceDecision decision;
    bool over;

    if (!convergence_active()) {
        return pending_size < s->threshold_size;
    }
    QEMU_LOCK_GUARD(&session.lock);
    limits = session_limits();
    over = session.enforce ?
           session_pass_sent() ||
           convergence_overdue(&limits, session.passes, session.n,
                               session_ms(now_ns()), &decision) :
           pending_size < s->threshold_size;
    if (over) {
        /* To wait for the BQL, and for the accelerator's log, is part of it */
        session.sync_begin_ns = now_ns();
    }
    return over;
}

static MigrationDecision decision_to_qapi(ConvergenceAction action)
{
    static const MigrationDecision map[] = {
        [CONVERGENCE_CONTINUE] = MIGRATION_DECISION_CONTINUE,
        [CONVERGENCE_THROTTLE] = MIGRATION_DECISION_THROTTLE,
        [CONVERGENCE_POLISH] = MIGRATION_DECISION_POLISH,
        [CONVERGENCE_WITHHOLD] = MIGRATION_DECISION_WITHHOLD,
        [CONVERGENCE_SWITCH_OVER] = MIGRATION_DECISION_SWITCH_OVER,
        [CONVERGENCE_POSTCOPY] = MIGRATION_DECISION_POSTCOPY,
        [CONVERGENCE_ABORT] = MIGRATION_DECISION_ABORT,
    };

    return map[action];
}

static void session_report(const ConvergencePass *pass,
                           const ConvergencePass *last)
{
    const ConvergenceDecision *d = &pass->decided;
    uint32_t page_size = qemu_target_page_size();
    MigrationPass report = {
        .pass = session.number,
        .time = pass->end,
        .duration = pass->duration,
        .sync_time = pass->sync_time,
        .bytes_sent = pass->bytes_sent,
        .pages_sent = pass->pages_sent,
        .pages_dirtied = pass->pages_dirtied,
        .pages_hot = pass->pages_hot,
        .pages_withheld = pass->pages_withheld,
        .pages_remaining = pass->pages_remaining,
        .has_pages_remaining_last = last,
        .pages_remaining_last = last ? last->pages_remaining : 0,
        .page_size = page_size,
        .dirty_rate = pass->pages_dirtied * page_size * 1000 /
                      MAX(pass->duration, 1),
        .bandwidth = pass->bytes_sent * 1000 / MAX(pass->duration, 1),
        .bandwidth_low = pass->bandwidth_low,
        .switchover_bandwidth = pass->switchover_bandwidth,
        .switchover_likely = pass->switchover_likely,
        .fixed_cost = pass->fixed_cost,
        .can_switch_over = pass->can_switch_over,
        .downtime_fixed = d->downtime_fixed,
        .downtime_copy = d->downtime_copy,
        .has_predicted_time = d->converges,
        .predicted_time = d->predicted_time,
        .has_predicted_downtime = d->converges,
        .predicted_downtime = d->predicted_downtime,
        .throttle = pass->throttle,
        .next_throttle = d->throttle,
        .decision = decision_to_qapi(d->action),
        .reason = (char *)d->reason,
    };

    migration_history_add_pass(&report);
    trace_convergence_pass(report.pass, MigrationDecision_str(report.decision),
                           report.reason);
    qapi_event_send_migration_convergence(session.id,
                                          session.enforce ?
                                          MIGRATION_CONVERGENCE_MODE_ENFORCE :
                                          MIGRATION_CONVERGENCE_MODE_OBSERVE,
                                          &report);
}

/* Close the pass that the last sync ended; return its decision */
static ConvergenceDecision session_end_pass(MigrationState *s,
                                            uint64_t pending_size,
                                            bool can_switchover)
{
    ConvergenceLimits limits = session_limits();
    ConvergencePass *pass, *last = NULL;
    int64_t duration_ns = session.sync_end_ns - session.pass_ns;

    if (session.n == MAX_PASSES) {
        memmove(&session.passes[FIRST_PASSES],
                &session.passes[FIRST_PASSES + 1],
                (MAX_PASSES - FIRST_PASSES - 1) * sizeof(*pass));
        session.n--;
    }
    pass = &session.passes[session.n];
    if (session.n) {
        last = pass - 1;
    }
    *pass = (ConvergencePass) {
        .end = session_ms(session.sync_end_ns),
        .duration = duration_ns / SCALE_MS,
        .sync_time = session.sync_ns / SCALE_US,
        .bytes_sent = migration_transferred_bytes() - session.pass_bytes,
        .pages_sent = pages_sent() - session.pass_pages,
        .pages_dirtied = session.sync_dirtied,
        .pages_hot = session.sync_hot,
        .pages_withheld = session.withheld,
        .pages_remaining = DIV_ROUND_UP(pending_size, limits.page_size),
        .bandwidth_low = convergence_bandwidth_low(&session.copy),
        .switchover_bandwidth =
            session_switchover_bandwidth(convergence_bandwidth_low),
        .switchover_likely =
            session_switchover_bandwidth(convergence_bandwidth_likely),
        .fixed_cost = session_fixed_cost(s),
        .throttle = session.throttle,
        .can_switch_over = can_switchover,
    };
    if (!pass->bandwidth_low) {
        /* Too short for a single window */
        pass->bandwidth_low = pass->bytes_sent * 1000 / MAX(pass->duration, 1);
    }
    if (!pass->switchover_bandwidth) {
        pass->switchover_bandwidth = pass->bandwidth_low;
        pass->switchover_likely = pass->bandwidth_low;
    }
    session.number++;
    session.n++;
    convergence_decide(&limits, session.passes, session.n, &pass->decided);
    session_report(pass, last);

    session.synced = false;
    session.sync_dirtied = 0;
    session_begin_pass(session.sync_end_ns);
    return pass->decided;
}

static void session_abort(MigrationState *s, const ConvergenceDecision *d)
{
    Error *err = NULL;

    error_setg(&err, "Migration does not converge: %s", d->reason);
    migrate_set_error(s, err);
    error_free(err);
    migrate_set_state(&s->state, MIGRATION_STATUS_ACTIVE,
                      MIGRATION_STATUS_FAILED);
}

bool convergence_ready(MigrationState *s, uint64_t pending_size,
                       bool can_switchover)
{
    bool upstream = can_switchover && pending_size <= s->threshold_size;
    ConvergenceDecision d;

    if (!convergence_active()) {
        return upstream;
    }
    WITH_QEMU_LOCK_GUARD(&session.lock) {
        if (!session.synced) {
            session_begin_round(s);
            return !session.enforce && upstream;
        }
        if (!session.enforce && !upstream && session_pass_is_short()) {
            /*
             * Upstream synchronizes again and again while it waits for the
             * destination: part of the same pass
             */
            session.synced = false;
            return false;
        }
        d = session_end_pass(s, pending_size, can_switchover);
        session_begin_round(s);
        session.waiting = !can_switchover;
        if (!session.enforce) {
            return upstream;
        }
        session_restore_rate();
        if (d.action == CONVERGENCE_WITHHOLD) {
            session.withheld = migration_withhold_apply();
        } else if (d.throttle && session.withheld) {
            /* A throttle slows the writers of these pages down as well */
            migration_withhold_release();
            session.withheld = 0;
        }
    }
    switch (d.action) {
    case CONVERGENCE_SWITCH_OVER:
        migration_history_predict(d.predicted_downtime);
        return true;
    case CONVERGENCE_ABORT:
        session_abort(s, &d);
        break;
    case CONVERGENCE_POSTCOPY:
        qatomic_set(&s->start_postcopy, true);
        break;
    default:
        session_throttle(d.throttle);
        break;
    }
    return false;
}
