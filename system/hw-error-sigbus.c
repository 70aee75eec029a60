/*
 * Hardware errors: SIGBUS
 *
 * The handler decides who deals with it:
 *
 * - a thread that is trying whether it can read the guest's RAM (a memory
 *   dump) is told that it cannot;
 * - when KVM says that the guest has read bad memory, the vCPU thread does, as
 *   soon as KVM_RUN has returned (accel/kvm/hw-error.c);
 * - bad memory that nothing has read (BUS_MCEERR_AO) is dealt with in the main
 *   loop.  The kernel sends that to the main thread, in whatever it does at
 *   the time, so the handler only leaves a note;
 * - in all other cases a thread cannot go on, and QEMU ends by the signal.
 *   That is reported first, see exit_thread().
 *
 * So that it gets there, QEMU's threads do not block SIGBUS: the kernel kills
 * the process when memory that a thread has read is bad and the thread blocks
 * the signal.  Until the machine is ready they leave it to a signalfd, see
 * qemu_signal_init().
 *
 * Invariant: what runs in the handler takes no lock and calls nothing that is
 * not async-signal-safe.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <setjmp.h>
#include <sys/prctl.h>
#include "exec/cpu-common.h"
#include "hw-error/memory.h"
#include "hw/core/cpu.h"
#include "qemu/atomic.h"
#include "qemu/cacheinfo.h"
#include "qemu/error-report.h"
#include "qemu/event_notifier.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "system/kvm.h"
#include "system/system.h"

/* Errors that nothing has read and that the main loop has not seen yet */
#define OPTIONAL_MAX 16

/*
 * How long a thread that cannot go on waits until that is reported.  It may
 * hold a lock that is needed for it; then QEMU ends without.
 */
#define EXIT_WAIT_MS 250

typedef struct Guard {
    sigjmp_buf env;
    const void *start;
    size_t size;
} Guard;

/* What the calling thread tries; NULL when it does not */
static __thread Guard *guard;
/* Set by the handler before it leaves what the thread tries */
static __thread HwErrorFault guard_fault;

/* What KVM was told last in this thread */
static __thread void *vcpu_pending;

enum { SLOT_FREE, SLOT_TAKEN, SLOT_FILLED };

static struct {
    int state;
    void *host;
} optional[OPTIONAL_MAX];
/* Those for which there was no slot */
static unsigned optional_lost;
static EventNotifier optional_notifier;

/* Filled by the thread that has set exit_taken, read by exit_thread() */
static HwErrorMemoryFound exit_found[2];
static int exit_count;
static int exit_taken;
static EventNotifier exit_wanted, exit_done;

