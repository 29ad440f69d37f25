/* Stands in for bootmgr on a stick: loaded to 2000:0000 by the boot sector, which leaves the BIOS parameter block at
 * 0000:7C00 and the drive in DL. Finds \sources\boot.wim on the FAT32 volume and reads all of it by INT 13h.
 */
#define LOADER "bootmgr"
#define SEGMENT "0x2000"
#include "bios.h"

enum { SECTOR = 512, AT_ONCE = 64, END = 0x0ffffff8 };

static u8 parameters[SECTOR];
static u8 table[SECTOR];
static u8 data[AT_ONCE * SECTOR];
static struct image image;
static u32 first_table, first_data, known;

static u32 place_of(u32 cluster) {
    return first_data + (cluster - 2) * parameters[13];
}

static u32 after(u32 cluster) {
    u32 at = first_table + cluster / (SECTOR / 4);
    if (at != known) {
        known = at;
        read_sectors(at, 1, table);
    }
    return get32(table + cluster % (SECTOR / 4) * 4) & 0x0fffffff;
}

/* First cluster and size of what is called ``name`` (11 bytes, as in the entry) in the folder. */
static u32 enter(u32 cluster, const char *name, u32 *size) {
    for (; cluster < END; cluster = after(cluster))
        for (u8 i = 0; i < parameters[13]; i++) {
            read_sectors(place_of(cluster) + i, 1, data);
            for (const u8 *at = data; at < data + SECTOR && *at; at += 32)
                if (!(at[11] & 8) && is(at, name, 11)) {
                    *size = get32(at + 28);
                    return get16(at + 26) | (u32)get16(at + 20) << 16;
                }
        }
    stop(LOADER ": boot.wim is not on the stick");
    return 0;
}

__attribute__((used, regparm(3))) void start(u8 boot_drive) {
    u32 cluster, size;
    drive = boot_drive;
    known = 0;
    __asm__ volatile("pushw %%ds; xorw %%ax, %%ax; movw %%ax, %%ds; movl $0x7c00, %%esi; movl %0, %%edi;"
                     "movl $512, %%ecx; rep movsb; popw %%ds"
                     : : "r"(parameters) : "eax", "ecx", "esi", "edi", "memory");
    first_table = get32(parameters + 28) + get16(parameters + 14);
    first_data = first_table + parameters[16] * get32(parameters + 36);
    if (parameters[13] > AT_ONCE)
        stop(LOADER ": clusters of more than 32 KiB");
    cluster = enter(enter(get32(parameters + 44), "SOURCES    ", &size), "BOOT    WIM", &size);
    image_begin(&image);
    while (size) {
        u32 first = cluster, length = 0;
        do {
            if (cluster < 2 || cluster >= END)
                stop(LOADER ": the chain of clusters ends too early");
            length += parameters[13] * SECTOR;
            cluster = after(cluster);
        } while (length < size && cluster == first + length / (parameters[13] * SECTOR) &&
                 length + parameters[13] * SECTOR <= sizeof data);
        length = size < length ? size : length;
        read_sectors(place_of(first), (length + SECTOR - 1) / SECTOR, data);
        image_add(&image, data, length);
        size -= length;
    }
    image_report(&image, "its FAT32 volume");
}
