/*
 * Bad memory and failing KVM on a host that has neither: preloaded into QEMU
 * (LD_PRELOAD), it does what a test asks it for by the socket whose number is
 * in $BADMEM_FD, a command per message; the answer is what strerror() says:
 *
 *   poison ADDR    the page becomes unreadable, by UFFDIO_POISON. When the
 *                  guest reads it, KVM itself sends SIGBUS/BUS_MCEERR_AR to
 *                  the vCPU's thread.
 *   heal ADDR      the page can be read again
 *   optional ADDR  SIGBUS/BUS_MCEERR_AO to the main thread, as when the host
 *                  has found a bad page that nothing has read
 *   own            a thread reads a bad page that is not the guest's
 *   exit N         the next KVM_RUN returns at once, as make_exit() says
 *
 * A user-mode read of such a page gives BUS_ADRERR, where real hardware gives
 * BUS_MCEERR_AR. So it is made that on its way to QEMU's handler.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Debian 12's headers do not have these */
#ifndef UFFDIO_POISON
struct uffdio_poison {
    struct uffdio_range range;
    uint64_t mode;
    int64_t updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT 39
#endif

#define PAGE 4096
#define MAX_VCPUS 8

static void (*handler)(int, siginfo_t *, void *);
/* The address of the signal that the main thread is about to get */
static uintptr_t optional;
/* The number of the exit to be made, plus 1 */
static int wanted_exit;

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    uintptr_t address;

    if (info->si_code == SI_TKILL &&
        (address = __atomic_exchange_n(&optional, 0, __ATOMIC_SEQ_CST))) {
        info->si_code = BUS_MCEERR_AO;
        info->si_addr = (void *)address;
    } else if (info->si_code == BUS_ADRERR) {
        info->si_code = BUS_MCEERR_AR;
    }
    handler(number, info, context);
}

int sigaction(int number, const struct sigaction *new, struct sigaction *old)
{
    static int (*real)(int, const struct sigaction *, struct sigaction *);
    struct sigaction wrapped;

    if (!real) {
        real = dlsym(RTLD_NEXT, "sigaction");
    }
    if (number == SIGBUS && new && new->sa_flags & SA_SIGINFO) {
        handler = new->sa_sigaction;
        wrapped = *new;
        wrapped.sa_sigaction = on_sigbus;
        new = &wrapped;
    }
    return real(number, new, old);
}

static int poison(uintptr_t address)
{
    static int fd = -1;
    struct uffdio_register range = {
        .range = { address & -PAGE, PAGE },
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    struct uffdio_poison page = { .range = range.range };

    if (fd < 0) {
        struct uffdio_api api = {
            .api = UFFD_API,
            .features = UFFD_FEATURE_POISON,
        };

        fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
        if (fd < 0 || ioctl(fd, UFFDIO_API, &api)) {
            return errno;
        }
    }
    /* The mark stays when the range is no longer watched */
    if (ioctl(fd, UFFDIO_REGISTER, &range) ||
        madvise((void *)(uintptr_t)range.range.start, PAGE, MADV_DONTNEED) ||
        ioctl(fd, UFFDIO_POISON, &page) ||
        ioctl(fd, UFFDIO_UNREGISTER, &range.range)) {
        return errno;
    }
    return 0;
}

static int read_own(void)
{
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int error = page == MAP_FAILED ? errno : poison((uintptr_t)page);

    return error ?: *(volatile char *)page;
}

static struct {
    int fd;
    struct kvm_run *run;
} vcpus[MAX_VCPUS];

static void *remember_vcpu(int fd, void *memory)
{
    char link[64], target[64] = "";
    int i;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (fd >= 0 && memory != MAP_FAILED &&
        readlink(link, target, sizeof(target) - 1) > 0 &&
        strstr(target, "kvm-vcpu")) {
        for (i = 0; i < MAX_VCPUS; i++) {
            if (!vcpus[i].run) {
                vcpus[i].fd = fd;
                vcpus[i].run = memory;
                break;
            }
        }
    }
    return memory;
}

void *mmap64(void *start, size_t size, int protection, int flags, int fd,
             off64_t offset)
{
    return remember_vcpu(fd, (void *)syscall(SYS_mmap, start, size, protection,
                                             flags, fd, offset));
}

/* Returns what KVM_RUN does: 0 or an errno, negative */
static int make_exit(struct kvm_run *run, int number)
{
    memset(run->padding, 0, sizeof(run->padding));
    switch (number) {
    case 0:
        run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
        run->internal.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
        run->internal.ndata = 2;
        run->internal.data[0] = 0x1234;
        run->internal.data[1] = 0x5678;
        return 0;
    case 1:
        run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
        run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
        run->internal.ndata = 0;
        return 0;
    case 2:
        run->exit_reason = KVM_EXIT_FAIL_ENTRY;
        run->fail_entry.hardware_entry_failure_reason = 0x80000021;
        run->fail_entry.cpu = 1;
        return 0;
    case 3:
        /* flags, gpa and size: an unknown flag */
        run->exit_reason = KVM_EXIT_MEMORY_FAULT;
        ((uint64_t *)run->padding)[0] = 1ULL << 63;
        ((uint64_t *)run->padding)[1] = 0x200000;
        ((uint64_t *)run->padding)[2] = PAGE;
        return -EFAULT;
    default:
        return -EBUSY;
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;
    int number, i;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    number = request != KVM_RUN ? 0 :
             __atomic_exchange_n(&wanted_exit, 0, __ATOMIC_SEQ_CST);
    if (!number) {
        return syscall(SYS_ioctl, fd, request, argument);
    }
    for (i = 0; i < MAX_VCPUS && vcpus[i].fd != fd; i++) {
        continue;
    }
    if (i < MAX_VCPUS) {
        errno = -make_exit(vcpus[i].run, number - 1);
    } else {
        errno = ENOENT;
    }
    return errno ? -1 : 0;
}

static int obey(const char *command)
{
    unsigned long argument;

    if (sscanf(command, "poison %lx", &argument) == 1) {
        return poison(argument);
    }
    if (sscanf(command, "heal %lx", &argument) == 1) {
        return madvise((void *)(argument & -PAGE), PAGE, MADV_DONTNEED) ?
               errno : 0;
    }
    if (sscanf(command, "optional %lx", &argument) == 1) {
        __atomic_store_n(&optional, argument, __ATOMIC_SEQ_CST);
        return syscall(SYS_tgkill, getpid(), getpid(), SIGBUS) ? errno : 0;
    }
    if (sscanf(command, "exit %lu", &argument) == 1) {
        __atomic_store_n(&wanted_exit, argument + 1, __ATOMIC_SEQ_CST);
        return 0;
    }
    return strcmp(command, "own") ? EINVAL : read_own();
}

static void *serve(void *opaque)
{
    int fd = (intptr_t)opaque;
    char command[64];
    ssize_t size;

    while ((size = recv(fd, command, sizeof(command) - 1, 0)) > 0) {
        const char *answer;

        command[size] = 0;
        answer = strerror(obey(command));
        send(fd, answer, strlen(answer), 0);
    }
    return NULL;
}

static void __attribute__((__constructor__)) start(void)
{
    const char *fd = getenv("BADMEM_FD");
    sigset_t others, before;
    pthread_t thread;

    unsetenv("LD_PRELOAD");
    if (!fd) {
        return;
    }
    sigfillset(&others);
    sigdelset(&others, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    pthread_create(&thread, NULL, serve, (void *)(intptr_t)atoi(fd));
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}
