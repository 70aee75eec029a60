/*
 * A guest that works on its memory at a set rate, counts what it has done, and
 * notices when it is kept from it. The same code runs without an operating
 * system (worker.S, which starts it in ring 3), and as a program on Linux.
 *
 * The first vCPU writes to an area of memory, page by page. It knows what each
 * page must contain: one that has lost a write is found when it is written
 * next, or when the host orders all of them to be verified. A second vCPU, if
 * there is one, only reads.
 *
 * The host (../harness/worker.py) shares a device's memory with the guest: it
 * orders there, and sees what comes of it. The time is the TSC's, as neither
 * side knows what the other's clock says.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <stdint.h>

#if __STDC_HOSTED__
#include <err.h>
#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#endif

#define PAGE_WORDS   512
#define MAX_PHASES   8
#define ZIPF_STEPS   4096
#define MAX_GAPS     512
/* between two looks at the clock */
#define BATCH        16
#define REST_NS      200000
/*
 * The second vCPU works for 1/2500 s, and rests for two times that: with
 * shorter ones a software KVM, which writes a stack frame in memory each time,
 * fills a dirty ring.
 */
#define READS_PER_S  2500
#define READ_REST_NS 800000
/*
 * What the second vCPU reads is few enough for a TLB: that KVM splits large
 * pages while it logs which ones are written to must make no difference.
 */
#define READ_PAGES   1024
#define GOLDEN       0x9e3779b97f4a7c15ul

enum kind { IDLE, SCATTER, SWEEP, ZIPF };
enum order { WAIT, WORK, VERIFY };
enum state { WAITING, FILLING, WORKING, VERIFIED };

/* What to do for some time. Sizes are in pages. */
struct phase {
    /* counted from when @begun is set; the last phase has no end */
    uint64_t until_ms;
    uint64_t kind;
    /* pages per second; 0: as many as possible */
    uint64_t rate;
    uint64_t hot_first;
    uint64_t hot_size;
    uint64_t hot_percent;
};

/* Written by the host */
struct orders {
    uint64_t order;
    /* of the TSC */
    uint64_t hz;
    uint64_t pages;
    uint64_t begun;
    uint64_t phases;
    struct phase phase[MAX_PHASES];
};

/* What a vCPU says */
struct vcpu {
    uint64_t state;
    /* when it last was at work */
    uint64_t stamp;
    /* pages written or read */
    uint64_t work;
    /* pages that did not contain what was written to them */
    uint64_t bad;
    uint64_t gaps;
};

/* A time in which a vCPU did not look at the clock, as it does all the time */
struct gap {
    uint64_t from, to;
};

struct shared {
    struct orders orders;
    uint8_t pad[4096 - sizeof(struct orders)];
    /* which pages, by popularity, 1/ZIPF_STEPS of the accesses go to */
    uint32_t zipf[ZIPF_STEPS + 1];
    uint8_t pad2[0x7000 - (ZIPF_STEPS + 1) * 4];
    struct {
        struct vcpu vcpu;
        struct gap gap[MAX_GAPS];
        uint8_t pad[0x4000 - sizeof(struct vcpu)
                    - MAX_GAPS * sizeof(struct gap)];
    } cpu[2];
};

/*
 * The vCPU's own copy: what is in the memory of the device may be old after a
 * migration from a QEMU that loses track of it (10.2 does, with TCG).
 */
static struct vcpu own[2];

#if __STDC_HOSTED__
static volatile struct shared *shared;
static volatile uint64_t *area;
static volatile uint32_t *writes;

static void rest(uint64_t ns)
{
    nanosleep(&(struct timespec) { .tv_nsec = ns }, NULL);
}
#else
static volatile struct shared *const shared = (void *)0xe0000000;
static volatile uint64_t *const area = (void *)0x2000000;
/* how often each page was written: up to where the area begins */
static volatile uint32_t *const writes = (void *)0x800000;

static void rest(uint64_t ns)
{
    asm volatile("hlt" : : "D"(ns) : "memory");
}
#endif

