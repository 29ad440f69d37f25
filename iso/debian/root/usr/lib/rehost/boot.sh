# Functions of the first process (/init), apart so that they can be read and tried one by one.

# option NAME: prints the value of NAME=value (or nothing for a bare NAME) of the kernel command line;
# fails where it is not there.
option() {
    local word
    for word in $(cat "${CMDLINE:-/proc/cmdline}"); do
        case $word in
        "$1") return 0 ;;
        "$1="*) echo "${word#*=}"; return 0 ;;
        esac
    done
    return 1
}

# Loads what every device present asks for. Returns at once when no device is new.
# Disk and USB drivers are loaded in any case: so a disk plugged in later works without another look.
load_drivers() {
    find "${SYS:-/sys}/devices" -name modalias -exec cat {} + 2>/dev/null | sort -u >/run/rehost/modalias.now
    if ! cmp -s /run/rehost/modalias.now /run/rehost/modalias; then
        mv /run/rehost/modalias.now /run/rehost/modalias
        xargs /usr/sbin/modprobe -abq sd_mod sr_mod usb-storage uas usbhid hid-generic </run/rehost/modalias
    fi
}

# What is there, in one line: compared to see whether devices still appear.
devices() {
    echo "${SYS:-/sys}"/bus/scsi/devices/* "${SYS:-/sys}"/class/block/* "${SYS:-/sys}"/bus/usb/devices/*
}

# True while a controller says that it is not finished: an NVMe controller that starts, or a USB disk whose
# driver has made a host but not yet looked what is behind it (it waits a second, so that the disk can settle).
devices_busy() {
    local file host
    for file in "${SYS:-/sys}"/class/nvme/*/state; do
        [ -e "$file" ] || continue
        case $(cat "$file" 2>/dev/null) in new | resetting | connecting) return 0 ;; esac
    done
    for host in "${SYS:-/sys}"/bus/usb/devices/*/host*; do
        [ -e "$host" ] || continue
        set -- "$host"/target*
        [ -e "$1" ] || return 0
    done
    return 1
}

# Waits until no device has appeared for 0.3 s (1 s where there is something on USB besides the hubs), at most
# 15 s. SAS and RAID controllers are searched while their driver loads (scsi_mod.scan=sync), so not here.
wait_for_disks() {
    local quiet=0 rounds=0 before="" now enough
    while [ $rounds -lt 150 ]; do
        load_drivers
        now=$(devices)
        if [ "$now" = "$before" ] && ! devices_busy; then quiet=$((quiet + 1)); else quiet=0; fi
        enough=3
        case $now in *usb/devices/[0-9]*) enough=10 ;; esac
        [ $quiet -ge $enough ] && break
        before=$now
        rounds=$((rounds + 1))
        usleep 100000
    done
}

# The consoles of the kernel command line that exist, the main one (/dev/console) last. tty0 stands for the
# screen's current console, which is tty1.
consoles() {
    sed 's/\btty0\b/tty1/' "${SYS:-/sys}/class/tty/console/active"
}

# One line per console for busybox init. The main one starts by itself; the others wait for Enter, so that two
# people do not work on the same disks without knowing it, and no time is spent on what nobody looks at.
write_inittab() {
    local all main tty
    all=$(consoles)
    main=${all##* }
    for tty in $all; do
        if [ "$tty" = "$main" ]; then
            echo "$tty::respawn:-/usr/lib/rehost/console main"
        else
            echo "$tty::askfirst:-/usr/lib/rehost/console other"
        fi
    done
    echo "tty2::askfirst:-/usr/bin/sh"
    echo "::ctrlaltdel:/usr/sbin/reboot"
    echo "::shutdown:/usr/bin/umount -a -r"
}

# The line that tests and measurements wait for, on the serial console if there is one.
announce() {
    case " $(consoles) " in
    *" ttyS0 "*) echo "REHOST-BOOT $(cut -d' ' -f1 /proc/uptime)" >/dev/ttyS0 ;;
    esac
}
