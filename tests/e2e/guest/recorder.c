/*
 * recorder INSTANCE STREAMS [-q] DISK...
 *
 * The guest workload: every disk is split into STREAMS regions, and one
 * process per region appends numbered, checksummed records to it, each in one
 * O_DIRECT write that is on stable storage before the record is acknowledged
 * with a line "A <stream> <number>" on stdout. With -q it is nothing but a
 * load: no acknowledgements, and a region that is full is begun anew.
 * A region is continued after its last valid record, whoever wrote that, so
 * that a second VM can take over; "S <stream> <number>" says where it begins.
 *
 * The record format is described once more, for the host, in
 * ../harness/records.py.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAGIC "QFSREC01"
#define DISK_WAIT_S 60

struct record {
    char magic[8];
    uint32_t instance;
    uint32_t stream;
    uint64_t number;
    char text[104];
    uint64_t filler[239];
    uint32_t zero;
    uint32_t crc;
};
_Static_assert(sizeof(struct record) == 2048, "four sectors, without holes");

static void die(const char *what, const char *disk)
{
    printf("E %s: %s: %s\n", disk, what, strerror(errno));
    fflush(stdout);
    _exit(1);
}

static uint32_t crc32(const void *data, size_t len)
{
    static uint32_t table[256];
    const uint8_t *p = data;
    uint32_t crc = ~0u;

    if (!table[1]) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int bit = 0; bit < 8; bit++) {
                c = (c >> 1) ^ (c & 1 ? 0xedb88320u : 0);
            }
            table[i] = c;
        }
    }
    while (len--) {
        crc = (crc >> 8) ^ table[(crc ^ *p++) & 0xff];
    }
    return ~crc;
}

static uint32_t record_crc(const struct record *r)
{
    return crc32(r, offsetof(struct record, crc));
}

static void record_fill(struct record *r, uint32_t instance, uint32_t stream,
                        uint64_t number)
{
    uint64_t x = (uint64_t)instance << 44 ^ (uint64_t)stream << 36 ^ number;

    memset(r, 0, sizeof(*r));
    memcpy(r->magic, MAGIC, sizeof(r->magic));
    r->instance = instance;
    r->stream = stream;
    r->number = number;
    /* for whoever reads a memory dump of this guest */
    snprintf(r->text, sizeof(r->text),
             "these are the last words of instance %" PRIu32
             ": stream %" PRIu32 ", record %" PRIu64 ".",
             instance, stream, number);
    for (size_t i = 0; i < sizeof(r->filler) / sizeof(r->filler[0]); i++) {
        x += 0x9e3779b97f4a7c15u;
        r->filler[i] = (x ^ x >> 29) * 0xbf58476d1ce4e5b9u;
    }
    r->crc = record_crc(r);
}

static bool record_valid(const struct record *r, uint32_t stream,
                         uint64_t number)
{
    return !memcmp(r->magic, MAGIC, sizeof(r->magic)) &&
           r->stream == stream && r->number == number &&
           r->crc == record_crc(r);
}

/*
 * The records of a region have no gaps (the host checks that), so a bisection
 * finds the end; a takeover need not read the disk.
 */
static uint64_t first_free(int fd, const char *disk, struct record *r,
                           uint32_t stream, off_t base, uint64_t slots)
{
    uint64_t low = 0, high = slots;

    while (low < high) {
        uint64_t mid = low + (high - low) / 2;
        if (pread(fd, r, sizeof(*r), base + mid * sizeof(*r)) != sizeof(*r)) {
            die("read", disk);
        }
        if (record_valid(r, stream, mid)) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/* The two ways in which software asks for stability take turns. */
static int open_disk(const char *disk, bool dsync)
{
    for (int tries = DISK_WAIT_S * 10; ; tries--) {
        int fd = open(disk, O_RDWR | O_DIRECT | (dsync ? O_DSYNC : 0));
        if (fd >= 0 || tries == 0) {
            return fd;
        }
        usleep(100 * 1000);
    }
}

static _Noreturn void append_records(const char *disk, uint32_t instance,
                                     uint32_t stream, unsigned region,
                                     unsigned regions, bool quiet)
{
    bool dsync = region & 1;
    int fd = open_disk(disk, dsync);
    /* in turns: the last one is whole in memory while the next is made */
    struct record *buffers, *r;
    off_t size, base;
    uint64_t slots, number;

    if (fd < 0) {
        die("open", disk);
    }
    size = lseek(fd, 0, SEEK_END);
    if (size < 0 || posix_memalign((void **)&buffers, 4096,
                                   2 * sizeof(*buffers))) {
        die("prepare", disk);
    }
    r = buffers;
    slots = size / regions / sizeof(*r);
    base = region * slots * sizeof(*r);
    number = first_free(fd, disk, r, stream, base, slots);
    printf("S %" PRIu32 " %" PRIu64 "\n", stream, number);
    fflush(stdout);

    for (;; number++) {
        if (number == slots) {
            if (!quiet) {
                errno = ENOSPC;
                die("append", disk);
            }
            number = 0;
        }
        r = &buffers[number & 1];
        record_fill(r, instance, stream, number);
        if (pwrite(fd, r, sizeof(*r), base + number * sizeof(*r))
            != sizeof(*r)) {
            die("write", disk);
        }
        if (!dsync && fdatasync(fd)) {
            die("fdatasync", disk);
        }
        if (!quiet) {
            printf("A %" PRIu32 " %" PRIu64 "\n", stream, number);
            fflush(stdout);
        }
    }
}

int main(int argc, char **argv)
{
    bool quiet = argc > 3 && !strcmp(argv[3], "-q");
    int first_disk = quiet ? 4 : 3;
    uint32_t instance, stream = 0;
    unsigned regions;

    if (argc <= first_disk) {
        printf("E usage: recorder INSTANCE STREAMS [-q] DISK...\n");
        return 2;
    }
    instance = strtoul(argv[1], NULL, 10);
    regions = strtoul(argv[2], NULL, 10);
    for (int i = first_disk; i < argc; i++) {
        for (unsigned region = 0; region < regions; region++, stream++) {
            pid_t pid = fork();
            if (pid < 0) {
                die("fork", argv[i]);
            }
            if (pid == 0) {
                append_records(argv[i], instance, stream, region, regions,
                               quiet);
            }
        }
    }
    while (wait(NULL) > 0) {
        /* the writers end only by an error, which they report themselves */
    }
    return 1;
}
