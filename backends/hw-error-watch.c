/*
 * Hardware errors: processes that a device depends on, and that may hang
 *
 * A timer of the main loop looks at all of them.  It runs only while a rule
 * has a limit for back ends, or while one hangs that was reported, so that its
 * end is reported, too, and only while there is a back end to look at.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error/backend.h"
#include "hw-error/hw-error.h"
#include "qemu/timer.h"
#include "trace.h"

/* All of it is for the main thread, with the BQL held */
static QLIST_HEAD(, HwErrorBackendWatch) watches =
    QLIST_HEAD_INITIALIZER(watches);
static QEMUTimer *timer;
static uint32_t scan_ms;

/* The scan that runs, or was the last one */
static struct {
    unsigned number;
    int64_t time_ms;
    int64_t elapsed_ms;
} scan;

int64_t hw_error_backend_step_ms(HwErrorBackendStep *s, uint32_t position)
{
    if (s->scan + 1 == scan.number && s->position == position) {
        s->age_ms += scan.elapsed_ms;
    } else {
        s->age_ms = 0;
    }
    s->scan = scan.number;
    s->position = position;
    return s->age_ms;
}

static void check_limit(HwErrorBackendWatch *w, const HwErrorBackendWait *wait)
{
    g_autofree char *path = wait->dev ? object_get_canonical_path(wait->dev)
                                      : NULL;
    uint32_t limit_ms = hw_error_stall_limit_ms(HW_ERROR_SOURCE_BACKEND,
                                                path ?: w->chardev);

    if (limit_ms && wait->age_ms >= limit_ms) {
        trace_hw_error_backend_hangs(w->chardev, wait->age_ms, limit_ms);
        w->limit_ms = limit_ms;
        w->contained = hw_error_contains(
            hw_error_backend_hung(w->type, w->fe, wait));
    }
}

static void look(HwErrorBackendWatch *w)
{
    HwErrorBackendWait wait = { };

    if (hw_error_backend_is_lost(w->chardev)) {
        /* The device says when it is back, if it ever is */
        w->limit_ms = 0;
    } else if (w->look(w, &wait)) {
        if (!w->limit_ms) {
            /* Nearly always there is nothing that is older than this */
            if (wait.age_ms >= scan_ms) {
                check_limit(w, &wait);
            }
        } else if (wait.age_ms < w->limit_ms) {
            trace_hw_error_backend_gets_on(w->chardev, wait.age_ms);
            w->limit_ms = 0;
            hw_error_backend_back(w->type, wait.dev, w->fe);
        }
    }
}

static bool is_needed(void)
{
    HwErrorBackendWatch *w;

    if (hw_error_stall_scan_ms(HW_ERROR_SOURCE_BACKEND)) {
        return !QLIST_EMPTY(&watches);
    }
    QLIST_FOREACH(w, &watches, next) {
        if (w->limit_ms) {
            return true;
        }
    }
    return false;
}

static void look_at_all(void *opaque);

static void update_timer(void)
{
    if (!is_needed()) {
        g_clear_pointer(&timer, timer_free);
        return;
    }
    if (!timer) {
        timer = timer_new_ms(QEMU_CLOCK_REALTIME, look_at_all, NULL);
        /* Nothing is known of the time until now */
        scan.number++;
        scan.time_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    }
    timer_mod(timer, scan.time_ms + scan_ms);
}

static void look_at_all(void *opaque)
{
    int64_t now_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    HwErrorBackendWatch *w;

    scan.number++;
    scan.elapsed_ms = MIN(now_ms - scan.time_ms, 2 * (int64_t)scan_ms);
    scan.time_ms = now_ms;
    QLIST_FOREACH(w, &watches, next) {
        look(w);
    }
    update_timer();
}

void hw_error_backend_watch(HwErrorBackendWatch *w)
{
    w->chardev = g_strdup(qemu_chr_fe_get_driver(w->fe)->label);
    QLIST_INSERT_HEAD(&watches, w, next);
    update_timer();
}

void hw_error_backend_unwatch(HwErrorBackendWatch *w)
{
    QLIST_REMOVE(w, next);
    hw_error_backend_forget(w->chardev);
    g_free(w->chardev);
    update_timer();
}

HwErrorBackendWatch *hw_error_backend_find_watch(CharFrontend *fe)
{
    HwErrorBackendWatch *w;

    QLIST_FOREACH(w, &watches, next) {
        if (w->fe == fe) {
            return w;
        }
    }
    return NULL;
}

static void policy_changed(Notifier *n, void *unused)
{
    uint32_t ms = hw_error_stall_scan_ms(HW_ERROR_SOURCE_BACKEND);

    /* Those that are known to hang are looked at as often as before */
    scan_ms = ms ?: scan_ms;
    update_timer();
}

static Notifier policy_notifier = { .notify = policy_changed };

static void __attribute__((__constructor__)) hw_error_watch_init(void)
{
    hw_error_add_policy_notifier(&policy_notifier);
}
