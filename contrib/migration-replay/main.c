/*
 * Replay recorded migrations through the convergence engine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <getopt.h>
#include "qemu/cutils.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "qapi/qapi-visit-migration-convergence.h"
#include "qobject/qjson.h"
#include "replay.h"

/* A history is 16 migrations of 256 passes of about 1 KiB. */
#define INPUT_MAX_BYTES (256 * 1024 * 1024)

enum { OPT_DOWNTIME = 256, OPT_TIME, OPT_SLOWDOWN, OPT_FALLBACK, OPT_JSON };

static void usage(FILE *out, const char *name)
{
    fprintf(out,
"usage: %s [OPTION]... [FILE]\n"
"\n"
"Show what the convergence engine decided in recorded migrations, and what\n"
"it would decide now.  FILE, or standard input, has what the QMP command\n"
"query-migration-history returned, one record of it, or QMP messages with\n"
"events MIGRATION_CONVERGENCE.\n"
"\n"
"Limits in place of those of the migration:\n"
"  --downtime-limit MS       how long the guest may be stopped\n"
"  --time-limit MS           how long the rest of the copy may take\n"
"  --max-slowdown PERCENT    how much the guest may be slowed down\n"
"  --fallback HOW            what to do then: abort or postcopy\n"
"Output:\n"
"  --json                    JSON instead of text\n"
"  -h, --help                this text\n", name);
}

static uint64_t number(const char *option, const char *arg, uint64_t min,
                       uint64_t max)
{
    uint64_t value;

    if (!g_ascii_isdigit(*arg) || qemu_strtou64(arg, NULL, 10, &value) < 0 ||
        value < min || value > max) {
        fprintf(stderr, "--%s: '%s' is not a number from %" PRIu64 " to %"
                PRIu64 "\n", option, arg, min, max);
        exit(1);
    }
    return value;
}

static char *read_all(const char *path)
{
    FILE *in = path ? fopen(path, "r") : stdin;
    g_autoptr(GString) text = g_string_new(NULL);
    char buf[65536];
    size_t len;

    if (!in) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    while ((len = fread(buf, 1, sizeof(buf), in)) > 0) {
        if (text->len + len > INPUT_MAX_BYTES || memchr(buf, 0, len)) {
            fprintf(stderr, "%s: not the history of a VM's migrations\n",
                    path ?: "standard input");
            exit(1);
        }
        g_string_append_len(text, buf, len);
    }
    if (ferror(in)) {
        fprintf(stderr, "%s: %s\n", path ?: "standard input",
                strerror(errno));
        exit(1);
    }
    if (path) {
        fclose(in);
    }
    return g_string_free(g_steal_pointer(&text), false);
}

static const struct option long_options[] = {
    { "downtime-limit", required_argument, NULL, OPT_DOWNTIME },
    { "time-limit", required_argument, NULL, OPT_TIME },
    { "max-slowdown", required_argument, NULL, OPT_SLOWDOWN },
    { "fallback", required_argument, NULL, OPT_FALLBACK },
    { "json", no_argument, NULL, OPT_JSON },
    { "help", no_argument, NULL, 'h' },
    {}
};

static void parse_options(int argc, char **argv, ReplayOptions *options,
                          bool *json)
{
    Error *err = NULL;
    int c;

    while ((c = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        switch (c) {
        case OPT_DOWNTIME:
            options->has_downtime_limit = true;
            options->downtime_limit = number("downtime-limit", optarg, 0,
                                             2000 * 1000);
            break;
        case OPT_TIME:
            options->has_time_limit = true;
            options->time_limit = number("time-limit", optarg, 1, 86400000);
            break;
        case OPT_SLOWDOWN:
            options->has_max_slowdown = true;
            options->max_slowdown = number("max-slowdown", optarg, 0, 99);
            break;
        case OPT_FALLBACK:
            options->has_fallback = true;
            options->fallback =
                qapi_enum_parse(&MigrationConvergenceFallback_lookup, optarg,
                                -1, &err);
            if (err) {
                error_reportf_err(err, "--fallback: ");
                exit(1);
            }
            break;
        case OPT_JSON:
            *json = true;
            break;
        case 'h':
            usage(stdout, argv[0]);
            exit(0);
        default:
            usage(stderr, argv[0]);
            exit(1);
        }
    }
    if (argc - optind > 1) {
        usage(stderr, argv[0]);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    ReplayOptions options = {};
    bool json = false;
    Error *err = NULL;
    const char *path;
    g_autofree char *text = NULL;
    MigrationRecordList *records;
    QList *replayed;

    parse_options(argc, argv, &options, &json);
    path = argv[optind];
    text = read_all(path);
    records = replay_parse(text, &err);
    if (!records) {
        fprintf(stderr, "%s: %s\n", path ?: "standard input",
                error_get_pretty(err));
        error_free(err);
        return 1;
    }

    replayed = replay(records, &options);
    if (json) {
        g_autoptr(GString) out = qobject_to_json_pretty(QOBJECT(replayed),
                                                        true);

        puts(out->str);
    } else {
        g_autofree char *out = replay_text(replayed);

        fputs(out, stdout);
    }
    qobject_unref(replayed);
    qapi_free_MigrationRecordList(records);
    return 0;
}
