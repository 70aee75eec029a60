/*
 * A guest that reads the address that a test gives it, in user mode and under
 * KVM, too: 64 KiB for -bios. It maps its first GiB one to one, and runs in
 * ring 3: so it is at full speed also where KVM emulates ring 0. Its memory is
 * shared with the test (../harness/reader.py), 64 bits each:
 *
 *   0x500  address to be read; zeroed when that is done, or has failed
 *   0x508  counter, incremented without a pause
 *   0x510  how many addresses were read
 *   0x518  how many machine checks there were
 *   0x520  IA32_MC9_STATUS at the last one; QEMU uses that bank
 *   0x528  IA32_MC9_ADDR
 *   0x530  IA32_MCG_STATUS
 *
 * After a machine check it goes on with the next address.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define TARGET     0x500
#define COUNTER    0x508
#define READS      0x510
#define CHECKS     0x518
#define STATUS     0x520
#define ADDRESS    0x528
#define MCG_STATUS 0x530
#define TSS        0x7000
#define STACK      0x7f00
#define CODE       0x8000
#define PML4       0x10000
#define PDPT       0x11000
#define PD         0x12000

    .code16
    .text
start:
    cli
    cld
    xor     %ax, %ax
    mov     %ax, %es
    xor     %si, %si
    mov     $CODE, %di
    mov     $end - CODE, %cx
    rep movsb %cs:(%si), %es:(%di)
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
    mov     $STACK, %esp
    /* 512 pages of 2 MiB, for ring 3 */
    mov     $PML4, %edi
    xor     %eax, %eax
    mov     $3 * 1024, %ecx
    rep stosl
    movl    $PDPT + 7, PML4
    movl    $PD + 7, PDPT
    mov     $PD, %edi
    mov     $0x87, %eax
1:  mov     %eax, (%edi)
    add     $8, %edi
    add     $0x200000, %eax
    cmp     $PD + 4096, %edi
    jne     1b
    movl    $STACK, TSS + 4
    /* machine checks, physical address extension, SSE */
    mov     $0x660, %eax
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

    .code64
long_mode:
    lidt    idt_pointer
    mov     $0x38, %ax
    ltr     %ax
    pushq   $0x2b
    pushq   $STACK - 0x400
    pushq   $2
    pushq   $0x33
    pushq   $read
    iretq

/* Ring 3 */
read:
    incq    COUNTER
    mov     TARGET, %rbx
    test    %rbx, %rbx
    jz      read
    mov     (%rbx), %rax
    movq    $0, TARGET
    incq    READS
    jmp     read

/* Ring 0 */
machine_check:
    push    %rax
    push    %rcx
    push    %rdx
    mov     $0x425, %ecx
    rdmsr
    mov     %eax, STATUS
    mov     %edx, STATUS + 4
    inc     %ecx
    rdmsr
    mov     %eax, ADDRESS
    mov     %edx, ADDRESS + 4
    dec     %ecx
    xor     %eax, %eax
    xor     %edx, %edx
    wrmsr
    mov     $0x17a, %ecx
    rdmsr
    mov     %eax, MCG_STATUS
    mov     %edx, MCG_STATUS + 4
    xor     %eax, %eax
    wrmsr
    movq    $0, TARGET
    incq    CHECKS
    movq    $read, 24(%rsp)
    pop     %rdx
    pop     %rcx
    pop     %rax
    iretq

    .balign 16
gdt:
    .quad   0
    .quad   0x00cf9b000000ffff      /* 0x08: code, 32 bits */
    .quad   0x00cf93000000ffff      /* 0x10: data */
    .quad   0x00af9b000000ffff      /* 0x18: code, 64 bits */
    .quad   0
    .quad   0x00cff3000000ffff      /* 0x28: data, ring 3 */
    .quad   0x00affb000000ffff      /* 0x30: code, 64 bits, ring 3 */
    .quad   0x0000890070000067      /* 0x38: TSS */
    .quad   0
gdt_pointer:
    .word   gdt_pointer - gdt - 1
    .long   gdt
    .balign 16
idt:
    .zero   18 * 16
    .word   machine_check, 0x18, 0x8e00, 0
    .quad   0
idt_pointer:
    .word   idt_pointer - idt - 1
    .quad   idt
end:

/* The reset vector, at the end of the ROM; jumps by itself wrap at 64 KiB */
    .code16
    .org    0xfff0
    .byte   0xe9
    .word   start - reset
reset:
    .org    0x10000
