# Second stage of the FAT32 boot sector, at 0000:7E00: loads \BOOTMGR to 2000:0000 and starts it.
# Expects the boot sector at 0000:7C00 (drive at its offset 0x40) and INT 13h extensions. BOOTMGR finds its own
# partition by the BIOS parameter block at 0000:7C00 and DL, as Windows' own boot sector leaves them.
.code16
.equ HIDDEN, 0x7c1c
.equ RESERVED, 0x7c0e
.equ PER_CLUSTER, 0x7c0d
.equ FAT_SECTORS, 0x7c24
.equ ROOT, 0x7c2c
.equ DRIVE, 0x7c40
.equ FATS, 0x7c10
.equ BASE, 0x7e00
.equ BUFFER, 0x8600          # one sector of a folder
.equ TABLE, 0x8800           # one sector of the table of clusters
.globl _start
_start:
    .long 0x54534852         # "RHST"
    movl HIDDEN, %eax        # first sector of the table
    movzwl RESERVED, %ebx
    addl %ebx, %eax
    movl %eax, (BASE + fat - _start)
    movzbl FATS, %ecx        # first sector of cluster 2
    movl FAT_SECTORS, %ebx
    imull %ecx, %ebx
    addl %ebx, %eax
    movl %eax, (BASE + data - _start)
    movl ROOT, %eax
folder:
    movl %eax, (BASE + cluster - _start)
    call first_sector        # EBX
    movzbw PER_CLUSTER, %cx
sector:
    pushw %cx
    pushl %ebx
    movw $1, (BASE + count - _start)
    movw $BUFFER, (BASE + where - _start)
    movw $0, (BASE + where + 2 - _start)
    call read
    movw $BUFFER, %di
entry:
    cmpb $0, (%di)
    je missing
    testb $0x18, 11(%di)     # no label, long name or folder
    jnz skip
    pushw %di
    movw $(BASE + name - _start), %si
    movw $11, %cx
    repe cmpsb
    popw %di
    je found
skip:
    addw $32, %di
    cmpw $(BUFFER + 512), %di
    jb entry
    popl %ebx
    popw %cx
    incl %ebx
    loop sector
    movl (BASE + cluster - _start), %eax
    call following
    cmpl $0x0ffffff8, %eax
    jb folder
missing:
    movw $(BASE + absent - _start), %si
    jmp fail
found:
    movw 20(%di), %ax
    shll $16, %eax
    movw 26(%di), %ax
    movw $0, (BASE + where - _start)
    movw $0x2000, (BASE + where + 2 - _start)
load:
    movl %eax, (BASE + cluster - _start)
    call first_sector
    movzbw PER_CLUSTER, %cx
one:                         # sector by sector: some BIOSes refuse a transfer across 64 KiB
    pushw %cx
    movw $1, (BASE + count - _start)
    call read
    addw $0x20, (BASE + where + 2 - _start)
    cmpw $0x9e00, (BASE + where + 2 - _start)
    ja large
    popw %cx
    incl %ebx
    loop one
    movl (BASE + cluster - _start), %eax
    call following
    cmpl $0x0ffffff8, %eax
    jb load
    movb DRIVE, %dl
    ljmp $0x2000, $0
large:
    movw $(BASE + big - _start), %si
    jmp fail

first_sector:                # of cluster EAX, into EBX
    subl $2, %eax
    movzbl PER_CLUSTER, %ebx
    imull %ebx, %eax
    addl (BASE + data - _start), %eax
    movl %eax, %ebx
    ret

following:                   # the cluster after EAX, into EAX
    pushl (BASE + where - _start)
    movl %eax, %ecx
    shrl $7, %eax
    addl (BASE + fat - _start), %eax
    movl %eax, %ebx
    movw $TABLE, (BASE + where - _start)
    movw $0, (BASE + where + 2 - _start)
    movw $1, (BASE + count - _start)
    cmpl %ebx, (BASE + known - _start)
    je have
    movl %ebx, (BASE + known - _start)
    call read
have:
    popl (BASE + where - _start)
    andw $127, %cx
    shlw $2, %cx
    movw %cx, %di
    movl TABLE(%di), %eax
    andl $0x0fffffff, %eax
    cmpl $2, %eax
    jb unreadable
    ret

read:                        # sector EBX to the place in the packet
    movl %ebx, (BASE + lba - _start)
    movb DRIVE, %dl
    movw $(BASE + packet - _start), %si
    movb $0x42, %ah
    int $0x13
    jc unreadable
    ret
unreadable:
    movw $(BASE + unread - _start), %si
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
    .word 16
count:
    .word 1
where:
    .word 0, 0
lba:
    .long 0, 0
fat:
    .long 0
data:
    .long 0
cluster:
    .long 0
known:
    .long 0xffffffff
name:
    .ascii "BOOTMGR    "
absent:
    .asciz "BOOTMGR is missing on this stick"
unread:
    .asciz "The stick cannot be read"
big:
    .asciz "BOOTMGR is too large"
