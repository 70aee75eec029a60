/*
 * The only program of a guest whose memory goes bad: fills a page, says where
 * it is in the guest's memory, and has a process read it for each byte that
 * comes in on the serial port. Says what has become of that process.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define PAGE 4096

static void fail(const char *what)
{
    printf("E ");
    fflush(stdout);
    perror(what);
    /* a kernel without its first program panics, and hides the message */
    for (;;) {
        pause();
    }
}

static void begin(void)
{
    struct termios raw;

    mkdir("/dev", 0755);
    mkdir("/proc", 0755);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    mount("proc", "/proc", "proc", 0, NULL);
    int fd = open("/dev/ttyS0", O_RDWR);
    for (int i = 0; i < 3; i++) {
        dup2(fd, i);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (tcgetattr(0, &raw)) {
        fail("ttyS0");
    }
    cfmakeraw(&raw);
    tcsetattr(0, TCSANOW, &raw);
}

/* Documentation/admin-guide/mm/pagemap.rst */
static uint64_t physical(const volatile char *page)
{
    uint64_t entry;
    int fd = open("/proc/self/pagemap", O_RDONLY);

    if (pread(fd, &entry, sizeof(entry), (uintptr_t)page / PAGE * 8)
        != sizeof(entry) || !(entry >> 63)) {
        fail("pagemap");
    }
    close(fd);
    return (entry & ((1ULL << 55) - 1)) * PAGE;
}

int main(void)
{
    volatile char *page;
    char byte;

    begin();
    page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (page == MAP_FAILED) {
        fail("mmap");
    }
    memset((char *)page, 0x5a, PAGE);
    printf("PAGE %llx\n", (unsigned long long)physical(page));

    while (read(0, &byte, 1) == 1) {
        int status;
        pid_t child = fork();

        if (!child) {
            _exit(page[0] != 0x5a);
        }
        if (child < 0 || waitpid(child, &status, 0) != child) {
            fail("fork");
        }
        if (WIFSIGNALED(status)) {
            printf("KILLED %d\n", WTERMSIG(status));
        } else {
            printf("READ %d\n", WEXITSTATUS(status));
        }
    }
    fail("read");
}
