# Entries. Firecracker starts us in 64-bit mode with the zero page's address in %rsi (Linux boot protocol).
# An interrupt never returns: iretq is not emulated everywhere. Its entry resets the stack and goes back to the event loop,
# which looks at the device before it sleeps again, so nothing is lost and no state lives on the stack.
    .section .text
    .globl _start, on_interrupt, on_exception
_start:
    cld
    lea stack_top(%rip), %rsp
    mov %rsi, %rdi
    call boot
on_interrupt:
    cld
    lea stack_top(%rip), %rsp
    call resume_after_interrupt
on_exception:
    lea stack_top(%rip), %rsp
    call panic

    .section .bss
    .balign 4096
    .skip 65536
stack_top:
    .section .note.GNU-stack, "", @progbits
