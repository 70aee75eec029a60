/*
 * Real bad memory, on a kernel that has CONFIG_MEMORY_FAILURE:
 *
 *   hwpoison page FILE OFFSET   the page of a file in memory is bad from now
 *                               on, for everybody who maps it
 *   hwpoison late COMMAND...    run a command that cannot ask the kernel to be
 *                               told at once: it learns of a bad page when it
 *                               reads it, as if the CPU had found it so
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096

static int fail(const char *what)
{
    printf("E %s: %s\n", what, strerror(errno));
    return 1;
}

static int poison(const char *path, off_t offset)
{
    int fd = open(path, O_RDWR);
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                      offset);

    if (fd < 0 || page == MAP_FAILED) {
        return fail(path);
    }
    if (madvise(page, PAGE, MADV_HWPOISON)) {
        return fail("MADV_HWPOISON");
    }
    printf("POISONED\n");
    return 0;
}

/* prctl(PR_MCE_KILL) does nothing, successfully */
static int late(char **command)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                 offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_MCE_KILL, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {
        .len = sizeof(filter) / sizeof(filter[0]),
        .filter = filter,
    };

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        return fail("seccomp");
    }
    execvp(command[0], command);
    return fail(command[0]);
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "page")) {
        return poison(argv[2], strtoll(argv[3], NULL, 0));
    }
    if (argc > 2 && !strcmp(argv[1], "late")) {
        return late(argv + 2);
    }
    errno = EINVAL;
    return fail("hwpoison");
}
