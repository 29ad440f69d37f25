/* Stands in for cdboot.efi and bootmgfw.efi: reads \sources\boot.wim through the firmware's own file systems. Started
 * from a stick that is its own volume; from a disc its own volume is the boot entry's FAT image, and the file lies on
 * the disc, which the firmware reads by its UDF driver. Of the UEFI tables only what is called is named.
 */
#include "report.h"

#define EFI __attribute__((ms_abi))
typedef u64 status;

struct guid {
    u32 a;
    u16 b, c;
    u8 d[8];
};

struct file {
    u64 revision;
    status (EFI *open)(struct file *, struct file **, const u16 *, u64 mode, u64 attributes);
    void *close, *erase;
    status (EFI *read)(struct file *, u64 *size, void *);
};

struct file_system {
    u64 revision;
    status (EFI *open_volume)(struct file_system *, struct file **);
};

struct loaded_image {
    u32 revision;
    void *parent, *system, *device;
};

struct boot_services {
    u8 header[24];
    void *until_handle_protocol[16];
    status (EFI *handle_protocol)(void *handle, const struct guid *, void **);
    void *until_connect[13];
    status (EFI *connect)(void *handle, void **drivers, void *path, u8 recursive);
    void *until_handles[5];
    status (EFI *handles)(int by_protocol, const struct guid *, void *key, u64 *count, void ***);
};

struct system_table {
    u8 before[96];
    struct boot_services *boot;
};

enum { BY_PROTOCOL = 2, ALL = 0, FOR_READING = 1, AT_ONCE = 32768 };

__attribute__((used, section(".entry"))) EFI status start(void *self, struct system_table *system) {
    const struct guid file_systems = {0x964e5b22, 0x6459, 0x11d2, {0x8e, 0x39, 0, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
    const struct guid loaded = {0x5b1b31a1, 0x9562, 0x11d2, {0x8e, 0x3f, 0, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
    struct boot_services *boot = system->boot;
    struct loaded_image *own;
    void **handles;
    u64 count;

    if (boot->handle_protocol(self, &loaded, (void **)&own))
        stop(LOADER ": no loaded image");
    if (boot->handles(ALL, 0, 0, &count, &handles))
        stop(LOADER ": no handles");
    for (u64 i = 0; i < count; i++)
        boot->connect(handles[i], 0, 0, 1);
    if (boot->handles(BY_PROTOCOL, &file_systems, 0, &count, &handles))
        stop(LOADER ": no file systems");
    for (u64 i = 0; i < count; i++) {
        struct file_system *volume;
        struct file *root, *file;
        struct image image;
        u8 data[AT_ONCE];
        u64 size;
        if (boot->handle_protocol(handles[i], &file_systems, (void **)&volume) || volume->open_volume(volume, &root) ||
            root->open(root, &file, u"\\sources\\boot.wim", FOR_READING, 0))
            continue;
        image_begin(&image);
        do {
            size = sizeof data;
            if (file->read(file, &size, data))
                stop(LOADER ": boot.wim cannot be read");
            image_add(&image, data, (u32)size);
        } while (size);
        image_report(&image, handles[i] == own->device ? "its own volume" : "another volume");
    }
    stop(LOADER ": no volume has boot.wim");
    return 1;
}
