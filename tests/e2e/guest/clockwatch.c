/*
 * clockwatch: samples the guest's clocks without a pause and prints, every
 * 100 ms of CLOCK_MONOTONIC, one line
 *
 *   C <clock source> <steps back> then for each of monotonic, boottime,
 *   realtime (ns) and tsc (cycles): <value> <largest step forward since the
 *   last line>
 *
 * A clock that is set back, or that jumps, while the VM was stopped shows up
 * between two neighbouring samples, however it looks later.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

enum { MONOTONIC, BOOTTIME, REALTIME, TSC, CLOCKS };

static uint64_t ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void sample(uint64_t *now)
{
    unsigned cpu;

    now[MONOTONIC] = ns(CLOCK_MONOTONIC);
    now[BOOTTIME] = ns(CLOCK_BOOTTIME);
    now[REALTIME] = ns(CLOCK_REALTIME);
    now[TSC] = __rdtscp(&cpu);
}

/* The kernel may change it at any time, when it finds a better one. */
static const char *clocksource(void)
{
    static char name[32];
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/"
                       "current_clocksource", "r");

    if (!file || fscanf(file, "%31s", name) != 1) {
        strcpy(name, "unknown");
    }
    if (file) {
        fclose(file);
    }
    return name;
}

int main(void)
{
    uint64_t last[CLOCKS], now[CLOCKS], step[CLOCKS] = { 0 }, back = 0;
    uint64_t report;

    sample(last);
    report = last[MONOTONIC];
    for (;;) {
        sample(now);
        for (int i = 0; i < CLOCKS; i++) {
            if (now[i] < last[i]) {
                back++;
            } else if (now[i] - last[i] > step[i]) {
                step[i] = now[i] - last[i];
            }
            last[i] = now[i];
        }
        if (now[MONOTONIC] < report) {
            continue;
        }
        report = now[MONOTONIC] + 100000000;
        printf("C %s %" PRIu64, clocksource(), back);
        for (int i = 0; i < CLOCKS; i++) {
            printf(" %" PRIu64 " %" PRIu64, now[i], step[i]);
            step[i] = 0;
        }
        printf("\n");
        fflush(stdout);
    }
}
