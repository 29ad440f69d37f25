/* What every stand-in loader says of the boot image that it has read, on the first serial port:
 *
 *     <loader>: MSWIM bytes=<size> images=<count> boot=<index> crc=<CRC-32 of the whole file> from <where>
 *
 * The loaders have no library and no start-up code: no static data that is not constant, except in .bss.
 */
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

enum { WIM_HEADER = 208, WIM_IMAGES = 44, WIM_BOOT = 120 };

struct image {
    u32 bytes;
    u32 crc;
    u32 table[256];
    u8 header[WIM_HEADER];
};

static void out(u16 port, u8 value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static u8 in(u16 port) {
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void say(const char *text) {
    for (; *text; text++) {
        while (!(in(0x3fd) & 0x20)) {
        }
        out(0x3f8, *text);
    }
}

static void say_number(u32 value, u32 base) {
    char digits[12], *at = digits + sizeof digits - 1;
    *at = 0;
    do
        *--at = "0123456789abcdef"[value % base];
    while (value /= base);
    say(at);
}

/* Never comes back. The last word is there so that the line before it is known to be whole. */
static void stop(const char *why) {
    say(why);
    say("\r\nhalted\r\n");
    for (;;)
        __asm__ volatile("hlt");
}

static u16 get16(const u8 *at) {
    return at[0] | at[1] << 8;
}

static u32 get32(const u8 *at) {
    return get16(at) | (u32)get16(at + 2) << 16;
}

static void image_begin(struct image *image) {
    image->bytes = 0;
    image->crc = ~(u32)0;
    for (u32 i = 0; i < 256; i++) {
        u32 value = i;
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0xedb88320 : 0);
        image->table[i] = value;
    }
}

static void image_add(struct image *image, const u8 *data, u32 length) {
    u32 crc = image->crc;
    for (u32 i = 0; i < length; i++) {
        if (image->bytes + i < WIM_HEADER)
            image->header[image->bytes + i] = data[i];
        crc = crc >> 8 ^ image->table[(crc ^ data[i]) & 0xff];
    }
    image->crc = crc;
    image->bytes += length;
}

static void image_report(const struct image *image, const char *where) {
    if (image->bytes < WIM_HEADER)
        stop("boot.wim is too short");
    say(LOADER ": ");
    for (int i = 0; i < 5; i++) {
        char magic[2] = {image->header[i], 0};
        say(magic);
    }
    say(" bytes=");
    say_number(image->bytes, 10);
    say(" images=");
    say_number(get32(image->header + WIM_IMAGES), 10);
    say(" boot=");
    say_number(get32(image->header + WIM_BOOT), 10);
    say(" crc=");
    say_number(~image->crc, 16);
    say(" from ");
    stop(where);
}