G_NORETURN void hw_error_sigbus_die(void)
{
    struct sigaction action = { .sa_handler = SIG_DFL };
    sigset_t set;

    sigaction(SIGBUS, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    raise(SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    abort();
}

bool hw_error_try(void (*fn)(void *opaque), void *opaque,
                  const void *start, size_t size, HwErrorFault *fault)
{
    unsigned depth = get_ptr_rcu_reader()->depth;
    Guard g = { .start = start, .size = size };
    sigset_t set;

    assert(!guard);
    /* The mask is not saved: that would be a system call each time */
    if (!sigsetjmp(g.env, 0)) {
        guard = &g;
        barrier();
        fn(opaque);
        barrier();
        guard = NULL;
        return true;
    }

    guard = NULL;
    *fault = guard_fault;
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    while (get_ptr_rcu_reader()->depth > depth) {
        rcu_read_unlock();
    }
    return false;
}

/* Whether what the thread tries may meet bad memory there */
static bool guard_covers(const Guard *g, const siginfo_t *info)
{
    uintptr_t page = ROUND_DOWN((uintptr_t)info->si_addr,
                                qemu_real_host_page_size());
    ram_addr_t offset;

    if (!g->start) {
        /* No lock; and the thread was not in the middle of an RCU function */
        return qemu_ram_block_from_host(info->si_addr, false, &offset);
    }
    /* The address is that of the line, or of the page that it is in */
    return (uintptr_t)g->start + g->size > page &&
           (uintptr_t)g->start < page + qemu_real_host_page_size();
}

/* Wait until an event notifier is set; also for signal handlers */
static void wait_for(EventNotifier *e, int timeout_ms)
{
    struct pollfd fd = {
        .fd = event_notifier_get_fd(e),
        .events = POLLIN,
    };

    while (poll(&fd, 1, timeout_ms) < 0 && errno == EINTR) {
        /* again */
    }
}

/*
 * The handler cannot report: that takes locks, and memory.  So there is a
 * thread that does nothing else.  The handler waits for it, for a time.
 */
static void *exit_thread(void *opaque)
{
    int i;

    rcu_register_thread();
    wait_for(&exit_wanted, -1);
    for (i = 0; i < exit_count; i++) {
        hw_error_memory_report_exit(&exit_found[i]);
    }
    event_notifier_set(&exit_done);
    rcu_unregister_thread();
    return NULL;
}

static void exit_add(void *host)
{
    exit_found[exit_count++] = (HwErrorMemoryFound) {
        .source = HW_ERROR_SOURCE_QEMU_MEMORY,
        .host = host,
        .action_required = true,
        .vcpu = current_cpu ? current_cpu->cpu_index : -1,
    };
}

/* In the handler: this thread cannot go on */
static void report_exit(void *host, void *pending)
{
    if (!qatomic_cmpxchg(&exit_taken, 0, 1)) {
        /* What KVM has said of a page, and the same again, are one error */
        if (pending && pending != host) {
            exit_add(pending);
        }
        exit_add(host);
        event_notifier_set(&exit_wanted);
    }
    /* For a second thread, until the first one ends the process */
    wait_for(&exit_done, EXIT_WAIT_MS);
}

/* In the handler */
static void leave_optional(void *host)
{
    int i;

    for (i = 0; i < OPTIONAL_MAX; i++) {
        if (qatomic_cmpxchg(&optional[i].state, SLOT_FREE, SLOT_TAKEN) ==
            SLOT_FREE) {
            optional[i].host = host;
            qatomic_store_release(&optional[i].state, SLOT_FILLED);
            break;
        }
    }
    if (i == OPTIONAL_MAX) {
        qatomic_inc(&optional_lost);
    }
    event_notifier_set(&optional_notifier);
}

/* Main thread, with the BQL held */
static void action_optional(void *host)
{
    HwErrorMemoryFound found = {
        .host = host,
        .vcpu = -1,
    };
    hwaddr addr;

    if (kvm_enabled()) {
        if (kvm_on_sigbus(BUS_MCEERR_AO, host)) {
            hw_error_sigbus_die();
        }
        return;
    }
    found.source = hw_error_memory_guest_address(host, &addr) ?
                   HW_ERROR_SOURCE_GUEST_MEMORY : HW_ERROR_SOURCE_QEMU_MEMORY;
    hw_error_memory_report(&found);
}

/* Main loop, with the BQL held */
static void handle_optional(EventNotifier *e)
{
    unsigned lost;
    int i;

    event_notifier_test_and_clear(e);
    for (i = 0; i < OPTIONAL_MAX; i++) {
        if (qatomic_load_acquire(&optional[i].state) == SLOT_FILLED) {
            void *host = optional[i].host;

            qatomic_store_release(&optional[i].state, SLOT_FREE);
            action_optional(host);
        }
    }

    lost = qatomic_xchg(&optional_lost, 0);
    if (lost) {
        HwErrorInfo info = {
            .source = HW_ERROR_SOURCE_QEMU_MEMORY,
            .severity = HW_ERROR_SEVERITY_RECOVERABLE,
            .has_count = true,
            .count = lost,
            .description = (char *)"too many at a time, addresses are lost",
        };

        hw_error_report(&info);
    }
}

static void handler(int n, siginfo_t *info, void *ctx)
{
    bool machine_check = info->si_code == BUS_MCEERR_AR ||
                         info->si_code == BUS_MCEERR_AO;
    bool read = info->si_code == BUS_MCEERR_AR || info->si_code == BUS_ADRERR;
    void *pending = NULL;
    int saved_errno = errno;

    if (read && guard && guard_covers(guard, info)) {
        guard_fault.host = info->si_addr;
        guard_fault.machine_check = machine_check;
        siglongjmp(guard->env, 1);
    }

    if (machine_check && current_cpu && kvm_enabled()) {
        /*
         * Either KVM says so, or the thread has read bad memory itself.  Then
         * it is here again at once, because the first one is pending.
         */
        if (!kvm_on_sigbus_vcpu(current_cpu, info->si_code, info->si_addr)) {
            vcpu_pending = info->si_addr;
            goto out;
        }
        pending = vcpu_pending;
    } else if (info->si_code == BUS_MCEERR_AO) {
        leave_optional(info->si_addr);
        goto out;
    }

    /* Who sends the signal with kill() does not mean memory */
    if (read || machine_check) {
        report_exit(info->si_addr, pending);
    }
    hw_error_sigbus_die();

out:
    errno = saved_errno;
}

static void copy(void *opaque)
{
    struct iovec *iov = opaque;

    memcpy(iov[0].iov_base, iov[1].iov_base, iov[1].iov_len);
}

bool hw_error_try_copy(void *to, const void *from, size_t size,
                       HwErrorFault *fault)
{
    struct iovec iov[2] = {
        { .iov_base = to, .iov_len = size },
        { .iov_base = (void *)from, .iov_len = size },
    };

    return hw_error_try(copy, iov, from, size, fault);
}

static void scan(void *opaque)
{
    struct iovec *iov = opaque;
    const char *p = iov->iov_base;
    size_t i, line = MAX(qemu_dcache_linesize, sizeof(uint64_t));

    for (i = 0; i < iov->iov_len; i += line) {
        (void)qatomic_read(p + i);
    }
}

size_t hw_error_try_scan(const void *from, size_t size, HwErrorFault *fault)
{
    struct iovec iov = { .iov_base = (void *)from, .iov_len = size };
    uintptr_t page;

    if (hw_error_try(scan, &iov, from, size, fault)) {
        return size;
    }
    page = ROUND_DOWN((uintptr_t)fault->host, qemu_real_host_page_size());
    return page > (uintptr_t)from ? page - (uintptr_t)from : 0;
}

/* Main thread, with the BQL held, before the first guest instruction */
static void sigbus_ready(Notifier *n, void *data)
{
    struct sigaction action = {
        .sa_flags = SA_SIGINFO | SA_RESTART,
        .sa_sigaction = handler,
    };
    QemuThread thread;
    sigset_t set;

    if (event_notifier_init(&optional_notifier, false) < 0 ||
        event_notifier_init(&exit_wanted, false) < 0 ||
        event_notifier_init(&exit_done, false) < 0) {
        error_report("cannot create event notifiers for SIGBUS");
        exit(1);
    }
    event_notifier_set_handler(&optional_notifier, handle_optional);
    qemu_thread_create(&thread, "sigbus-report", exit_thread, NULL,
                       QEMU_THREAD_DETACHED);
    sigaction(SIGBUS, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void __attribute__((__constructor__)) sigbus_init(void)
{
    static Notifier ready = { .notify = sigbus_ready };

    qemu_thread_takes_sigbus = true;
    qemu_add_machine_init_done_notifier(&ready);
}
