/* Real mode: entry and disk. SEGMENT is where the firmware or the boot sector has put the program. */
__asm__(".code16gcc\n"
        ".pushsection .entry, \"ax\"\n"
        "    ljmpw $" SEGMENT ", $1f\n"
        "1:  cli\n"
        "    movw %cs, %ax\n"
        "    movw %ax, %ds\n"
        "    movw %ax, %es\n"
        "    movw %ax, %ss\n"
        "    movl $0xfff0, %esp\n"
        "    sti\n"
        "    cld\n"
        "    movzbl %dl, %eax\n"
        "    call start\n"
        ".popsection\n");

#include "report.h"

static u8 drive;

struct packet {
    u8 size, zero;
    u16 count, offset, segment;
    u32 sector, sector_high;
};

/* Sectors as the drive has them: 2,048 bytes on a disc. ``target`` lies in our segment. */
static void read_sectors(u32 sector, u16 count, void *target) {
    struct packet packet = {sizeof packet, 0, count, (u16)(u32)target, 0, sector, 0};
    u16 status = 0x4200;
    u8 failed;
    __asm__("movw %%ds, %0" : "=r"(packet.segment));
    __asm__ volatile("int $0x13; setc %1" : "+a"(status), "=q"(failed) : "d"(drive), "S"(&packet) : "memory", "cc");
    if (failed)
        stop(LOADER ": INT 13h failed");
}

static int is(const u8 *at, const char *text, int length) {
    for (int i = 0; i < length; i++)
        if (at[i] != (u8)text[i])
            return 0;
    return 1;
}
