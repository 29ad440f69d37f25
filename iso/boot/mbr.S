# Master boot record: starts the active partition's boot sector (PC/AT BIOS, INT 13h extensions).
# Entered at 0000:7C00 with the drive in DL; moves itself to 0000:0600 and jumps to 0000:7C00 again.
# The boot sector gets DL = drive and DS:SI = partition entry.
.code16
.globl _start
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ss
    movw $0x7c00, %sp
    movw %ax, %ds
    movw %ax, %es
    sti
    cld
    movw $0x7c00, %si
    movw $0x0600, %di
    movw $256, %cx
    rep movsw
    ljmp $0, $(0x0600 + moved - _start)
moved:
    movw $(0x0600 + 446), %si
    movb $4, %cl
next:
    testb $0x80, (%si)
    jnz found
    addw $16, %si
    decb %cl
    jnz next
    movw $(0x0600 + none - _start), %si
    jmp fail
found:
    pushl 8(%si)
    popl (0x0600 + lba - _start)
    pushw %si
    movw $(0x0600 + packet - _start), %si
    movb $0x42, %ah
    int $0x13
    popw %si
    jc broken
    cmpw $0xaa55, 0x7dfe
    jne broken
    ljmp $0, $0x7c00
broken:
    movw $(0x0600 + unread - _start), %si
fail:
    lodsb
    testb %al, %al
    jz stop
    movb $0x0e, %ah
    movw $7, %bx
    int $0x10
    jmp fail
stop:
    hlt
    jmp stop
packet:
    .word 16, 1
    .word 0x7c00, 0
lba:
    .long 0, 0
none:
    .asciz "No active partition"
unread:
    .asciz "The boot sector cannot be read"