static uint64_t tsc(void)
{
    uint32_t low, high;

    asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

/* Bits that have nothing to do with each other (splitmix64) */
static uint64_t mix(uint64_t x)
{
    x += GOLDEN;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ul;
    x = (x ^ x >> 27) * 0x94d049bb133111ebul;
    return x ^ x >> 31;
}

static uint64_t random_number(uint64_t *seed)
{
    return mix(*seed += GOLDEN);
}

/*
 * Look at the clock, note if that has not been done for a while, and tell the
 * host all there is.
 */
static uint64_t tick(struct vcpu *me)
{
    unsigned number = me - own;
    volatile struct gap *gap =
        &shared->cpu[number].gap[me->gaps % MAX_GAPS];
    uint64_t now = tsc();
    uint64_t limit = shared->orders.hz / 1000;

    /* after a migration the clock may have gone back */
    if (limit && (int64_t)(now - me->stamp - limit) > 0) {
        gap->from = me->stamp;
        gap->to = now;
        me->gaps++;
    }
    me->stamp = now;
    *(volatile struct vcpu *)&shared->cpu[number].vcpu = *me;
    return now;
}

/* What a page contains: its first word, and later on one more... */
static uint64_t first_word(uint64_t page, uint32_t count)
{
    return mix(page << 32 | count);
}

static uint64_t second_index(uint64_t page, uint32_t count)
{
    return 1 + first_word(page, count) % (PAGE_WORDS - 1);
}

/* ...and at first all the others */
static uint64_t fill_word(uint64_t page, uint64_t i)
{
    return mix(~(page * PAGE_WORDS + i));
}

static void fill(struct vcpu *me, uint64_t pages)
{
    for (uint64_t page = 0; page < pages; page++) {
        volatile uint64_t *words = area + page * PAGE_WORDS;

        words[0] = first_word(page, 0);
        for (unsigned i = 1; i < PAGE_WORDS; i++) {
            words[i] = fill_word(page, i);
        }
        writes[page] = 0;
        tick(me);
    }
}

static void check(struct vcpu *me, uint64_t page)
{
    if (area[page * PAGE_WORDS] != first_word(page, writes[page])) {
        me->bad++;
    }
}

static void write_page(struct vcpu *me, uint64_t page, uint64_t kind)
{
    volatile uint64_t *words = area + page * PAGE_WORDS;
    uint32_t count = writes[page] + 1;

    check(me, page);
    if (kind == SWEEP) {
        for (unsigned i = 1; i < PAGE_WORDS; i++) {
            words[i] ^= GOLDEN;
        }
    } else {
        words[second_index(page, count)] = first_word(page, count);
    }
    words[0] = first_word(page, count);
    writes[page] = count;
}

static void verify_page(struct vcpu *me, uint64_t page, uint64_t kind)
{
    volatile uint64_t *words = area + page * PAGE_WORDS;
    uint32_t count = writes[page];
    uint64_t key = kind == SWEEP && count % 2 ? GOLDEN : 0;
    uint64_t wrong = words[0] ^ first_word(page, count);

    if (!count || kind == SWEEP) {
        for (unsigned i = 1; i < PAGE_WORDS; i++) {
            wrong |= words[i] ^ fill_word(page, i) ^ key;
        }
    } else {
        wrong |= words[second_index(page, count)] ^ first_word(page, count);
    }
    me->bad += !!wrong;
}

static uint64_t zipf_page(uint64_t *seed, uint64_t pages)
{
    uint64_t random = random_number(seed);
    uint64_t step = random % ZIPF_STEPS;
    uint64_t low = shared->zipf[step], high = shared->zipf[step + 1];
    uint64_t rank = low + (random >> 32) % (high - low + 1);

    /* popular pages are anywhere: a prime that divides no number of pages */
    return rank * 2654435761ul % pages;
}

static uint64_t choose_page(const volatile struct phase *phase,
                            uint64_t *seed, uint64_t *next, uint64_t pages)
{
    uint64_t random;

    switch (phase->kind) {
    case SWEEP:
        return (*next)++ % pages;
    case ZIPF:
        return zipf_page(seed, pages);
    default:
        random = random_number(seed);
        if (random % 100 < phase->hot_percent) {
            return phase->hot_first + (random >> 32) % phase->hot_size;
        }
        return (random >> 32) % pages;
    }
}

/* For so many pages the time since @last is enough; it is taken away. */
static uint64_t earned(uint64_t now, uint64_t *last, uint64_t rate)
{
    uint64_t hz = shared->orders.hz;
    int64_t passed = now - *last;
    uint64_t pages;

    if (!rate) {
        *last = now;
        return BATCH;
    }
    /* the debt from having been kept from work is not more than 50 ms */
    if (passed < 0 || passed > (int64_t)hz / 20) {
        *last = now - hz / 20;
        passed = hz / 20;
    }
    pages = passed * rate / hz;
    if (pages > BATCH) {
        pages = BATCH;
    }
    *last += (pages * hz + rate / 2) / rate;
    return pages;
}

static const volatile struct phase *current_phase(uint64_t now,
                                                  uint64_t *begun)
{
    const volatile struct orders *orders = &shared->orders;
    uint64_t ms, i;

    if (!orders->begun) {
        return &orders->phase[0];
    }
    if (!*begun) {
        *begun = now;
    }
    ms = (now - *begun) / (orders->hz / 1000);
    for (i = 0; i < orders->phases - 1 && ms >= orders->phase[i].until_ms;
         i++) {
    }
    return &orders->phase[i];
}

static void verify(struct vcpu *me, uint64_t kind, uint64_t pages)
{
    for (uint64_t page = 0; page < pages; page++) {
        verify_page(me, page, kind);
        tick(me);
    }
    me->state = VERIFIED;
    tick(me);
}

static void write_forever(void)
{
    struct vcpu *me = &own[0];
    uint64_t seed = 1, next = 0, begun = 0, last, pages;

    while (shared->orders.order == WAIT) {
        tick(me);
    }
    pages = shared->orders.pages;
    me->state = FILLING;
    fill(me, pages);
    me->state = WORKING;
    last = tsc();
    for (;;) {
        uint64_t now = tick(me), batch;
        const volatile struct phase *phase = current_phase(now, &begun);

        if (shared->orders.order == VERIFY && me->state != VERIFIED) {
            verify(me, phase->kind, pages);
        }
        batch = phase->kind == IDLE ? 0 : earned(now, &last, phase->rate);
        for (uint64_t i = 0; i < batch; i++) {
            uint64_t page = choose_page(phase, &seed, &next, pages);

            /* a key-value store is read as often as it is written */
            if (phase->kind == ZIPF && i % 2) {
                check(me, page);
            } else {
                write_page(me, page, phase->kind);
            }
        }
        me->work += batch;
        if (!batch) {
            rest(REST_NS);
        }
    }
}

static void read_page(uint64_t page)
{
    /* one word of each line */
    for (unsigned line = 0; line < PAGE_WORDS; line += 8) {
        (void)area[page * PAGE_WORDS + line];
    }
}

static void read_forever(void)
{
    struct vcpu *me = &own[1];
    uint64_t seed = 2, first;

    while (shared->cpu[0].vcpu.state < WORKING) {
        rest(REST_NS);
    }
    first = shared->orders.pages - READ_PAGES;
    me->state = WORKING;
    me->stamp = tsc();
    for (;;) {
        uint64_t begin = tick(me);

        /*
         * It leaves the CPUs of the host to others for most of the time, but
         * has no use for a later one: what it is kept from is lost.
         */
        while (tick(me) - begin < shared->orders.hz / READS_PER_S) {
            for (unsigned i = 0; i < BATCH; i++) {
                read_page(first + random_number(&seed) % READ_PAGES);
            }
            me->work += BATCH;
        }
        rest(READ_REST_NS);
    }
}

#if __STDC_HOSTED__
static void *map(int fd, size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);

    if (memory == MAP_FAILED) {
        err(1, "E mmap");
    }
    return memory;
}

