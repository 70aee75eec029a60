/*
 * Hardware errors: severities
 *
 * Sources of the table: PCI Express Base Specification, "Error Signaling and
 * Logging"; Intel SDM vol. 3B, "UCR Error Classification"; Linux'
 * enum hw_event_mc_err_type; UEFI Specification, appendix N, "Record Header"
 * (error severity, also that of CXL's events).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error/severity.h"
#include "qapi/qapi-commands-hw-error.h"
#include "qapi/util.h"

static const struct {
    HwErrorScheme scheme;
    const char *word;
    HwErrorSeverity severity;
} severities[] = {
    { HW_ERROR_SCHEME_AER, "correctable", HW_ERROR_SEVERITY_CORRECTED },
    { HW_ERROR_SCHEME_AER, "nonfatal", HW_ERROR_SEVERITY_RECOVERABLE },
    { HW_ERROR_SCHEME_AER, "fatal", HW_ERROR_SEVERITY_FATAL },

    { HW_ERROR_SCHEME_MCE, "corrected", HW_ERROR_SEVERITY_CORRECTED },
    /* Not corrected, but nothing has used it yet */
    { HW_ERROR_SCHEME_MCE, "UCNA", HW_ERROR_SEVERITY_RECOVERABLE },
    { HW_ERROR_SCHEME_MCE, "deferred", HW_ERROR_SEVERITY_RECOVERABLE },
    /* Software recoverable, action optional and action required */
    { HW_ERROR_SCHEME_MCE, "SRAO", HW_ERROR_SEVERITY_RECOVERABLE },
    { HW_ERROR_SCHEME_MCE, "SRAR", HW_ERROR_SEVERITY_RECOVERABLE },
    /* Processor context corrupt */
    { HW_ERROR_SCHEME_MCE, "fatal", HW_ERROR_SEVERITY_FATAL },

    { HW_ERROR_SCHEME_EDAC, "Corrected", HW_ERROR_SEVERITY_CORRECTED },
    { HW_ERROR_SCHEME_EDAC, "Uncorrected", HW_ERROR_SEVERITY_RECOVERABLE },
    { HW_ERROR_SCHEME_EDAC, "Deferred", HW_ERROR_SEVERITY_RECOVERABLE },
    { HW_ERROR_SCHEME_EDAC, "Fatal", HW_ERROR_SEVERITY_FATAL },
    { HW_ERROR_SCHEME_EDAC, "Info", HW_ERROR_SEVERITY_CORRECTED },

    { HW_ERROR_SCHEME_CPER, "recoverable", HW_ERROR_SEVERITY_RECOVERABLE },
    { HW_ERROR_SCHEME_CPER, "fatal", HW_ERROR_SEVERITY_FATAL },
    { HW_ERROR_SCHEME_CPER, "corrected", HW_ERROR_SEVERITY_CORRECTED },
    { HW_ERROR_SCHEME_CPER, "informational", HW_ERROR_SEVERITY_CORRECTED },

    /* The device or its server is gone: no retry will help */
    { HW_ERROR_SCHEME_ERRNO, "ENODEV", HW_ERROR_SEVERITY_FATAL },
    { HW_ERROR_SCHEME_ERRNO, "ENXIO", HW_ERROR_SEVERITY_FATAL },
    { HW_ERROR_SCHEME_ERRNO, "ESHUTDOWN", HW_ERROR_SEVERITY_FATAL },
    /* The request is lost, what is on the disk is not; or space can be made */
    { HW_ERROR_SCHEME_ERRNO, "*", HW_ERROR_SEVERITY_RECOVERABLE },
};

HwErrorSeverity hw_error_severity(HwErrorScheme scheme, const char *word)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(severities); i++) {
        if (severities[i].scheme == scheme &&
            !strcmp(severities[i].word, word)) {
            return severities[i].severity;
        }
    }
    g_assert_not_reached();
}

HwErrorSeverity hw_error_severity_errno(int err)
{
    switch (err) {
    case ENODEV:
        return hw_error_severity(HW_ERROR_SCHEME_ERRNO, "ENODEV");
    case ENXIO:
        return hw_error_severity(HW_ERROR_SCHEME_ERRNO, "ENXIO");
    case ESHUTDOWN:
        return hw_error_severity(HW_ERROR_SCHEME_ERRNO, "ESHUTDOWN");
    default:
        return hw_error_severity(HW_ERROR_SCHEME_ERRNO, "*");
    }
}

HwErrorSeverityInfoList *qmp_query_hw_error_severities(Error **errp)
{
    HwErrorSeverityInfoList *list = NULL, **tail = &list;
    int i;

    for (i = 0; i < ARRAY_SIZE(severities); i++) {
        HwErrorSeverityInfo *info = g_new(HwErrorSeverityInfo, 1);

        info->scheme = severities[i].scheme;
        info->word = g_strdup(severities[i].word);
        info->severity = severities[i].severity;
        QAPI_LIST_APPEND(tail, info);
    }
    return list;
}
