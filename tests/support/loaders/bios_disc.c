/* Stands in for etfsboot.com: started by El Torito, finds \sources\boot.wim on the UDF side of its disc (ECMA-167,
 * UDF 1.02: one partition, no maps) and reads all of it by INT 13h.
 */
#define LOADER "etfsboot"
#define SEGMENT "0x07c0"
#include "bios.h"

enum { SECTOR = 2048, AT_ONCE = 8, ANCHOR = 256 };
enum { TAG_PARTITION = 5, TAG_LOGICAL = 6, TAG_END = 8, TAG_FILE_SET = 256, TAG_NAME = 257, TAG_FILE = 261 };

static u8 sector[SECTOR];
static u8 entry[SECTOR];
static u8 data[AT_ONCE * SECTOR];
static struct image image;
static u32 partition;

static void expect(u32 place, u16 tag, u8 *target) {
    read_sectors(place, 1, target);
    if (get16(target) != tag)
        stop(LOADER ": no such UDF descriptor");
}

/* The next extent that the file entry in ``entry`` describes; 0 after the last. */
static int extent(u32 number, u32 *place, u32 *length) {
    u8 kind = entry[34] & 7, size = kind == 0 ? 8 : 16;
    u32 at = 176 + get32(entry + 168);
    if (kind > 1)
        stop(LOADER ": allocation descriptors of another kind");
    if (size * number >= get32(entry + 172))
        return 0;
    *length = get32(entry + at + size * number) & 0x3fffffff;
    *place = partition + get32(entry + at + size * number + 4);
    return *length != 0;
}

/* ``entry`` becomes that of ``name`` in the folder that it describes; its names must fit into ``data``. */
static void enter(const char *name, int length) {
    u32 place, size;
    if (!extent(0, &place, &size) || size > sizeof data)
        stop(LOADER ": a folder that is empty or large");
    read_sectors(place, (size + SECTOR - 1) / SECTOR, data);
    for (u32 at = 0; at + 38 <= size && get16(data + at) == TAG_NAME;) {
        u8 letters = data[at + 19];
        u16 use = get16(data + at + 36);
        const u8 *text = data + at + 38 + use;
        if (letters == length + 1 && text[0] == 8 && is(text + 1, name, length)) {
            expect(partition + get32(data + at + 24), TAG_FILE, entry);
            return;
        }
        at += (38 + use + letters + 3) & ~3u;
    }
    stop(LOADER ": boot.wim is not on the disc");
}

__attribute__((used, regparm(3))) void start(u8 boot_drive) {
    u32 place, length, set = 0;
    drive = boot_drive;
    expect(ANCHOR, 2, sector);
    place = get32(sector + 20);
    for (u16 tag = 0; tag != TAG_END; place++) {
        read_sectors(place, 1, sector);
        tag = get16(sector);
        if (tag == TAG_PARTITION)
            partition = get32(sector + 188);
        else if (tag == TAG_LOGICAL)
            set = get32(sector + 252);
        else if (tag == 0)
            stop(LOADER ": the volume descriptors have no end");
    }
    expect(partition + set, TAG_FILE_SET, sector);
    expect(partition + get32(sector + 404), TAG_FILE, entry);
    enter("sources", 7);
    enter("boot.wim", 8);
    image_begin(&image);
    for (u32 number = 0; extent(number, &place, &length); number++)
        for (u32 part; length; length -= part, place += AT_ONCE) {
            part = length < sizeof data ? length : sizeof data;
            read_sectors(place, (part + SECTOR - 1) / SECTOR, data);
            image_add(&image, data, part);
        }
    image_report(&image, "the UDF side of the disc");
}
