/*
 * Helpers for tests of the quiesced run state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VM_QUIESCE_UTIL_H
#define VM_QUIESCE_UTIL_H

#include "libqos/libqos-pc.h"
#include "libqos/virtio-pci.h"
#include "libqtest.h"

#define VMQ_IMAGE_SIZE (16 * 1024 * 1024)
#define VMQ_SECTOR 512

/* Files: the test makes the directory first, and removes it, empty, at last */
void vmq_tmpdir_make(void);
void vmq_tmpdir_remove(void);

/* The path of a file in the directory, to be freed */
char *vmq_tmpfile(const char *name);

/* Run a program, and wait for its status */
int vmq_run(char **argv);

char *vmq_qemu_img(void);

/* A new image named "image"; returns its path, to be freed */
char *vmq_make_image(const char *format, int64_t bytes);

/* Whether another process can open @path, of at least 9 MiB, and write to it */
bool vmq_can_write(const char *path, const char *format);

/* Of a file's content, to be freed */
char *vmq_checksum(const char *path);

uint8_t vmq_byte_at(const char *path, off_t offset);

/* A storage daemon that is ready; it ends with the test */
GPid vmq_start_daemon(const char *args);
void vmq_stop_daemon(GPid pid);

/* An NBD server at @sock, with @image as export "n" */
GPid vmq_start_nbd(const char *image, const char *sock);

/*
 * Try things that would write to @image, or make somebody do it; check that
 * the VM stays quiesced, and that the file does not change
 */
void vmq_abuse(QTestState *qts, const char *image);

/* Start to quiesce; returns the token, to be freed */
char *vmq_start(QTestState *qts, int deadline_ms);

/*
 * Quiesce, and check that the event and the status agree; returns the token,
 * to be freed
 */
char *vmq_quiesce(QTestState *qts);

/* Wait for @event, and check that it carries @token; returns its data */
QDict *vmq_wait(QTestState *qts, const char *event, const char *token);

/*
 * Wait for VM_QUIESCE_FAILED with @token; returns what it says of participant
 * @name, to be freed
 */
char *vmq_wait_failed(QTestState *qts, const char *token, const char *name);

/*
 * The same for the one request to node 'disk' of device 'dev' that @name waits
 * for, 200 ms after vm-quiesce: it is listed, too
 */
char *vmq_wait_hung(QTestState *qts, const char *token, const char *name);

/* Leave the quiesced state */
void vmq_unquiesce(QTestState *qts, const char *token);

/* Let a VM that is stopped go on */
void vmq_cont(QTestState *qts);

/* Check that vm-unquiesce fails with an error that contains @text */
void vmq_assert_unquiesce_fails(QTestState *qts, const char *token,
                                const char *text);

void vmq_assert_status(QTestState *qts, const char *status);

/* Wait until the run state is @status */
void vmq_wait_status(QTestState *qts, const char *status);

/* Wait for a migration's status; any other end is a failure */
void vmq_wait_migration(QTestState *qts, const char *expected);

/* Migrate to @uri, and wait for the end */
void vmq_migrate(QTestState *qts, const char *uri);

/* Check that @rsp is an error whose description contains @text; frees @rsp */
void vmq_assert_error(QDict *rsp, const char *text);

/*
 * The error of participant @name in the data of VM_QUIESCE_FAILED; to be
 * freed
 */
char *vmq_participant_error(QDict *data, const char *name);

/* Write @byte to the first sector of the primary IDE master, with PIO */
void vmq_ide_write(QTestState *qts, uint8_t byte);

/* Number of requests held back, from query-vm-quiesce */
int64_t vmq_held_requests(QTestState *qts);

/* A driver of the virtio device in slot 4 */
typedef struct VmqVirtio {
    QTestState *qts;
    QGuestAllocator alloc;
    QPCIBus *bus;
    QVirtioPCIDevice *dev;
    QVirtQueue *vq[3];
    int num_queues;
} VmqVirtio;

void vmq_virtio_start(VmqVirtio *v, QTestState *qts, int num_queues);

/* Submit @header and a sector of 0x5a if @data; returns the reply's address */
uint64_t vmq_virtio_submit(VmqVirtio *v, const void *header, size_t len,
                           bool data, size_t reply_len);

/* Submit a write of 0x5a to the first sector of a virtio-blk device */
void vmq_virtio_blk_write(VmqVirtio *v);

void vmq_virtio_cleanup(VmqVirtio *v);

#endif
