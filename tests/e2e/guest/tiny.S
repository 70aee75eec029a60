/*
 * A guest that does nothing but what a test tells it, at once: 64 KiB for
 * -bios, ready a moment after QEMU has started. All in real mode, with
 * interrupts off. Its memory is shared with the test (../harness/tiny.py):
 *
 *   0x0500  how often it has started
 *   0x0504  NMIs that it has seen
 *   0x0508  address of a script to run, zeroed when it is begun
 *   0x050c  not zero while a script runs
 *   0x1000  64 bytes for each vCPU, which begin with a counter that the vCPU
 *           increments without a pause; the first one does not while it runs
 *           a script
 *
 * A script is a list of steps of 16 bytes: operation and port (16 bits each),
 * value, second value, unused (32 bits each).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define STARTS   0x500
#define NMIS     0x504
#define SCRIPT   0x508
#define BUSY     0x50c
#define COUNTERS 0x1000
#define CODE     0x8000
#define STEP     16

    .code16
    .text

/* Where a start-up IPI with vector CODE >> 12 leads to, with CS = CODE >> 4 */
    ljmp    $0, $count

start:
    cli
    cld
    xor     %ax, %ax
    mov     %ax, %ds
    mov     %ax, %es
    xor     %si, %si
    mov     $CODE, %di
    mov     $end - CODE, %cx
    rep movsb %cs:(%si), %es:(%di)
    ljmp    $0, $first

first:
    xor     %ax, %ax
    mov     %ax, %ss
    mov     $CODE, %sp
    movw    $nmi, 2 * 4
    movw    %ax, 2 * 4 + 2
    incl    STARTS
    movl    $0, BUSY
    call    start_others
    /* enable the APIC, and let its second pin cause an NMI */
    mov     $0x80f, %ecx
    mov     $0x1ff, %eax
    wrmsr
    mov     $0x836, %ecx
    mov     $0x400, %eax
    wrmsr
begin:
    mov     $COUNTERS, %bx
1:  incl    (%bx)
    mov     SCRIPT, %si
    test    %si, %si
    jz      1b
    movl    $1, BUSY
    movl    $0, SCRIPT

step:
    mov     2(%si), %dx
    mov     4(%si), %eax
    mov     8(%si), %ecx
    mov     (%si), %di
    add     $STEP, %si
    shl     $1, %di
    jmp     *operations(%di)

operations:
    .word   op_end, op_outb, op_outw, op_outl, op_outs, op_await_port
    .word   op_goto_unless_equal, op_increment, op_goto, op_hang
    .word   op_delay
    .word   op_start_others, op_store, op_store_word

op_end:
    movl    $0, BUSY
    jmp     begin
op_outb:
    out     %al, %dx
    jmp     step
op_outw:
    out     %ax, %dx
    jmp     step
op_outl:
    out     %eax, %dx
    jmp     step
/* %cx words from address %ax */
op_outs:
    mov     %si, %di
    mov     %ax, %si
    rep outsw
    mov     %di, %si
    jmp     step
/* a port, under mask %cl, reads as %al */
op_await_port:
    mov     %al, %ah
2:  in      %dx, %al
    and     %cl, %al
    cmp     %ah, %al
    jne     2b
    jmp     step
/* to step %dx, if the words at addresses %ax and %cx are not the same */
op_goto_unless_equal:
    mov     %ax, %bx
    mov     %cx, %di
    mov     (%bx), %ax
    cmp     %ax, (%di)
    je      step
    mov     %dx, %si
    jmp     step
op_increment:
    mov     %ax, %bx
    incw    (%bx)
    jmp     step
/* above 64 KiB, too: TCG knows no limits of segments */
op_store:
    mov     %eax, (%ecx)
    jmp     step
op_store_word:
    mov     %ax, (%ecx)
    jmp     step
op_goto:
    mov     %ax, %si
    jmp     step
op_hang:
    jmp     op_hang
op_delay:
    dec     %eax
    jnz     op_delay
    jmp     step

op_start_others:
    call    start_others
    jmp     step

/* All other vCPUs get an INIT and a start-up IPI, by x2APIC */
start_others:
    mov     $0x1b, %ecx
    rdmsr
    or      $0xc00, %eax
    wrmsr
    xor     %edx, %edx
    mov     $0x830, %ecx
    mov     $0xc4500, %eax
    wrmsr
    mov     $0xc4600 | CODE >> 12, %eax
    wrmsr
    ret

nmi:
    incl    %cs:NMIS
    iret

/* Every other vCPU */
count:
    xor     %ax, %ax
    mov     %ax, %ds
    mov     $1, %eax
    cpuid
    shr     $24, %ebx
    shl     $6, %ebx
    add     $COUNTERS, %ebx
4:  incl    (%bx)
    jmp     4b
end:

/* The reset vector, at the end of the ROM; jumps by itself wrap at 64 KiB */
    .org    0xfff0
    .byte   0xe9
    .word   start - reset
reset:
    .org    0x10000
