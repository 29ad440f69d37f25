# FAT32 boot sector: loads the next stage from the reserved sectors (8 to 11 of the volume) to 0000:7E00.
# Entered at 0000:7C00 with the drive in DL. The BIOS parameter block lies between the jump and the code.
.code16
.globl _start
_start:
    jmp code
    nop
    .fill 87, 1, 0
code:
    cli
    xorw %ax, %ax
    movw %ax, %ss
    movw $0x7c00, %sp
    movw %ax, %ds
    movw %ax, %es
    sti
    cld
    movb %dl, 0x7c40
    movl 0x7c1c, %eax
    addl $8, %eax
    movl %eax, (0x7c00 + lba - _start)
    movw $(0x7c00 + packet - _start), %si
    movb $0x42, %ah
    int $0x13
    jc fail
    cmpl $0x54534852, 0x7e00
    jne fail
    jmp 0x7e04 - 0x7c00 + _start
fail:
    movw $(0x7c00 + text - _start), %si
show:
    lodsb
    testb %al, %al
    jz stop
    movb $0x0e, %ah
    movw $7, %bx
    int $0x10
    jmp show
stop:
    hlt
    jmp stop
packet:
    .word 16, 4
    .word 0x7e00, 0
lba:
    .long 0, 0
text:
    .asciz "The boot loader cannot be read"
