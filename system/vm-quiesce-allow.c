/*
 * Quiesced run state: what may still be done to the VM
 *
 * Everything is refused unless it is listed here, so that what is added to
 * QEMU is refused until somebody has thought about it.  A command may be
 * listed if it can neither make the VM run, nor change guest RAM or the device
 * model, nor write to an image, nor send a packet.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "system/vm-quiesce.h"

/* QMP commands; those that start with query- or x-query- are allowed, too */
static const char *const allowed_commands[] = {
    /* The quiesced state itself */
    "vm-quiesce",
    "vm-unquiesce",
    /* What is known of the reasons for it */
    "hw-error-report",
    "hw-error-clear",
    /* The process, and its connections */
    "quit",
    "yank",
    "qmp_capabilities",
    "human-monitor-command",
    "add_client",
    "getfd",
    "closefd",
    "add-fd",
    "remove-fd",
    /* Post-mortem */
    "dump-guest-memory",
    "dump-skeys",
    "memsave",
    "pmemsave",
    "screendump",
    "ringbuf-read",
    "trace-event-get-state",
    "trace-event-set-state",
    /* Introspection, as management does it when it connects */
    "device-list-properties",
    "qom-get",
    "qom-list",
    "qom-list-get",
    "qom-list-properties",
    "qom-list-types",
    /* Guarded by vm_quiesce_allows_qom_set() */
    "qom-set",
    /* To a file only; guarded by migration_quiesce_allows() */
    "migrate",
    "migrate_cancel",
    "migrate-set-capabilities",
    /* Forgets a job that has ended */
    "job-dismiss",
};

/* Top-level HMP commands, by their first name in hmp-commands.hx */
static const char *const allowed_hmp[] = {
    "quiesce",
    "unquiesce",
    "quit",
    "help",
    "info",
    "cpu",
    "closefd",
    "dump-guest-memory",
    "dump-skeys",
    "gdbserver",
    "getfd",
    "gpa2hpa",
    "gpa2hva",
    "gva2gpa",
    "log",
    "logfile",
    "memsave",
    "pmemsave",
    "print",
    "qom-get",
    "qom-list",
    "ringbuf_read",
    "screendump",
    "sum",
    "trace-event",
    "x",
    "xp",
};

/* QOM properties that management sets on each VM it connects to */
static const char *const allowed_properties[] = {
    "guest-stats-polling-interval",
};

static bool is_listed(const char *const *list, size_t n, const char *name)
{
    size_t i;

    for (i = 0; i < n; i++) {
        if (!strcmp(list[i], name)) {
            return true;
        }
    }
    return false;
}

bool vm_quiesce_may_exit(ShutdownCause request)
{
    return request == SHUTDOWN_CAUSE_HOST_QMP_QUIT ||
           request == SHUTDOWN_CAUSE_HOST_SIGNAL ||
           request == SHUTDOWN_CAUSE_HOST_UI;
}

bool vm_quiesce_allows_command(const char *name, Error **errp)
{
    if (!vm_quiesce_active() ||
        strstart(name, "query-", NULL) || strstart(name, "x-query-", NULL) ||
        is_listed(allowed_commands, ARRAY_SIZE(allowed_commands), name)) {
        return true;
    }
    error_setg(errp, "The command '%s' is not permitted until 'vm-unquiesce'",
               name);
    return false;
}

bool vm_quiesce_allows_hmp(const char *name)
{
    g_autofree char *first = g_strndup(name, strcspn(name, "|"));

    return !vm_quiesce_active() ||
           is_listed(allowed_hmp, ARRAY_SIZE(allowed_hmp), first);
}

bool vm_quiesce_allows_qom_set(const char *property, Error **errp)
{
    if (!vm_quiesce_active() ||
        is_listed(allowed_properties, ARRAY_SIZE(allowed_properties),
                  property)) {
        return true;
    }
    error_setg(errp, "Property '%s' cannot be set until 'vm-unquiesce'",
               property);
    return false;
}

bool vm_quiesce_allows_gdb(const char *packet)
{
    if (!vm_quiesce_active()) {
        return true;
    }
    switch (packet[0]) {
    case 'v':
        /* Of vCont and the others, gdb may ask what is there */
        return g_str_has_suffix(packet, "?");
    case 'C':
    case 'F':
    case 'G':
    case 'M':
    case 'P':
    case 'S':
    case 'X':
    case 'Z':
    case 'b':
    case 'c':
    case 's':
        return false;
    default:
        return true;
    }
}
