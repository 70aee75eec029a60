/*
 * Starts worker.c without an operating system: 64 KiB for -bios. Each vCPU
 * maps the first 4 GiB one to one, and enters worker.c in ring 3: so it is at
 * full speed also where KVM emulates ring 0. All that ring 0 does later is to
 * rest for a time: when ring 3 executes HLT, with the nanoseconds in %edi.
 * That is an exception, which also a KVM passes on that knows no interrupts by
 * software.
 *
 * The memory of the ivshmem device in slot 16 is put where worker.c wants it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define CODE       0x8000
#define PML4       0x10000
#define PDPT       0x11000
#define PD         0x12000
/* for each vCPU: of ring 0, and of ring 3 */
#define STACK_SIZE 0x4000
#define KERNEL     0x80000
#define USER       0x90000
#define SHARED     0xe0000000
#define PCI_SLOT   16
#define TIMER      0x40

    .code16
    .section .text.start, "ax"
/* Where a start-up IPI leads to, with CS = CODE >> 4 */
    ljmp    $0, $real_mode

    .globl  start
start:
    cli
    cld
    xor     %ax, %ax
    mov     %ax, %es
    xor     %si, %si
    mov     $CODE, %di
    mov     $_end - CODE, %cx
    rep movsb %cs:(%si), %es:(%di)
    ljmp    $0, $real_mode

real_mode:
    cli
    xor     %ax, %ax
    mov     %ax, %ds
    lgdtl   gdt_pointer
    mov     %cr0, %eax
    or      $1, %eax
    mov     %eax, %cr0
    ljmpl   $0x08, $protected

    .code32
protected:
    mov     $0x10, %ax
    mov     %ax, %ds
    mov     %ax, %es
    mov     %ax, %ss
    /* the number of this vCPU, in %ebp from now on */
    mov     $1, %ebp
    lock xadd %ebp, vcpus
    test    %ebp, %ebp
    jnz     paging
    mov     $KERNEL + STACK_SIZE, %esp
    /* 2048 pages of 2 MiB, for ring 3 */
    mov     $PML4, %edi
    xor     %eax, %eax
    mov     $6 * 1024, %ecx
    rep stosl
    movl    $PDPT + 7, PML4
    mov     $PDPT, %edi
    mov     $PD + 7, %eax
1:  mov     %eax, (%edi)
    add     $0x1000, %eax
    add     $8, %edi
    cmp     $PDPT + 4 * 8, %edi
    jne     1b
    mov     $PD, %edi
    mov     $0x87, %eax
2:  mov     %eax, (%edi)
    add     $8, %edi
    add     $0x200000, %eax
    jnc     2b
    /* the second base address register, and have it decoded */
    mov     $(1 << 31 | PCI_SLOT << 11 | 0x18), %eax
    mov     $SHARED, %ebx
    call    configure
    mov     $(1 << 31 | PCI_SLOT << 11 | 0x1c), %eax
    xor     %ebx, %ebx
    call    configure
    mov     $(1 << 31 | PCI_SLOT << 11 | 0x04), %eax
    mov     $2, %ebx
    call    configure
paging:
    /* physical address extension, SSE */
    mov     $0x620, %eax
    mov     %eax, %cr4
    mov     $PML4, %eax
    mov     %eax, %cr3
    mov     $0xc0000080, %ecx
    rdmsr
    or      $0x101, %eax
    wrmsr
    mov     $0x80000033, %eax
    mov     %eax, %cr0
    ljmp    $0x18, $long_mode

/* Write %ebx to register %eax */
configure:
    mov     $0xcf8, %dx
    out     %eax, %dx
    mov     $0xcfc, %dx
    mov     %ebx, %eax
    out     %eax, %dx
    ret

    .code64
long_mode:
    mov     %ebp, %ebx
    imul    $STACK_SIZE, %ebx, %ebx
    lea     KERNEL + STACK_SIZE(%rbx), %rsp
    lidt    idt_pointer
    mov     %ebp, %eax
    shl     $4, %eax
    add     $0x38, %eax
    ltr     %ax
    /* x2APIC; a timer that counts nanoseconds, once */
    mov     $0x1b, %ecx
    rdmsr
    or      $0xc00, %eax
    wrmsr
    xor     %edx, %edx
    mov     $0x80f, %ecx
    mov     $0x1ff, %eax
    wrmsr
    mov     $0x83e, %ecx
    mov     $0xb, %eax
    wrmsr
    mov     $0x832, %ecx
    mov     $TIMER, %eax
    wrmsr
    test    %ebp, %ebp
    jnz     1f
    /* all others: INIT, and start */
    mov     $0x830, %ecx
    mov     $0xc4500, %eax
    wrmsr
    mov     $0xc4600 | CODE >> 12, %eax
    wrmsr
1:  lea     USER + STACK_SIZE - 8(%rbx), %rax
    pushq   $0x2b
    push    %rax
    pushq   $0x202
    pushq   $0x33
    pushq   $enter
    mov     %ebp, %edi
    iretq

/* A general protection exception */
rest:
    push    %rax
    push    %rcx
    push    %rdx
    mov     $0x838, %ecx
    mov     %edi, %eax
    xor     %edx, %edx
    wrmsr
    sti
    hlt
    cli
    pop     %rdx
    pop     %rcx
    pop     %rax
    /* without the error code, and after the HLT */
    add     $8, %rsp
    incq    (%rsp)
    iretq

timer:
    push    %rax
    push    %rcx
    push    %rdx
    mov     $0x80b, %ecx
    xor     %eax, %eax
    xor     %edx, %edx
    wrmsr
    pop     %rdx
    pop     %rcx
    pop     %rax
    iretq

    .data
    .balign 16
vcpus:
    .long   0
    .balign 16
gdt:
    .quad   0
    .quad   0x00cf9b000000ffff      /* 0x08: code, 32 bits */
    .quad   0x00cf93000000ffff      /* 0x10: data */
    .quad   0x00af9b000000ffff      /* 0x18: code, 64 bits */
    .quad   0
    .quad   0x00cff3000000ffff      /* 0x28: data, ring 3 */
    .quad   0x00affb000000ffff      /* 0x30: code, 64 bits, ring 3 */
    /* 0x38, 0x48: TSS */
    .word   0x67, tss0, 0x8900, 0
    .quad   0
    .word   0x67, tss1, 0x8900, 0
    .quad   0
gdt_pointer:
    .word   gdt_pointer - gdt - 1
    .long   gdt
    .balign 16
/* the stack of ring 0 */
tss0:
    .long   0, KERNEL + STACK_SIZE, 0
    .zero   0x68 - 12
    .balign 16
tss1:
    .long   0, KERNEL + 2 * STACK_SIZE, 0
    .zero   0x68 - 12
    .balign 16
idt:
    .zero   13 * 16
    .word   rest, 0x18, 0x8e00, 0
    .quad   0
    .zero   (TIMER - 14) * 16
    .word   timer, 0x18, 0x8e00, 0
    .quad   0
idt_pointer:
    .word   idt_pointer - idt - 1
    .quad   idt

/* The reset vector, at the end of the ROM; jumps by itself wrap at 64 KiB */
    .code16
    .section .reset, "ax"
    .byte   0xe9
    .word   to_start
    .org    16