/* The memory of the first ivshmem device */
static void find_shared(void)
{
    glob_t found;

    if (glob("/sys/bus/pci/devices/*", 0, NULL, &found)) {
        errx(1, "E no PCI devices");
    }
    for (size_t i = 0; i < found.gl_pathc; i++) {
        char path[256], id[16] = "";
        FILE *file;
        int fd;

        snprintf(path, sizeof(path), "%s/device", found.gl_pathv[i]);
        file = fopen(path, "r");
        if (!file || !fgets(id, sizeof(id), file) || strcmp(id, "0x1110\n")) {
            continue;
        }
        snprintf(path, sizeof(path), "%s/enable", found.gl_pathv[i]);
        fd = open(path, O_WRONLY);
        if (fd < 0 || write(fd, "1", 1) != 1) {
            err(1, "E %s", path);
        }
        snprintf(path, sizeof(path), "%s/resource2", found.gl_pathv[i]);
        fd = open(path, O_RDWR);
        if (fd < 0) {
            err(1, "E %s", path);
        }
        shared = map(fd, sizeof(*shared));
        return;
    }
    errx(1, "E no ivshmem device");
}

static void bind_to(int number)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(number, &set);
    if (sched_setaffinity(0, sizeof(set), &set)) {
        err(1, "E sched_setaffinity");
    }
}

int main(void)
{
    find_shared();
    while (!shared->orders.pages) {
        rest(REST_NS);
    }
    area = map(-1, shared->orders.pages * PAGE_WORDS * 8);
    writes = map(-1, shared->orders.pages * 4);
    if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
        if (!fork()) {
            bind_to(1);
            read_forever();
        }
        bind_to(0);
    }
    write_forever();
}
#else
/* Where worker.S goes to, with the number of the vCPU */
void __attribute__((noreturn)) enter(uint64_t number);

void enter(uint64_t number)
{
    if (number) {
        read_forever();
    }
    write_forever();
    __builtin_unreachable();
}
#endif
