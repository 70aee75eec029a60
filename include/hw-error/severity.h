/*
 * Hardware errors: severities
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_ERROR_SEVERITY_H
#define HW_ERROR_SEVERITY_H

#include "qapi/qapi-types-hw-error.h"

/**
 * hw_error_severity: Severity, in ACPI's words, of an error for which
 * something else has words of its own.
 * @scheme: whose words
 * @word: the word, as in the table of query-hw-error-severities
 *
 * @word must be in the table.  Any thread, no lock needed.
 */
HwErrorSeverity hw_error_severity(HwErrorScheme scheme, const char *word);

/**
 * hw_error_severity_errno: Severity of a failed request.
 * @err: the errno, positive
 *
 * Any thread, no lock needed.
 */
HwErrorSeverity hw_error_severity_errno(int err);

#endif
